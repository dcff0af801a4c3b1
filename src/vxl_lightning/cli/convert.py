"""``vxl convert``: released checkpoints of other projects to model folders, and back."""

import argparse
from pathlib import Path

HELP = "read a released checkpoint of another project, and write one"
LAYOUTS = ("video-xl-pro",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("layout", choices=LAYOUTS, help="whose checkpoint it is")
    parser.add_argument(
        "source", type=Path, help="its folder: config.json, safetensors, tokenizer; with --back a converted folder"
    )
    parser.add_argument("target", type=Path, help="folder to write, which must not exist; 'vxl ask' reads it")
    parser.add_argument(
        "--back", action="store_true", help="write the released layout again, the same tensors under the same names"
    )
    parser.add_argument(
        "--keep",
        type=float,
        help="share of the visual tokens that the selector keeps (default: 0.85; the release draws 0.7 to 0.99)",
    )
    parser.add_argument(
        "--pad",
        choices=("last", "spread"),
        help="how the last group of four frames is completed: the last frame again (default), or frames doubled evenly "
        "over the video; the release doubles frames drawn at random",
    )
    parser.add_argument(
        "--context",
        type=int,
        metavar="POSITIONS",
        help="most positions the language model is given (default: as the checkpoint's config.json says); 8,192 frames "
        "take 270,000",
    )


def run(args: argparse.Namespace) -> int:
    from vxl_lightning.errors import UserError
    from vxl_lightning.models.released.convert import to_ours, to_theirs
    from vxl_lightning.models.released.video_xl_pro import KEEP

    if args.back:
        for name in ("keep", "pad", "context"):
            if (value := getattr(args, name)) is not None:
                raise UserError(f"--{name}={value} with --back: the released layout has no place for it; leave it out")
        count = to_theirs(args.source, args.target)
        print(f"{args.target}: {count} tensors, in the released layout")
        return 0
    keep = KEEP if args.keep is None else args.keep
    if not 0 < keep <= 1:
        raise UserError(f"--keep={keep:g} must be a share above 0 and at most 1, such as {KEEP}")
    if args.context is not None and args.context < 1:
        raise UserError(f"--context={args.context} must be at least 1, such as 32768")
    count = to_ours(args.source, args.target, keep, args.pad or "last", args.context)
    print(f"{args.target}: {count} tensors; ask it with: vxl ask {args.target} VIDEO QUESTION")
    return 0
