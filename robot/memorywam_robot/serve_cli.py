"""The verb serve: a policy over a socket, until it is told to stop."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from memorywam_runtime.errors import InputError
from memorywam_runtime.opening_args import add_opening_args, add_steps_arg
from memorywam_runtime.report import Outcome

if TYPE_CHECKING:
    from memorywam_robot.adapters.dialects import PolicyService
    from memorywam_robot.adapters.openpi import OpenpiServer
    from memorywam_robot.adapters.serving import ServeOptions
    from memorywam_runtime.policy import Policy

__all__ = ["Serve"]

_PROTOCOLS = ("openpi",)
_MOST_MIB = 1024
"""Of one message: a client may fill that much memory."""


class Serve:
    """The verb: open a bundle, let clients ask it for actions, tell how many did."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare what to serve, to whom, and what messages cannot say."""
        parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="directory of a bundle")
        parser.add_argument("--protocol", metavar="P", default="openpi", help="openpi")
        parser.add_argument(
            "--host", metavar="H", default="127.0.0.1", help="default: this machine alone"
        )
        parser.add_argument("--port", metavar="N", type=int, default=8000, help="default 8000")
        parser.add_argument(
            "--token-file", metavar="FILE", type=Path, help="needed for any host but this machine"
        )
        parser.add_argument("--max-message", metavar="MIB", type=int, default=64, help="default 64")
        parser.add_argument(
            "--request-timeout", metavar="S", type=float, default=120.0, help="default 120"
        )
        parser.add_argument(
            "--idle-timeout",
            metavar="S",
            type=float,
            default=600.0,
            help="without a request, until a client loses its place; default 600, 0 never",
        )
        _add_dialect_args(parser)
        add_opening_args(parser)
        add_steps_arg(parser)

    def run(self, args: argparse.Namespace) -> Outcome:
        """Serve until a signal; what cannot work is refused before anything listens."""
        from memorywam_robot.adapters.openpi import OpenpiServer
        from memorywam_robot.runs import policy_from_bundle
        from memorywam_runtime.opening import num_steps_from_args, opening_from_args

        if args.protocol not in _PROTOCOLS:
            raise InputError(
                f"unknown protocol '{args.protocol}'; expected one of {', '.join(_PROTOCOLS)}"
            )
        options = _options(args)
        policy = policy_from_bundle(
            args.bundle, opening_from_args(args), num_steps=num_steps_from_args(args)
        )
        service = _service(args, policy)
        server = OpenpiServer(service, options)
        _serve(server, token=bool(options.token))
        return _served(args, policy, service, server)


def _add_dialect_args(parser: argparse.ArgumentParser) -> None:
    """Declare what a message cannot say by itself."""
    parser.add_argument(
        "--camera",
        metavar="WIRE=NAME",
        action="append",
        default=[],
        help="a camera's name in messages, and in the contract; no NAME: ignore it",
    )
    parser.add_argument(
        "--state-keys", metavar="KEYS", default="", help="whose vectors, joined, are the joints"
    )
    parser.add_argument(
        "--instruction", metavar="TEXT", default="", help="of clients that send no prompt"
    )
    parser.add_argument(
        "--infer-every",
        metavar="N",
        type=int,
        default=0,
        help="steps that a plain openpi client executes from one infer to the next; default: "
        "those between two observations that memory needs",
    )
    parser.add_argument(
        "--repeat-missing",
        action="store_true",
        help="let an observation stand in for those before it that were never sent",
    )
    parser.add_argument(
        "--on-prompt-change",
        metavar="DO",
        default="refuse",
        help="in the middle of a plain episode: refuse (default), reset or keep memory",
    )
    parser.add_argument(
        "--seed", metavar="S", type=int, default=0, help="of the first episode; default 0"
    )


def _options(args: argparse.Namespace) -> "ServeOptions":
    """Return where to listen, and to whom."""
    from memorywam_robot.adapters.serving import ServeOptions, token_from_file
    from memorywam_robot.adapters.wire_reader import WireLimits

    if not 1 <= args.max_message <= _MOST_MIB:
        raise InputError(f"found --max-message {args.max_message}; expected 1 to {_MOST_MIB} MiB")
    return ServeOptions(
        host=args.host,
        port=args.port,
        token="" if args.token_file is None else token_from_file(args.token_file),
        limits=WireLimits(max_bytes=args.max_message << 20),
        request_timeout_s=args.request_timeout,
        idle_timeout_s=args.idle_timeout,
    )


def _service(args: argparse.Namespace, policy: "Policy") -> "PolicyService":
    """Return the policy with what messages cannot say."""
    from memorywam_robot.adapters.dialects import PolicyService
    from memorywam_robot.adapters.serving import DialectOptions, cameras_from_arguments

    manifest = policy.session.manifest
    options = DialectOptions(
        cameras=cameras_from_arguments(args.camera),
        state_keys=tuple(key for key in args.state_keys.split(",") if key),
        instruction=args.instruction,
        infer_every=args.infer_every,
        on_prompt_change=args.on_prompt_change,
        repeats_missing=args.repeat_missing,
        seed=args.seed,
    )
    about = {
        "contract_hash": manifest.contract_hash,
        "checkpoint_sha256": manifest.source.sha256,
        "instructions": [prompt.text for prompt in manifest.prompts],
        "num_denoising_steps": policy.num_denoising_steps,
    }
    return PolicyService(
        policy,
        options,
        about=about,
        max_frames=manifest.memory.max_frames,
        stages=policy.session.timings.percentiles,
    )


def _serve(server: "OpenpiServer", *, token: bool) -> None:
    """Run the server until SIGINT or SIGTERM."""
    import asyncio
    import signal

    def tell(host: str, port: int) -> None:
        whom = "with the token" if token else "on this machine"
        sys.stderr.write(f"serving on ws://{host}:{port} to clients {whom}; Ctrl-C ends it\n")
        sys.stderr.flush()

    async def run() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        before = [signal.getsignal(one) for one in signals]
        for one in signals:
            loop.add_signal_handler(one, stop.set)
        try:
            await server.run(stop, tell)
        finally:
            for one, handler in zip(signals, before, strict=True):
                loop.remove_signal_handler(one)
                signal.signal(one, handler)

    asyncio.run(run())


def _served(
    args: argparse.Namespace, policy: "Policy", service: "PolicyService", server: "OpenpiServer"
) -> Outcome:
    """Tell what was served."""
    from dataclasses import asdict

    feeder, counts = service.feeder, asdict(server.counts)
    feeder.end()
    frames = {"frames_seen": feeder.total_seen, "frames_repeated": feeder.total_repeated}
    data = counts | frames | {"episodes": feeder.num_episodes}
    return Outcome(
        ok=True,
        headers=("served", "number"),
        rows=[(name.replace("_", " "), number) for name, number in data.items()],
        data=data
        | {
            "bundle": args.bundle,
            "contract_hash": policy.session.manifest.contract_hash,
            "num_denoising_steps": policy.num_denoising_steps,
            "stages_ms": policy.session.timings.percentiles(),
        },
        note="stopped as asked",
    )
