"""One wrong cache compressor a law: the kit finds each of them guilty of that law and of no other."""

import random
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from vxl_lightning.caches.base import CacheCompressor, CacheState, LanguageShape
from vxl_lightning.caches.forward import extended
from vxl_lightning.caches.memory import Memory, Passage, ends
from vxl_lightning.testing import check_plugin, laws


@dataclass(frozen=True, eq=False)
class Kept(CacheState):
    keep: tuple[Tensor, ...] = ()


class Good(CacheCompressor):
    """Reads all with plain causal attention, and recalls text and every few visual tokens of a stretch."""

    def __init__(self, config: Any, shape: LanguageShape) -> None:
        super().__init__(config, shape)
        self.every = round(1 / config.retention)

    def keeps(self, window: Passage) -> Tensor:
        rank = window.visual.cumsum(0)
        begun = (rank - window.visual.long())[torch.searchsorted(window.stretch, window.stretch)]
        return ~window.visual | ((rank - begun) % self.every == 1 % self.every)

    def kv_length(self, passage: Passage) -> int:
        return int(self.keeps(passage).sum())

    def start(self) -> Kept:
        return Kept()

    def ends(self, waiting: Passage, last: bool) -> list[int]:
        return ends(waiting.starts(1), len(waiting), last)

    def read_window(self, model: Any, window: Passage, state: Kept) -> Kept:
        memory = extended(model, window.embeds, state.memory)
        return replace(state, memory=memory, keep=(*state.keep, self.keeps(window)))

    def attended(self, model: Any, state: Kept, query: Tensor | None) -> Memory:
        assert state.memory is not None
        return self.finish(state.memory.take(torch.cat(list(state.keep)).nonzero()[:, 0]))

    def finish(self, memory: Memory) -> Memory:
        return replace(memory, values=[self.value(v) for v in memory.values])

    def value(self, x: Tensor) -> Tensor:
        return x

    @classmethod
    def get_test_params(cls) -> list[dict[str, Any]]:
        return [{"retention": 1 / 2}]


class Contract(Good):
    api_version = "0"


class ShapesAndDtypes(Good):
    def finish(self, memory: Memory) -> Memory:
        return replace(memory, keys=memory.keys + memory.keys[-1:], values=memory.values + memory.values[-1:])


class KvLengthKept(Good):
    def kv_length(self, passage: Passage) -> int:
        return super().kv_length(passage) + (len(passage) > 100)


class RetentionKept(Good):
    def __init__(self, config: Any, shape: LanguageShape) -> None:
        super().__init__(config, shape)
        self.every = 1


class PositionFollows(Good):
    def finish(self, memory: Memory) -> Memory:
        return replace(memory, position=memory.position + 10 * (self.every > 1))


class PartsEqualWhole(Good):
    def ends(self, waiting: Passage, last: bool) -> list[int]:
        return [len(waiting)] if len(waiting) else []  # counts anew in every part


class AskingChangesNothing(Good):
    def start(self) -> Kept:
        return Kept(keep=[])  # type: ignore[arg-type]

    def read_window(self, model: Any, window: Passage, state: Kept) -> Kept:
        state.keep.append(self.keeps(window))  # type: ignore[attr-defined]
        return replace(state, memory=extended(model, window.embeds, state.memory))


class ExactAtOne(Good):
    def value(self, x: Tensor) -> Tensor:
        return x if self.every > 1 else x * 1.01


class ShortPrompts(Good):
    def read_window(self, model: Any, window: Passage, state: Kept) -> Kept:
        if state.memory is None and int(window.stretch[0]) >= 0:
            raise RuntimeError("stack expects a non-empty list")
        return super().read_window(model, window, state)


class ModelLeftAlone(Good):
    def read_window(self, model: Any, window: Passage, state: Kept) -> Kept:
        handle = model.base_model.layers[0].register_forward_hook(lambda *_: None)
        state = super().read_window(model, window, state)
        handle.remove()
        return state


class WrongInputsRefused(Good):
    def check(self, passage: Passage) -> Passage:
        self._check_embeds(passage.embeds, "embeds")
        return passage


class EndRespected(Good):
    def recall(self, model: Any, state: Any, query: Tensor | None = None) -> Memory:
        return self.attended(model, state, query)


class AnswersTrain(Good):
    @torch.no_grad()
    def read_window(self, model: Any, window: Passage, state: Kept) -> Kept:
        return super().read_window(model, window, state)


class Bf16Agrees(Good):
    def value(self, x: Tensor) -> Tensor:
        return (x + 300) - 300  # in the dtype of the values


class Deterministic(Good):
    def value(self, x: Tensor) -> Tensor:
        return x + 1e-6 * torch.rand_like(x)


