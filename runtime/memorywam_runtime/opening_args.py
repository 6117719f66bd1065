"""The options of verbs that run a bundle; they load nothing."""

import argparse

__all__ = ["add_opening_args", "add_steps_arg"]


def add_opening_args(parser: argparse.ArgumentParser) -> None:
    """Declare --backend, --threads, --engine and --allow-unverified."""
    parser.add_argument("--backend", metavar="B", default="ort", help="what runs it (default ort)")
    parser.add_argument(
        "--threads", metavar="N", type=int, default=0, help="inside one operator, on the CPU"
    )
    parser.add_argument(
        "--engine", metavar="DIR", help="the backend's engines, if not beside the bundle"
    )
    parser.add_argument(
        "--allow-unverified",
        action="store_true",
        help="run engines that no passing parity report vouches for; it is logged",
    )


def add_steps_arg(parser: argparse.ArgumentParser) -> None:
    """Declare --steps, of a verb that makes chunks as it is asked to."""
    parser.add_argument(
        "--steps", metavar="N", type=int, help="denoising steps of a chunk; default the contract's"
    )
