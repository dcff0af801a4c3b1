"""``vxl``: parses the command's name, imports that command alone, and turns users' errors into one line."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from vxl_lightning import __version__

COMMANDS = {
    "train": "train a compressor by masked reconstruction, or tune a video language model",
    "ablate": "compare compressors: variants x budgets x seeds, with tables and a report",
    "eval": "evaluate a model on benchmarks from local copies, or on needles at length",
    "ask": "ask a question about any video file",
    "convert": "read a released checkpoint of another project, and write one",
    "data": "make, prune, encode and verify datasets",
    "plugin": "list, show, check and scaffold plugins",
    "doctor": "what works on this machine, and what to install",
}


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """The parser; only ``command``'s own module is imported, so that help answers at once."""
    parser = argparse.ArgumentParser(
        prog="vxl", description="Train, ablate and extend token compression for very long video."
    )
    parser.add_argument("--version", action="version", version=f"vxl-lightning {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, help_text in COMMANDS.items():
        sub = commands.add_parser(name, help=help_text, description=help_text)
        if name == command:
            import_module(f"vxl_lightning.cli.{name}").add_arguments(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or 2 when the user must change something. Set ``VXL_TRACEBACK=1`` to see where an error arose.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments and arguments[0] in COMMANDS else None
    parser = build_parser(command)
    args, rest = parser.parse_known_args(arguments)
    # argparse stops filling a list at the first option; overrides may stand anywhere.
    if any("=" not in word or word.startswith("-") for word in rest) or (rest and not hasattr(args, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.overrides += rest
    try:
        return int(import_module(f"vxl_lightning.cli.{args.command}").run(args))
    except Exception as error:
        if os.environ.get("VXL_TRACEBACK") or not _is_users(error):
            raise
        message = " ".join(str(error).split())
        print(f"vxl {args.command}: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"vxl {args.command}: interrupted; run the same command again to go on", file=sys.stderr)
        return 130


def _is_users(error: Exception) -> bool:
    """Whether the user can mend it: a value, a file, or a Trainer setting that Lightning refuses."""
    misconfigured = sys.modules.get("lightning.fabric.utilities.exceptions")  # there only if Lightning is
    kinds = (ValueError, OSError) + ((misconfigured.MisconfigurationException,) if misconfigured else ())
    return isinstance(error, kinds) and not isinstance(error, BrokenPipeError)


if __name__ == "__main__":
    sys.exit(main())
