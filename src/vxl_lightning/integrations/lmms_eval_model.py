"""Any of our models, with any compressor, on lmms-eval's video tasks.

    lmms-eval eval --model vxl --model_args model=hf:PATH,compressor=dtd,retention=0.25,fps=1,max_frames=64 --tasks ...

Frames are chosen, decoded and compressed here; of lmms-eval come the questions, the prompts and the scores.
"""

import math
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.protocol import ChatMessages
from loguru import logger
from PIL.Image import Image
from tqdm import tqdm

from vxl_lightning.data.decoding import DecodeError, probe
from vxl_lightning.data.sampling import sample_times
from vxl_lightning.errors import UserError
from vxl_lightning.evaluation.answerer import Answerer, Asked, Reply, Shown
from vxl_lightning.integrations.lmms_eval_tasks import Turn, Video, as_visual, check_greedy, check_there, cut, longest


class Vxl(lmms):
    """An `Answerer` behind lmms-eval's interface.

    All videos of a task are looked for before the first is shown, and one that several questions are about is looked
    at once. A turn shows one video, a part of one, or images, which are then frames one second apart; texts before and
    after it are said after it. Replies are the likeliest ones: tasks that want them drawn at random are refused.

    Args:
        model: as for ``vxl eval``: ``hf:FOLDER``, or the folder of a model of ours.
        fps: frames looked at each second of video.
        max_frames: most frames looked at.
        batch_size: 1; questions about one video share its tokens, and videos are looked at one at a time.
        max_batch_size: as ``batch_size``.
        **settings: of `evaluation.models.answerer_from`: the compressor, its retention and so on.
    """

    def __init__(
        self,
        model: str,
        fps: float = 1.0,
        max_frames: int = 64,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if str(batch_size) != "1" or max_batch_size not in (None, 1):
            raise UserError(f"batch_size={batch_size}: videos are looked at one at a time; leave --batch_size out")
        sample_times(1.0, fps, max_frames)  # checks them before a model is loaded
        self.fps, self.max_frames = fps, max_frames
        self._share_among_processes(settings)
        self.answerer: Answerer = import_module("vxl_lightning.evaluation.models").answerer_from(model, **settings)
        logger.info(f"vxl: fps={fps} max_frames={max_frames} {self.answerer.identity}")

    def _share_among_processes(self, settings: dict[str, Any]) -> None:
        """Under ``accelerate launch`` every process answers its share of the questions on its own device."""
        from accelerate import Accelerator

        accelerator = Accelerator()
        if accelerator.num_processes > 1:
            self.accelerator = accelerator
            self.device = accelerator.device
            self._rank, self._world_size = accelerator.process_index, accelerator.num_processes
            settings.setdefault("device", str(accelerator.device))

    @abstractmethod
    def _turn(self, args: tuple[Any, ...]) -> Turn:
        """What a request to generate shows and says."""

    @abstractmethod
    def _settings(self, args: tuple[Any, ...]) -> Mapping[str, Any]:
        """Generation settings of a request."""

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """A reply to every request, with the tokens that went into the language model.

        A video that cannot be read costs its questions: they are answered with nothing, and told of.

        Raises:
            UserError: videos are missing, or a request is of a kind that cannot be answered; before anything is shown.
        """
        for request in requests:
            check_greedy(self._settings(request.args), request.task_name)
        results: list[GenerationResult] = [GenerationResult("")] * len(requests)
        unread: dict[str, int] = {}
        visual_tokens = []
        for visual, group in self._by_visual(requests, self._turn):
            asked = [Asked(turn.text, max_new_tokens=longest(self._settings(r.args))) for _, r, turn in group]
            answered = 0
            try:
                for reply in self._replies(visual, asked):
                    index, request, _ = group[answered]
                    text = cut(reply.text, self._settings(request.args).get("until"))
                    results[index] = GenerationResult(text, TokenCounts(input_tokens=tokens_in(reply)))
                    visual_tokens.append(reply.counts.get("visual_tokens", math.nan))
                    answered += 1
            except DecodeError as error:
                logger.warning(f"vxl: {len(group) - answered} questions are answered with nothing: {error}")
                unread[str(error)] = len(group) - answered
        if visual_tokens:
            logger.info(f"vxl: {sum(visual_tokens) / len(visual_tokens):.1f} visual tokens a question")
        if unread:
            logger.error(
                f"vxl: {len(unread)} videos cannot be read; their {sum(unread.values())} questions count as wrong"
            )
        return results

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        """Minus the log-likelihood of every continuation, and whether it would be said.

        Minus, because lmms-eval's tasks take the smallest: its own models return losses. Where a text has several
        continuations, which are choices, the likeliest is what would be said; a continuation that stands alone is
        compared with a generated reply. A pair comes as the text of a `GenerationResult`, because lmms-eval 0.7 makes
        strings of bare pairs.

        Raises:
            UserError: as `generate_until`.
            DecodeError: a video cannot be read; any number in the place of a likelihood would be taken for an answer.
        """
        continuations = [self._continuation(r) for r in requests]
        results: list[GenerationResult] = [GenerationResult("")] * len(requests)
        for visual, group in self._by_visual(requests, self._turn):
            by_text: dict[str, list[int]] = {}
            for index, _, turn in group:
                by_text.setdefault(turn.text, []).append(index)
            choices = {text: list(dict.fromkeys(continuations[i] for i in found)) for text, found in by_text.items()}
            asked = [Asked(text, given) for text, given in choices.items()]
            alone = [Asked(text) for text, given in choices.items() if len(given) == 1]
            replies = list(self._replies(visual, asked + alone))
            said = {one.prompt: reply.text for one, reply in zip(asked + alone, replies, strict=True)}
            for one, reply in zip(asked, replies, strict=False):
                for index in by_text[one.prompt]:
                    choice = continuations[index]
                    words = said[one.prompt].strip()
                    would_be = words.startswith(choice) if len(one.choices) == 1 else words == choice
                    results[index] = GenerationResult((-reply.scores[choice], would_be))
        return results

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise UserError("vxl answers every question by itself; tasks of several rounds cannot be run")

    def _document(self, args: tuple[Any, ...]) -> Any:
        index, task, split = args[-3:]
        return self.task_dict[task][split][index]

    def _continuation(self, request: Instance) -> str:
        if len(request.args) < 6:
            raise UserError(
                f"{request.task_name}: likelihoods without a video (acc_mutual_info) cannot be had; drop that metric"
            )
        given = request.args[1]
        return str(given(self._document(request.args)) if callable(given) else given).strip()

    def _by_visual(
        self, requests: Sequence[Instance], turn_of: Any
    ) -> Iterator[tuple[Any, list[tuple[int, Instance, Turn]]]]:
        """Requests that show the same, with their place; images are not held in memory until their turn comes."""
        groups: dict[Any, list[int]] = {}
        turns: dict[int, Turn] = {}
        for index, request in enumerate(requests):
            turn = turn_of(request.args)
            if isinstance(turn.visual, Video):
                turns[index] = turn
            groups.setdefault(turn.visual if index in turns else index, []).append(index)
        check_there(turns.values())
        for found in tqdm(groups.values(), desc="vxl", disable=self.rank != 0):
            group = [(i, requests[i], turns.get(i) or turn_of(requests[i].args)) for i in found]
            yield group[0][2].visual, group

    def _replies(self, visual: Video | Sequence[Image | str], asked: Sequence[Asked]) -> Iterator[Reply]:
        if isinstance(visual, Video):
            yield from self.answerer.replies(self._shown(visual), asked)
            return
        with tempfile.TemporaryDirectory(prefix="vxl-images-") as folder:
            for number, image in enumerate(visual):
                name = f"{number:05d}"
                if isinstance(image, str):
                    (Path(folder) / f"{name}{Path(image).suffix.lower()}").symlink_to(Path(image).resolve())
                else:
                    image.convert("RGB").save(Path(folder) / f"{name}.png")
            times = sample_times(float(len(visual)), 1.0, self.max_frames)
            yield from self.answerer.replies(Shown(Path(folder), times), asked)

    def _shown(self, video: Video) -> Shown:
        """Evenly spaced frames of a video, or of its part."""
        path = Path(video.path)
        duration = probe(path).duration
        begin, end = max(0.0, video.begin or 0.0), min(duration, duration if video.end is None else video.end)
        if end <= begin:
            raise DecodeError(f"{path}: the part from {begin:g} to {end:g} s is not within its {duration:g} s")
        return Shown(path, [begin + t for t in sample_times(end - begin, self.fps, self.max_frames)])


class VxlMessages(Vxl):
    """What ``--model vxl`` is: tasks' messages where they have them, else what lmms-eval makes of texts and visuals."""

    is_simple = False

    def _turn(self, args: tuple[Any, ...]) -> Turn:
        _, to_messages, _, _, task, _ = args
        messages = ChatMessages(messages=to_messages(self._document(args))).messages
        if any(m.role == "assistant" for m in messages):
            raise UserError(f"{task}: has turns of an assistant; examples before the question cannot be shown")
        contents = [c for m in messages for c in m.content]
        texts = [c.text for c in contents if c.type == "text"]
        visuals = [
            {"path": c.url, "video_start": c.start_time, "video_end": c.end_time}
            if c.type == "video" and isinstance(c.url, str)
            else c.url
            for c in contents
            if c.type in ("video", "image")
        ]
        if any(c.type == "audio" for c in contents):
            raise UserError(f"{task}: has sound, which our models do not hear")
        return Turn(as_visual(visuals, task), "\n".join(texts))

    def _settings(self, args: tuple[Any, ...]) -> Mapping[str, Any]:
        return args[2] or {}


class VxlTexts(Vxl):
    """What ``--model vxl --force_simple`` is: for tasks of likelihoods, which lmms-eval has no messages for."""

    is_simple = True

    def _turn(self, args: tuple[Any, ...]) -> Turn:
        text, _, to_visuals, _, task, _ = args
        return Turn(as_visual(to_visuals(self._document(args)) or (), task), text)

    def _settings(self, args: tuple[Any, ...]) -> Mapping[str, Any]:
        return args[1] or {}


def tokens_in(reply: Reply) -> int | None:
    """Visual and text tokens that the language model read, where they were counted."""
    counted = [reply.counts[name] for name in ("visual_tokens", "text_tokens") if name in reply.counts]
    return int(sum(counted)) if len(counted) == 2 else None
