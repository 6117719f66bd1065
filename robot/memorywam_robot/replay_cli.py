"""The verb replay: a recording in, how far a bundle is from it out."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorywam_runtime.errors import InputError
from memorywam_runtime.opening_args import add_opening_args
from memorywam_runtime.report import Outcome, Progress

if TYPE_CHECKING:
    from memorywam_robot.replay import OpenLoop, Replayed
    from memorywam_runtime.policy import Policy
    from memorywam_runtime.recording import Recording

__all__ = ["Replay"]


class Replay:
    """The verb: feed a recording through a bundle and compare what comes out."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare what to feed to what."""
        parser.add_argument(
            "recording",
            metavar="RECORDING",
            type=Path,
            help="an MCAP file, a LeRobot dataset (v3) or a plain folder",
        )
        parser.add_argument("--bundle", metavar="BUNDLE", type=Path, required=True)
        parser.add_argument(
            "--assert-equal",
            action="store_true",
            help="exit 1 unless actions and memory are equal, bit for bit",
        )
        parser.add_argument(
            "--episode", metavar="N", type=int, default=0, help="of a dataset; default 0"
        )
        parser.add_argument("--seed", metavar="S", type=int, help="default: the recorded one")
        parser.add_argument("--instruction", metavar="TEXT", help="default: the recorded one")
        parser.add_argument(
            "--cameras",
            metavar="NAME=RECORDED,...",
            default="",
            help="the contract's cameras by their names in a dataset or folder",
        )
        add_opening_args(parser)

    def run(self, args: argparse.Namespace) -> Outcome:
        """Feed and compare."""
        from memorywam_robot.replay import (
            policy_for_replay,
            replay_against_actions,
            replay_exactly,
        )
        from memorywam_runtime.opening import opening_from_args
        from memorywam_runtime.recording import open_recording

        if args.seed is not None and args.seed < 0:
            raise InputError(f"found --seed {args.seed}; expected an integer of at least 0")
        cameras = _cameras_from_text(args.cameras)
        recording = open_recording(args.recording, episode=args.episode)
        is_exact = recording.provenance is not None
        if args.assert_equal and not is_exact:
            raise InputError(
                f"{recording.path} holds no chunks and no memory of a policy, so nothing can be "
                "equal to it; leave out --assert-equal to compare with its actions"
            )
        if cameras and is_exact:
            raise InputError(
                "found --cameras for a recording of a policy, which has the contract's own; "
                "leave it out"
            )
        policy = policy_for_replay(recording, args.bundle, opening_from_args(args))
        with Progress("replay", total=recording.num_events) as progress:
            if is_exact:
                found = replay_exactly(
                    policy,
                    recording,
                    seed=args.seed,
                    instruction=args.instruction,
                    told=progress.update,
                )
                return _replayed(args, recording, policy, found)
            errors = replay_against_actions(
                policy,
                recording,
                seed=args.seed or 0,
                instruction=args.instruction,
                cameras=cameras,
                told=progress.update,
            )
        return _compared(args, recording, policy, errors)


def _cameras_from_text(text: str) -> dict[str, str]:
    """Return the contract's camera names to the recording's.

    Raises:
        InputError: no pair of names.
    """
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if wrong := [name + sign + other for name, sign, other in pairs if not (name and other)]:
        raise InputError(f"found '{wrong[0]}' in --cameras; expected NAME=RECORDED,...")
    return {name: other for name, _, other in pairs}


