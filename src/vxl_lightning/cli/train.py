"""``vxl train``: reconstructive pretraining or instruction tuning, by the configuration's ``module``."""

import argparse

HELP = "train a compressor by masked reconstruction, or tune a video language model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("conf", help="YAML file; see conf/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. compressor=dts trainer.devices=2")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in out=")
    parser.add_argument(
        "--print-config", action="store_true", help="print the merged configuration with help, and stop"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything that can be checked, and stop")


def run(args: argparse.Namespace) -> int:
    from vxl_lightning import config
    from vxl_lightning.modules.train import TrainConfig, check, train

    settings = config.load(TrainConfig, [args.conf], args.overrides)
    if args.print_config:
        print(config.to_yaml(settings), end="")
        return 0
    if args.dry_run:
        print(check(settings))
        return 0
    folder = train(settings, resume=args.resume)
    print(f"trained model: {folder}")
    return 0
