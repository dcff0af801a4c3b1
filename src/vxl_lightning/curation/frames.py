"""What one video shows: compact descriptors of its frames, how much it moves, how much of it is new.

A descriptor is the low frequencies of a small frame: an 8x8 block of the luma's cosine transform and a 3x3 block of
each colour difference's, means left out, the spectrum of natural pictures (it falls with frequency) partly evened out.
Like the perceptual hashes of copy detection (pHash, PDQ) it survives re-encoding, scaling and mild changes of colour.

Two rates are at work. Motion and novelty are judged at ``FrameSettings.fps``. Descriptors are taken up to `FINE` times
as often, because a copy trimmed by half a second shows other pictures at whole seconds; the decoder passes these frames
in any case. Only a frame that differs from the one kept before it is kept, so a quiet video still has few.
"""

from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from vxl_lightning.curation.recipe import FrameSettings
from vxl_lightning.data.decoding import DecodeError, Limits, probe, stream_frames
from vxl_lightning.data.media import Stills, frame_files
from vxl_lightning.data.sampling import sample_times
from vxl_lightning.errors import UserError

SIDE = 64
"""Pixels a side that frames are resized to while they are decoded, whatever their shape."""
LUMA, CHROMA = 8, 3
"""Frequencies a side."""
DIM = LUMA**2 - 1 + 2 * (CHROMA**2 - 1)
"""Numbers of a descriptor."""
FINE = 8
"""Frames looked at for each one that motion is judged by, where ``max_frames`` leaves room."""
FLAT = 4 / 255
"""Standard deviation of smoothed luma, 0 to 1, below which a frame is flat: black, or nearly faded out."""
Vectors = NDArray[np.float64]
CHUNK = 128
"""Frames decoded at a time; one is 12 KiB."""


def look(
    path: Path,
    kind: str,
    keyframe_times: list[float] | None,
    duration: float,
    settings: FrameSettings,
    media: str = "",
) -> dict[str, Any]:
    """One row of the ``frames`` table.

    Args:
        path: a video, a picture, or a folder of frames (a second apart, in the order of their names).
        kind: ``video``, ``image`` or ``frames``.
        keyframe_times: seconds from the first frame, where they are known.
        duration: seconds of video, from its content; pictures and folders need none.
        settings: how to look.
        media: what the row and errors call it; the file's name by default.

    Returns:
        The columns of `schema.FRAMES`. ``times`` and ``descriptors`` are of the frames that were kept. A picture has
        neither motion nor a unique ratio. What cannot be decoded has a problem, ``undecodable``, instead of them all.
    """
    name = media or path.name
    nothing = dict.fromkeys(("times", "descriptors", "motion", "unique_ratio", "problem", "detail"))
    row: dict[str, Any] = {"media": name, **nothing}
    try:
        source: Path | Stills = path
        if kind != "video":
            source = Stills(tuple(frame_files(path)) if kind == "frames" else (path,))
            duration, keyframe_times = float(len(source.images)), [float(t) for t in range(len(source.images))]
        try:
            frames, coarse, fine = _decoded(source, keyframe_times, duration, settings, name)
        except DecodeError:
            # Containers may promise a little more than decoders find.
            if (found := probe(source, limits=_limits(settings), name=name).duration) >= duration:
                raise
            frames, coarse, fine = _decoded(source, keyframe_times, found, settings, name)
    except UserError as error:
        return row | {"problem": "undecodable", "detail": str(error)}
    vectors = describe(frames)
    kept = distinct(vectors, settings.same_frame)
    row |= {"times": [fine[i] for i in kept], "descriptors": vectors[kept].astype(np.float16).tobytes()}
    if kind == "image":
        return row
    judged = np.flatnonzero(np.isin(fine, coarse))
    unique = len(distinct(vectors[judged], settings.same_frame)) / len(judged)
    # A video too short for two judged frames moves between those that it has.
    return row | {"motion": _motion(frames[judged] if len(judged) > 1 else frames), "unique_ratio": unique}


def _limits(settings: FrameSettings) -> Limits:
    """The probe has judged what a file may be; here only time and frames are limited."""
    return Limits(float("inf"), 1 << 62, settings.max_frames, settings.timeout)