def _replayed(
    args: argparse.Namespace, recording: "Recording", policy: "Policy", found: "Replayed"
) -> Outcome:
    """Tell how far a policy is from itself."""
    import numpy as np

    names, units = _joints(policy)
    errors = np.array([one.errors for one in found.chunks]).reshape(-1, len(names))
    worst = errors.max(axis=0) if len(errors) else np.zeros(len(names))
    at = errors.argmax(axis=0) if len(errors) else np.zeros(len(names), int)
    frames = [
        found.chunks[index].frame if size else None for index, size in zip(at, worst, strict=True)
    ]
    num_equal = sum(one.is_equal for one in found.chunks)
    num_equal_memory = found.num_digests - len(found.unequal_memory)
    notes = [
        "equal" if found.is_equal else "equal as far as it goes" if found.is_alike else "NOT equal",
        f"{num_equal} of {len(found.chunks)} chunks bit-equal",
        f"memory equal {num_equal_memory} of {found.num_digests} times that it was recorded",
        *_notes(recording, policy),
    ]
    return Outcome(
        ok=found.is_equal or not args.assert_equal,
        headers=("joint", "worst difference", "unit", "in the chunk after frame"),
        rows=list(zip(names, worst.tolist(), units, frames, strict=True)),
        data=_data(args, recording, policy)
        | {
            "is_equal": found.is_equal,
            "is_whole": found.is_whole,
            "num_chunks": len(found.chunks),
            "num_equal_chunks": num_equal,
            "unequal_chunks_after_frames": [one.frame for one in found.chunks if not one.is_equal],
            "num_digests": found.num_digests,
            "unequal_memory_after_frames": found.unequal_memory,
            "worst_difference": dict(zip(names, worst.tolist(), strict=True)),
        },
        note="; ".join(notes),
    )


def _compared(
    args: argparse.Namespace, recording: "Recording", policy: "Policy", found: "OpenLoop"
) -> Outcome:
    """Tell how far a policy is from what somebody else did."""
    names, units = _joints(policy)
    means, worst = found.mean_errors.tolist(), found.worst_errors.tolist()
    notes = [
        f"{found.num_chunks} chunks beside the recorded actions, each made from what was recorded",
        *_notes(recording, policy),
    ]
    return Outcome(
        ok=True,
        headers=("joint", "mean error", "worst error", "unit"),
        rows=list(zip(names, means, worst, units, strict=True)),
        data=_data(args, recording, policy)
        | {
            "num_chunks": found.num_chunks,
            "mean_error": dict(zip(names, means, strict=True)),
            "worst_error": dict(zip(names, worst, strict=True)),
            "mean_error_by_step": found.by_step.tolist(),
        },
        note="; ".join(notes),
    )


def _joints(policy: "Policy") -> tuple[list[str], list[str]]:
    """Return a name and a unit for each action."""
    actions = policy.contract.actions
    names = [f"joint_{index}" for index in range(actions.action_dim)]
    return list(actions.names) or names, list(actions.units) or ["rad"] * actions.action_dim


def _notes(recording: "Recording", policy: "Policy") -> list[str]:
    """Say what is wrong with the recording, and what was not the same when it was made."""
    notes = []
    if recording.damage is not None:
        notes.append(f"the recording is DAMAGED: {recording.damage}")
    control_hz = policy.contract.observations.control_hz
    if recording.header.control_hz != control_hz:
        notes.append(
            f"recorded at {recording.header.control_hz:g} steps a second, the contract is for "
            f"{control_hz:g}"
        )
    made = recording.provenance
    if made is None:
        return notes
    if made.checkpoint_sha256 != policy.session.manifest.source.sha256:
        notes.append(f"recorded with another checkpoint, {made.checkpoint_sha256[:12]}...")
    if made.backend != policy.session.backend.name:
        notes.append(f"recorded on backend {made.backend}: bits may differ")
    return notes


def _data(args: argparse.Namespace, recording: "Recording", policy: "Policy") -> dict[str, Any]:
    """Return what identifies a replay."""
    import msgspec

    manifest = policy.session.manifest
    return {
        "recording": recording.path,
        "kind": recording.kind,
        "episode": args.episode,
        "header": msgspec.to_builtins(recording.header),
        "provenance": msgspec.to_builtins(recording.provenance),
        "ending": msgspec.to_builtins(recording.ending),
        "num_events": recording.num_events,
        "damage": recording.damage,
        "bundle": args.bundle,
        "contract_hash": manifest.contract_hash,
        "checkpoint_sha256": manifest.source.sha256,
        "backend": policy.session.backend.name,
    }
