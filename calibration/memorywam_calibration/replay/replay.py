"""Replay: chosen episodes through the real policy, from frame to frame as on the robot."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memorywam_calibration.episodes.frames import Frame, frames_of
from memorywam_calibration.episodes.samples import Sample
from memorywam_calibration.episodes.survey import Survey
from memorywam_calibration.replay.activations import Activations
from memorywam_calibration.replay.listener import Listener, class_of
from memorywam_export.parity.parity_graphs import kept_type
from memorywam_runtime.bundle import open_bundle
from memorywam_runtime.errors import InputError
from memorywam_runtime.policy import Policy
from memorywam_runtime.recording import Recording
from memorywam_runtime.session import Session
from memorywam_runtime.tensors import decoded

__all__ = ["episode_parts", "policy_from_bundle", "replayed"]


def policy_from_bundle(bundle: Path, *, num_threads: int = 0) -> Policy:
    """Return a policy on the bundle's own weights, computed by torch.

    Raises:
        BundleError: a bundle that does not pass its checks.
    """
    return Policy(open_bundle(bundle, backend="eager", num_threads=num_threads))


def replayed(
    policy: Policy,
    surveys: Sequence[Survey],
    samples: Sequence[Sample],
    *,
    bounds: Sequence[int] = (),
    cameras: Mapping[str, str] | None = None,
    before_frame: Callable[[], None] = lambda: None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Activations]:
    """Replay episodes as the robot would run them, and look where samples say.

    Memory is carried from frame to frame; each chunk starts from the sample's noise and goes
    through every denoising step.

    Args:
        policy: From `policy_from_bundle`; reset here.
        surveys: The episodes of the samples, at least.
        samples: Decision points, in their order.
        bounds: Where the samples are divided into parts, ascending; one part by default.
        cameras: The contract's camera to the recording's name for it, where they differ.
        before_frame: Called before each frame is remembered.
        tell: Called with what is at work.

    Returns:
        One for each part.

    Raises:
        InputError: what the policy refuses, or a value that is not finite, with its place.
    """
    ends = [*bounds, len(samples)]
    parts = [Activations() for _ in ends]
    wanted: dict[str, dict[int, tuple[Sample, int]]] = {}
    for place, sample in enumerate(samples):
        part = next(k for k, end in enumerate(ends) if place < end)
        wanted.setdefault(sample.episode, {})[sample.frame] = (sample, part)
    chosen = [survey for survey in surveys if survey.episode.name in wanted]
    for number, survey in enumerate(chosen, start=1):
        name = survey.episode.name
        tell(f"replays {name}, {number} of {len(chosen)} episodes")
        found = episode_parts(
            policy,
            survey.episode.recording,
            survey.instruction,
            wanted[name],
            len(parts),
            cameras,
            before_frame=before_frame,
        )
        parts = [one.merged(more) for one, more in zip(parts, found, strict=True)]
    return parts


def episode_parts(
    policy: Policy,
    recording: Recording,
    instruction: str,
    points: Mapping[int, tuple[Sample, int]],
    num_parts: int,
    cameras: Mapping[str, str] | None = None,
    *,
    gram_sites: Sequence[str] = (),
    before_frame: Callable[[], None] = lambda: None,
) -> list[Activations]:
    """Replay one episode, up to the last frame that is looked at; it hangs on no other.

    Args:
        policy: From `policy_from_bundle`; reset here.
        recording: The episode.
        instruction: What the policy is told to do.
        points: Frame to a decision point and the part that it counts for.
        num_parts: How many there are.
        cameras: The contract's camera to the recording's name for it, where they differ.
        gram_sites: Whose products of channels are counted, too.
        before_frame: Called before each frame is remembered.

    Returns:
        What the episode adds to each part.

    Raises:
        InputError: what the policy refuses, or a value that is not finite, with its place.
    """
    parts = [Activations(gram_sites) for _ in range(num_parts)]
    policy.reset(instruction)
    with Listener(policy.session) as listener:
        for frame in frames_of(recording, policy.contract, cameras):
            sample, place = points.get(frame.number, (None, 0))
            before_frame()
            try:
                _look(policy, frame, sample, parts[place], listener)
            except InputError as error:
                raise InputError(f"{recording.path}, frame {frame.number}: {error}") from error
            if frame.number == max(points):
                break
    return parts


def _look(
    policy: Policy, frame: Frame, sample: Sample | None, part: Activations, listener: Listener
) -> None:
    """Remember a frame; at a decision point act too, and count what was seen."""
    with listener.to(None if sample is None else part, frame.number):
        _remember(policy, frame)
        if sample is not None:
            policy.act(frame.state, _noise(policy, sample))
    if sample is not None:
        _note_memory(policy.session, part)
        part.counts.update(_met(policy, frame))
        part.flush()
        part.samples.add(sample)


def _remember(policy: Policy, frame: Frame) -> None:
    """Write a frame to memory, with the actions before it where the contract keeps them."""
    keeps = policy.contract.conventions.action_history and policy.num_frames > 0
    policy.remember(frame.observations, frame.executed if keeps else None)


def _noise(policy: Policy, sample: Sample) -> NDArray[np.float64]:
    """Return what the chunk starts from [horizon, action_dim]."""
    actions = policy.contract.actions
    rng = np.random.default_rng(sample.seed)
    return rng.standard_normal((actions.horizon, actions.action_dim))


def _note_memory(session: Session, part: Activations) -> None:
    """Count the keys and values [rows, heads * head_dim] that the newest frame has written."""
    memory, rows = session.memory, session.memory.rows
    frame = memory.num_frames - 1
    spans = {}
    slot = rows.slot(memory.slot_of(frame))
    spans[class_of(session.contract.memory.num_anchors, frame)] = (slot, rows.num_visual)
    if rows.num_gists:
        spans["gist"] = (rows.gist(memory.gist_place(frame)), rows.num_gists)
    dtype = kept_type(session)
    for name, array in session.calls.memory.items():
        held = session.backend.read(array)[0]  # [heads, rows, head_dim]
        for group, (first, count) in spans.items():
            some = decoded(held[:, first : first + count], dtype)
            part.add(name, some.transpose(1, 0, 2).reshape(count, -1), group)


def _met(policy: Policy, frame: Frame) -> list[str]:
    """Return what a decision point held: memory fill, classes of tokens, cameras."""
    memory = policy.session.memory
    anchors, newest = policy.contract.memory.num_anchors, memory.num_frames - 1
    held = [one for one in memory.snapshot().slot_frames if one >= 0 and one != newest]
    classes = {"current", "action", "text"} | {class_of(anchors, one) for one in held}
    if memory.num_table_places(memory.num_frames):
        classes.add("gist")
    return [
        f"frames/{memory.num_frames}",
        *(f"token/{name}" for name in sorted(classes)),
        *(f"camera/{camera}" for camera in frame.observations[-1].images),
    ]
