"""Conversations as token ids, in the language model's own chat format, cut where the video and the answers are."""

from dataclasses import dataclass
from typing import Any

from vxl_lightning.data.schema import Sample

IMAGE = "<image>"
_VIDEO, _QUESTION, _ANSWER = "\x00video\x00", "\x00question\x00", "\x00answer\x00"


@dataclass(frozen=True)
class Exchange:
    """A question and its answer, without the video's placeholder."""

    question: str
    answer: str


def exchanges(sample: Sample) -> list[Exchange]:
    """The question-answer pairs of a sample, in order; a last question without an answer is left out."""
    turns = sample.conversations
    return [
        Exchange(turns[i].text.replace(IMAGE, "").strip(), turns[i + 1].text.strip())
        for i in range(0, len(turns) - 1, 2)
    ]


class ChatFormat:
    """Token ids of the pieces of a conversation about a video.

    The pieces follow one another as ``head, video, question(q), answer(a)``. They come from the
    tokenizer's own chat template where it has one, else from a plain ``question / answer`` layout, and each is
    tokenised alone, so that a video's prefix is the same whatever is asked.

    Args:
        tokenizer: of the language model.
        system: the system message; empty by default, because every token of it costs in every clip.
    """

    def __init__(self, tokenizer: Any, system: str = "") -> None:
        self.tokenizer = tokenizer
        head, before, between, after = self._pieces(system)
        self.head: list[int] = self._encode(head) or self._start()
        self._before, self._between, self._after = before, between, after

    def question(self, text: str) -> list[int]:
        """From the end of the video to where the answer begins."""
        return self._encode(self._before + text + self._between)

    def answer(self, text: str) -> list[int]:
        """The answer alone, without its end."""
        return self._encode(text)

    def word(self, text: str) -> list[int]:
        """A word as it stands inside a sentence, where questions name it.

        Most tokenizers write the space before a word into its token: ``red`` at a beginning has other ids than in
        ``the red one``. What a video's tokens say must be the ids that questions use.
        """
        before, whole = self._encode("the"), self._encode(f"the {text}")
        assert whole[: len(before)] == before, "a tokenizer that joins words has no ids for one"
        return whole[len(before) :]

    def end(self) -> list[int]:
        """What ends an answer: the supervised end of turn."""
        return self._encode(self._after)

    def decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _pieces(self, system: str) -> tuple[str, str, str, str]:
        if not getattr(self.tokenizer, "chat_template", None):
            return system, "\nQuestion: ", "\nAnswer:\n", self.tokenizer.eos_token or "\n"
        user = {"role": "user", "content": f"{_VIDEO}\n{_QUESTION}"}
        messages = [{"role": "system", "content": system}, user]
        prompt = self._render(messages, True)
        full = self._render([*messages, {"role": "assistant", "content": _ANSWER}], False)
        head, rest = prompt.split(_VIDEO)
        before, between = rest.split(_QUESTION)
        after = full.split(_ANSWER)[1].rstrip(
            "\n"
        )  # templates write a newline after the end-of-turn token; nobody must learn it
        return head, before, between, after

    def _render(self, messages: list[dict[str, str]], prompt: bool) -> str:
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt))

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _start(self) -> list[int]:
        """Something must come first for the video to be read after: the beginning-of-text token."""
        token = self.tokenizer.bos_token_id
        return [token if token is not None else self.tokenizer.eos_token_id]
