"""When to look at a video: times in seconds, because frame indices mean nothing at a variable frame rate."""

import math

from vxl_lightning.errors import UserError


def sample_times(duration: float, fps: float, max_frames: int) -> list[float]:
    """Evenly spaced times ``0, s, 2s, ...`` before the end of a video.

    The step ``s`` is ``1 / fps``, widened so that no more than ``max_frames`` frames cover the whole video.
    A video shorter than one step still gives its first frame.

    Args:
        duration: seconds of video.
        fps: frames wanted per second.
        max_frames: most frames wanted.

    Raises:
        UserError: an argument is not positive.
    """
    for name, value in (("duration", duration), ("fps", fps), ("max_frames", max_frames)):
        if not value > 0 or not math.isfinite(value):
            raise UserError(f"{name}={value}: sampling frames needs a positive, finite number")
    # Containers round durations; a thousandth of a frame too much is not one more frame.
    wanted = max(1, math.ceil(duration * fps - 1e-3))
    if wanted <= max_frames:
        return [i / fps for i in range(wanted)]
    return [i * duration / max_frames for i in range(max_frames)]
