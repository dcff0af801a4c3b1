"""The time of each group of tokens, as text in front of them."""

from typing import Any

import torch
from torch import Tensor

from vxl_lightning.errors import UserError

SHORT = "{:g} s"
"""Two or three tokens for whole seconds, and the words an answer about time uses."""
_TIMES = 4096
"""Times that are remembered."""
RELEASED = "Time {:06.1f}s:"
"""What the Video-XL-Pro release writes: always 10 tokens with its tokenizer."""


class TimeText:
    """Token ids of the time text, cached for every time seen.

    Args:
        tokenizer: of the language model.
        form: a format string of one number, the seconds; `SHORT` or `RELEASED`, or your own.

    Raises:
        UserError: ``form`` cannot format a number.
    """

    def __init__(self, tokenizer: Any, form: str = SHORT) -> None:
        try:
            form.format(1.5)
        except (ValueError, IndexError, KeyError) as error:
            raise UserError(
                f"time_format={form!r} cannot write a number of seconds ({error}); write it like {SHORT!r}"
            ) from None
        self.tokenizer = tokenizer
        self.form = form
        self._cache: dict[float, Tensor] = {}

    def ids(self, seconds: float) -> Tensor:
        """``[M]`` int64 token ids of a time, which is rounded to a tenth of a second."""
        key = round(seconds, 1)
        if key not in self._cache:
            if len(self._cache) >= _TIMES:  # a stream has times without end
                self._cache.clear()
            text = self.form.format(key)
            self._cache[key] = torch.tensor(self.tokenizer.encode(text, add_special_tokens=False), dtype=torch.long)
        return self._cache[key]