def _decoded(
    source: Path | Stills, keyframe_times: list[float] | None, duration: float, settings: FrameSettings, name: str
) -> tuple[NDArray[np.uint8], list[float], list[float]]:
    """All frames looked at, RGB ``[n, 3, SIDE, SIDE]``, and the times of `schedule`."""
    coarse, fine = schedule(keyframe_times, duration, settings)
    chunks = stream_frames(source, fine, (SIDE, SIDE), CHUNK, limits=_limits(settings), name=name)
    return np.concatenate([chunk.numpy() for chunk, _ in chunks]), coarse, fine


def schedule(
    keyframe_times: list[float] | None, duration: float, settings: FrameSettings
) -> tuple[list[float], list[float]]:
    """When to look: the times that motion is judged by, and all times, ascending seconds.

    Where no two keyframes are further apart than the wanted times, the last keyframe before each time stands for it,
    which costs one decoded frame; elsewhere the frames of the times themselves are decoded, and what they depend on.
    """
    coarse = sample_times(duration, settings.fps, settings.max_frames)
    step = coarse[1] if len(coarse) > 1 else 1 / settings.fps
    parts = max(1, min(FINE, settings.max_frames // len(coarse)))
    fine = [t for start in coarse for part in range(parts) if (t := start + step * part / parts) < duration]
    if keyframe_times and len(coarse) > 1:
        keys = np.array([0.0, *(key for key in keyframe_times if key < duration)])
        if np.diff([*keys, duration]).max() <= step * 1.001:  # stamps are rounded
            return _snapped(coarse, keys), _snapped(fine, keys)
    return coarse, fine


def _snapped(times: list[float], keys: Vectors) -> list[float]:
    found: list[float] = np.unique(keys[np.searchsorted(keys, np.array(times) + 1e-6, side="right") - 1]).tolist()
    return found


def describe(frames: NDArray[np.uint8]) -> Vectors:
    """Descriptors of frames.

    In double precision, so that no order of summation shows in the float16 that is stored.

    Args:
        frames: RGB ``[n, 3, SIDE, SIDE]``.

    Returns:
        Unit vectors ``[n, DIM]``; zero where a frame is flat, so that black matches nothing.
    """
    basis = scipy.fft.dct(np.eye(SIDE), axis=0, norm="ortho")[:LUMA]
    weight = np.sqrt(np.hypot(*np.indices((LUMA, LUMA))))
    red, green, blue = (basis @ (frames[:, i] / 255) @ basis.T for i in range(3))
    luma = _luma(red, green, blue)
    colour = [0.5 * (weight * (plane - luma))[:, :CHROMA, :CHROMA] for plane in (blue, red)]
    vectors = np.concatenate([block.reshape(len(frames), -1)[:, 1:] for block in (weight * luma, *colour)], 1)
    length = np.linalg.norm(vectors, axis=1)
    # The transform keeps lengths, so this is the deviation of what the low frequencies show.
    length[np.linalg.norm(luma.reshape(len(frames), -1)[:, 1:], axis=1) / SIDE < FLAT] = np.inf
    unit: Vectors = vectors / length[:, None]
    return unit


def _luma(red: Vectors, green: Vectors, blue: Vectors) -> Vectors:
    """As BT.601 has it."""
    return 0.299 * red + 0.587 * green + 0.114 * blue


def distinct(vectors: NDArray[np.floating[Any]], same: float) -> list[int]:
    """Places of the first vector and of each whose cosine with the one kept before it is below ``same``.

    A flat frame (zero) differs from every other but a flat one.
    """
    kept = [0]
    for place in range(1, len(vectors)):
        last, vector = vectors[kept[-1]], vectors[place]
        if vector @ last < same and (vector.any() or last.any()):
            kept.append(place)
    return kept


def _motion(frames: NDArray[np.uint8]) -> float:
    """Mean absolute change of luma between neighbours, 0 to 1; a single frame does not move."""
    luma = _luma(*(frames[:, i] / 255 for i in range(3)))
    return float(np.abs(np.diff(luma, axis=0)).mean()) if len(frames) > 1 else 0.0
