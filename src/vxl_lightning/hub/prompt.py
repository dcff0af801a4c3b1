"""What a language model is given of a prompt, and the same with fewer visual tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vxl_lightning.errors import UserError
from vxl_lightning.hub.family import Family, Video
from vxl_lightning.hub.reduce import Reduced, carried
from vxl_lightning.hub.shorten import Shortened, shorten


def attended(mask: Any, ids: Tensor) -> Tensor:
    """``[B, L]`` bool, where an attention mask is not zero; everything where there is none.

    Raises:
        UserError: a mask of another kind.
    """
    if mask is None:
        return torch.ones_like(ids, dtype=torch.bool)
    if not isinstance(mask, Tensor) or mask.shape != ids.shape:
        kind = f"shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise UserError(
            f"attention_mask of {kind} cannot be shortened; allowed is [batch, length] = {tuple(ids.shape)}, as the "
            "processor gives it (no static cache, no mask made beforehand)"
        )
    return mask.bool()


def positions(given: Tensor | None, mask: Tensor) -> Tensor:
    """``[B, L]``, or ``[3, B, L]`` of time, height and width: as given, or one after another as the model counts.

    Qwen's models may be given a fourth row, which only tells packed sequences apart: a mask does that here.
    """
    if given is None:
        return torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    return given[-3:].expand(3, *mask.shape) if given.ndim == 3 else given.expand(mask.shape)


def questions(
    family: Family, core: Any, embeds: Tensor, ids: Tensor, mask: Tensor, videos: Sequence[Video]
) -> list[Tensor | None]:
    """``[q, hidden]`` of every row: the text after its last video, or None where there is none."""
    text = mask & family.is_text(core, ids)
    found = []
    for row in range(len(ids)):
        last = max((int(v.place.max()) for v in videos if v.row == row), default=-1)
        asked = embeds[row, last + 1 :][text[row, last + 1 :]]
        found.append(asked if len(asked) else None)
    return found


def frames(videos: Sequence[Video], mask: Tensor) -> Tensor:
    """``[B, L]`` int64: at every cell of a video its frame, counted through the videos of its row."""
    found = torch.zeros(mask.shape, dtype=torch.long, device=mask.device)
    before = [0] * len(mask)
    for video in videos:
        number = torch.arange(video.size[0], device=mask.device) + before[video.row]
        found[video.row, video.place] = number[:, None, None].expand(video.size)
        before[video.row] += video.size[0]
    return found


def fewer(mask: Tensor, videos: Sequence[Video], reduced: Sequence[Reduced]) -> Shortened:
    """The videos' cells taken out, their tokens put in."""
    nothing = torch.zeros(0, dtype=torch.long, device=mask.device)
    gone, stands = [[nothing] for _ in mask], [[nothing] for _ in mask]
    for video, left in zip(videos, reduced, strict=True):
        gone[video.row].append(video.place.flatten())
        stands[video.row].append(left.place)
    return shorten(mask, [torch.cat(g) for g in gone], [torch.cat(s) for s in stands])


def deepened(
    kwargs: Mapping[str, Any], short: Shortened, videos: Sequence[Video], reduced: Sequence[Reduced]
) -> dict[str, Any]:
    """What deeper layers of the vision tower add behind the first layers of the language model (DeepStack): of a
    token, the mean over the cells that it carries."""
    marked = kwargs["visual_pos_masks"].bool()
    visual = short.take(marked) | (short.token >= 0)
    layers = []
    for features in kwargs["deepstack_visual_embeds"]:
        every = features.new_zeros(*marked.shape, features.shape[-1])
        every[marked] = features
        tokens = [carried(every[v.row, v.place], left) for v, left in zip(videos, reduced, strict=True)]
        layers.append(short.filled(every, torch.cat(tokens))[visual])
    return {"visual_pos_masks": visual, "deepstack_visual_embeds": layers}