class InputsNotMutated(Good):
    def read_window(self, model: Any, window: Passage, state: Kept) -> Kept:
        if self.every > 1 and not window.embeds.requires_grad:
            window.embeds.clamp_(max=1.0)
        return super().read_window(model, window, state)


class ConstantFeatures(Good):
    def read_window(self, model: Any, window: Passage, state: Kept) -> Kept:
        largest = window.embeds.detach().abs().max()
        return super().read_window(model, replace(window, embeds=window.embeds + 0 / largest.log()), state)


class NanRefused(Good):
    def _check_embeds(self, embeds: Tensor, what: str) -> None:
        super()._check_embeds(embeds.nan_to_num(0.0, 0.0, 0.0), what)


class StateDictRoundTrip(Good):
    def __init__(self, config: Any, shape: LanguageShape) -> None:
        super().__init__(config, shape)
        self.scale = 1 + 0.01 * random.random() * (self.every > 1)

    def value(self, x: Tensor) -> Tensor:
        return x * self.scale


class PickleRoundTrip(Good):
    def __init__(self, config: Any, shape: LanguageShape) -> None:
        super().__init__(config, shape)
        self.rule = lambda x: x

    def value(self, x: Tensor) -> Tensor:
        return self.rule(x)


class MetaDevice(Good):
    def __init__(self, config: Any, shape: LanguageShape) -> None:
        super().__init__(config, shape)
        self.register_buffer("scale", torch.ones(shape.head_dim), persistent=False)

    def value(self, x: Tensor) -> Tensor:
        return x * self.scale.to(x.dtype)


class SideInputsRequired(Good):
    needs_query = True

    def recall(self, model: Any, state: Any, query: Tensor | None = None) -> Memory:
        return super().recall(model, state, torch.zeros(1, self.shape.hidden) if query is None else query)


BAD = {
    "contract": Contract,
    "shapes_and_dtypes": ShapesAndDtypes,
    "kv_length_kept": KvLengthKept,
    "retention_kept": RetentionKept,
    "position_follows": PositionFollows,
    "parts_equal_whole": PartsEqualWhole,
    "asking_changes_nothing": AskingChangesNothing,
    "exact_at_one": ExactAtOne,
    "short_prompts": ShortPrompts,
    "model_left_alone": ModelLeftAlone,
    "wrong_inputs_refused": WrongInputsRefused,
    "end_respected": EndRespected,
    "answers_train": AnswersTrain,
    "bf16_agrees": Bf16Agrees,
    "deterministic": Deterministic,
    "inputs_not_mutated": InputsNotMutated,
    "constant_features": ConstantFeatures,
    "nan_refused": NanRefused,
    "state_dict_round_trip": StateDictRoundTrip,
    "pickle_round_trip": PickleRoundTrip,
    "meta_device": MetaDevice,
    "side_inputs_required": SideInputsRequired,
}


def test_every_law_has_its_wrong_plugin() -> None:
    assert list(BAD) == list(laws("cache"))


def test_the_plain_one_keeps_all() -> None:
    assert [r for r in check_plugin("cache", Good) if not r.ok] == []


@pytest.mark.parametrize("law", BAD)
def test_guilty_of_one_law(law: str) -> None:
    results = check_plugin("cache", BAD[law])
    assert {r.law for r in results if not r.ok} == {law}, [r for r in results if not r.ok]


class Unfinished(Good):
    """Trainable, with a part that no answer reaches."""

    trainable = True

    def __init__(self, config: Any, shape: LanguageShape) -> None:
        super().__init__(config, shape)
        self.used, self.unused = (torch.nn.Linear(shape.head_dim, shape.head_dim) for _ in range(2))

    def value(self, x: Tensor) -> Tensor:
        return self.used(x) if self.every > 1 else x


class Nowhere(Good):
    """Takes the place of the last weights it saw."""

    def start_from(self, model: Any) -> None:
        model.get_input_embeddings().weight.data.zero_()


class FromText(Good):
    """Recalls text alone, through which no video is seen."""

    def attended(self, model: Any, state: Kept, query: Tensor | None) -> Memory:
        memory = super().attended(model, state, query)
        return replace(memory, keys=[k.detach() for k in memory.keys], values=[v.detach() for v in memory.values])


@pytest.mark.parametrize(
    ("cls", "law"), [(Unfinished, "answers_train"), (Nowhere, "model_left_alone"), (FromText, "answers_train")]
)
def test_other_ways_to_break_a_law(cls: type, law: str) -> None:
    assert [r.law for r in check_plugin("cache", cls) if not r.ok] == [law]
