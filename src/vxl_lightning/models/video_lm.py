"""A video language model: grid -> compressor -> projector -> time text -> selector -> any causal language model."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vxl_lightning.caches.base import CacheCompressor, Memory
from vxl_lightning.compressors.base import Compressor
from vxl_lightning.errors import UserError
from vxl_lightning.models import answering, scoring
from vxl_lightning.models.answering import Answer
from vxl_lightning.models.packing import Packed, Segment, pack, side_by_side
from vxl_lightning.models.prefix import Layout, Prefix, Projected, PromptConfig
from vxl_lightning.models.remembering import hidden_after, rows
from vxl_lightning.selectors.base import Selector
from vxl_lightning.tokens import VideoGrid

ROW = 512
"""Tokens of a row in training: beyond it, attention costs more than the padding that is saved."""


class VideoLM(nn.Module):
    """Answers questions about a video that a compressor made short.

    Args:
        language_model: any transformers causal language model, with or without peft adapters.
        tokenizer: its tokenizer.
        projector: from the compressor's channels to the language model's.
        compressor: where the tokens come from.
        selector: keeps ``prompt.select`` (or ``select_share``) of the groups or tokens, by the question; None keeps
            everything.
        prompt: time text, system message, selection budget.
        cache: compresses the keys and values of what was read; None keeps them all.
        whole: names of the language model's layers that tuning may change themselves, besides its adapters.
    """

    layout_class: ClassVar[type[Layout]] = Layout

    def __init__(
        self,
        language_model: Any,
        tokenizer: Any,
        projector: nn.Module,
        compressor: Compressor,
        selector: Selector | None = None,
        prompt: PromptConfig | None = None,
        whole: Sequence[str] = (),
        cache: CacheCompressor | None = None,
    ) -> None:
        super().__init__()
        self.prompt = prompt or PromptConfig()
        if selector is not None and not (self.prompt.select or self.prompt.select_share):
            raise UserError(
                f"select={self.prompt.select} with a selector: give the groups or tokens it may keep, e.g. select=8"
            )
        self.language_model = language_model
        self.compressor = compressor
        self.projector = projector
        self.selector = selector
        self.cache = cache
        self.tokenizer = tokenizer
        self.layout = self.layout_class(tokenizer, self.prompt)
        self.whole = tuple(whole)

    @property
    def adapter(self) -> dict[str, nn.Parameter]:
        """The language model's parameters that tuning may change, by name: LoRA's and the ``whole`` layers'."""
        whole = set(self.whole)
        named = self.language_model.named_parameters()
        return {n: p for n, p in named if "lora_" in n or whole & set(n.split("."))}

    @property
    def embedding(self) -> nn.Module:
        """The language model's own token table."""
        table: nn.Module = self.language_model.get_input_embeddings()
        return table

    @property
    def device(self) -> torch.device:
        return next(self.projector.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights that video features meet."""
        return next(self.projector.parameters()).dtype

    @property
    def plain(self) -> Any:
        """The language model itself, adapters inside, without peft's wrapper."""
        model = self.language_model
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def ids(self, tokens: Sequence[int]) -> Tensor:
        return torch.tensor(tokens, dtype=torch.long, device=self.device)

    # --- the video's side -------------------------------------------------------------------------------------------

    def project(self, grid: VideoGrid, question: str | None = None) -> Projected:
        """Compress and project a batch of videos; compressors that need a query read the ``question``."""
        query = None
        if self.compressor.needs_query and question is not None:
            query = self.embedding(self.ids(self.tokenizer.encode(question, add_special_tokens=False)))
            query = query.expand(grid.shape[0], *query.shape)
        tokens = self.compressor(grid, query)
        return Projected(tokens, self.projector(tokens.features), grid.times, self.silence)

    @cached_property
    def silence(self) -> float:
        """What `PromptConfig.silence` is in units of the language model's embeddings, which nothing trains."""
        if self.prompt.silence == 0:
            return 0.0
        table = next(self.embedding.parameters()).detach()
        return self.prompt.silence * float(table.float().norm(dim=1).mean())

    def prefix(self, projected: Projected, video: int, question: str | None = None) -> Prefix:
        """What precedes a question: all tokens of a video, or what the selector keeps for this question."""
        if self.selector is None:
            return self.layout.whole(projected, video, self.embedding)
        if question is None:
            raise ValueError("what a selector keeps depends on the question: pass it")
        return self.layout.selected(projected, video, self.embedding, self.selector, question)

    def nothing(self) -> Prefix:
        """What precedes a question when no video is shown: the chat's head alone."""
        head = self.ids(self.layout.chat.head)
        none = head[:0]
        return Prefix(self.embedding(head).detach(), none, none, torch.full_like(head, -1))

    # --- the language model's side ----------------------------------------------------------------------------------

    def hidden(self, packed: Packed, memories: Sequence[Memory] = ()) -> Tensor:
        """``[B, L, hidden]`` last hidden states of packed trees, each after its memory where there are any."""
        if memories:
            return hidden_after(self.plain, packed, memories)
        mask = torch.zeros(packed.mask.shape, dtype=packed.embeds.dtype, device=packed.embeds.device)
        mask.masked_fill_(~packed.mask, torch.finfo(mask.dtype).min)
        out = self.plain.base_model(
            inputs_embeds=packed.embeds, attention_mask=mask, position_ids=packed.position, use_cache=False
        )
        states: Tensor = out.last_hidden_state
        return states

    def log_likelihood(self, packed: Packed, memories: Sequence[Memory] = ()) -> Tensor:
        """``[P]`` float32 log-probability of every supervised token of packed trees."""
        tree, place, token = packed.predict.unbind(1)
        # Only the places that predict something go through the vocabulary's matrix.
        logits = self.logits(self.hidden(packed, memories)[tree, place])
        return -F.cross_entropy(logits.float(), token, reduction="none")

    def logits(self, states: Tensor) -> Tensor:
        """Hidden states to vocabulary logits, with the scalings some model families apply."""
        model = self.plain
        logits: Tensor = model.get_output_embeddings()(states)
        config = model.config
        if scale := getattr(config, "logit_scale", None):  # Cohere
            logits = logits * scale
        if scale := getattr(config, "logits_scaling", None):  # Granite
            logits = logits / scale
        if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
            logits = cap * torch.tanh(logits / cap)
        return logits

    # --- training ---------------------------------------------------------------------------------------------------

    def loss(
        self,
        projected: Projected,
        questions: Sequence[Sequence[tuple[str, str]]],
        dialogue: bool = False,
        select: bool = True,
    ) -> Tensor:
        """Mean negative log-likelihood of the answers' tokens and their ends.

        Args:
            projected: the batch's videos.
            questions: for every video its (question, answer) pairs, packed after one prefix.
            dialogue: each question also reads the exchanges before it; by default it stands alone.
            select: let the selector choose, where there is one; False where the videos are what it left already.
        """
        trees, memories = self._trees(projected, questions, dialogue, select)
        if not memories:
            trees = side_by_side(trees, ROW)
        return -self.log_likelihood(pack(trees, self.embedding), memories).mean()

    def _trees(
        self, projected: Projected, questions: Sequence[Sequence[tuple[str, str]]], dialogue: bool, select: bool
    ) -> tuple[list[list[Segment]], list[Memory]]:
        """Questions and answers after their prefixes, and what is remembered of those that a cache compressor read."""
        prefixes: list[Prefix] = []
        asked: list[list[tuple[str, str]]] = []
        for b, pairs in enumerate(questions):
            # What a selector keeps depends on the question: then nothing is shared.
            alone = select and self.selector is not None and not dialogue
            for chunk in [[pair] for pair in pairs] if alone else [list(pairs)] if pairs else []:
                whole = self.layout.whole(projected, b, self.embedding) if not select else None
                prefixes.append(whole or self.prefix(projected, b, chunk[0][0]))
                asked.append(chunk)
        if not asked:
            raise UserError("no sample of this batch has an answered question; instruction tuning needs conversations")
        chat, trees, memories = self.layout.chat, list[list[Segment]](), list[Memory]()
        for row in rows(self, prefixes, [[question for question, _ in chunk] for chunk in asked]):
            tree = [row.root]
            for question, answer in (asked[row.video][i] for i in row.questions):
                tree.append(Segment(self.ids(chat.question(question)), len(tree) - 1 if dialogue else 0))
                tree.append(Segment(self.ids(chat.answer(answer) + chat.end()), len(tree) - 1, supervised=True))
            trees.append(tree)
            memories += [row.memory] if row.memory is not None else []
        return trees, memories

    # --- answering --------------------------------------------------------------------------------------------------

    def choice_scores(
        self,
        prefixes: Sequence[Prefix],
        questions: Sequence[Sequence[str]],
        choices: Sequence[Sequence[Sequence[str]]],
    ) -> list[list[Tensor]]:
        """Log-likelihood of every choice of every question after a video's prefix, all in one pass.

        Args:
            prefixes: of every video.
            questions: of every video, asked independently of each other.
            choices: for every question its allowed answers. Where one is the beginning of another, the end of
                the answer is scored as well.

        Returns:
            For every video, for every question, ``[C]`` float32.
        """
        return scoring.choice_scores(self, rows(self, prefixes, questions), questions, choices)

    def answer_losses(
        self, prefixes: Sequence[Prefix], questions: Sequence[Sequence[tuple[str, str]]], max_tokens: int
    ) -> list[list[float]]:
        """How unexpected given answers are after a video's prefix, all in one pass.

        Args:
            prefixes: of every video.
            questions: of every video, (question, answer) pairs, asked independently of each other.
            max_tokens: tokens of an answer that are judged, from its beginning.

        Returns:
            For every video, for every question, the mean nats of a token of the answer, without its end.
        """
        asked = [[question for question, _ in pairs] for pairs in questions]
        return scoring.answer_losses(self, rows(self, prefixes, asked), questions, max_tokens)

    @torch.no_grad()
    def answers(
        self, grid: VideoGrid, questions: Sequence[Sequence[str]], choices: Sequence[Sequence[Sequence[str]]]
    ) -> list[list[Tensor]]:
        """Choice scores for a batch of videos: compress once, all questions of a video after one prefix.

        Returns:
            For every video, for every question, ``[C]`` float32 log-likelihoods.
        """
        if self.selector is None and not self.compressor.needs_query:
            projected = self.project(grid)
            shared = [self.prefix(projected, b) for b in range(len(questions))]
            return self.choice_scores(shared, questions, choices)
        found: list[list[Tensor]] = []
        for b, (asked, allowed) in enumerate(zip(questions, choices, strict=True)):
            video, scores = _row(grid, b), []
            for question, options in zip(asked, allowed, strict=True):
                prefix = self.prefix(self.project(video, question), 0, question)
                scores.append(self.choice_scores([prefix], [[question]], [[options]])[0][0])
            found.append(scores)
        return found

    def answer(
        self, grid: VideoGrid, question: str, choices: Sequence[str] | None = None, max_new_tokens: int = 16
    ) -> Answer:
        """Answer one question about one video.

        Args:
            grid: a batch of one.
            choices: allowed answers, scored by likelihood; None generates greedily.
            max_new_tokens: longest generated answer.
        """
        return answering.answer(self, grid, question, choices, max_new_tokens)


def _row(grid: VideoGrid, video: int) -> VideoGrid:
    """One video of a batch, without its padding."""
    at = slice(video, video + 1)
    side = {n: None if getattr(grid, n) is None else getattr(grid, n)[at] for n in ("importance", "motion")}
    one = VideoGrid(grid.features[at], grid.times[at], grid.frame_mask[at], **side)
    return one.frames(0, int(grid.num_frames[video]))
