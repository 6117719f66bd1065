"""Held-out episodes as what sessions are fed: normalized, one after another, as long as asked."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from memorywam_calibration.episodes.episodes import Episode, Split
from memorywam_calibration.episodes.frames import Frame, frames_of
from memorywam_export.episodes import drift
from memorywam_runtime.bundle import read_prompt
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.session import Session
from memorywam_runtime.transforms import mosaic_from_images, pixels_from_mosaics

__all__ = [
    "check_instructions",
    "development_episodes",
    "held_out_episodes",
    "instruct",
    "one_after_another",
    "session_frames",
]


def held_out_episodes(episodes: Sequence[Episode]) -> list[Episode]:
    """Return the episodes that judge, which no scale was made from.

    Raises:
        InputError: there are none.
    """
    return _of_split(episodes, "held_out", "held out", "judge on what nothing was made from")


def development_episodes(episodes: Sequence[Episode]) -> list[Episode]:
    """Return the episodes that choose, which neither calibrate nor judge.

    Raises:
        InputError: there are none.
    """
    return _of_split(episodes, "development", "for development", "find recipes on")


def _of_split(episodes: Sequence[Episode], split: Split, words: str, purpose: str) -> list[Episode]:
    """Return the episodes of one split; refuse none."""
    chosen = [one for one in episodes if one.split == split]
    if not chosen:
        raise InputError(
            f"found {len(episodes)} episodes and none {words}; expected at least one, to "
            f"{purpose}: record more, or choose another --seed"
        )
    return chosen


def check_instructions(
    episodes: Sequence[Episode], manifest: Manifest, instruction: str | None = None
) -> None:
    """Refuse episodes whose instruction a bundle does not hold.

    Args:
        episodes: To be played.
        manifest: Of the bundle.
        instruction: Another one than was recorded.

    Raises:
        InputError: naming the episode, the instruction, and those that there are.
    """
    for episode in episodes:
        wanted = instruction or episode.recording.header.instruction
        if manifest.prompt(wanted) is None:
            known = "; ".join(repr(prompt.text) for prompt in manifest.prompts)
            raise InputError(
                f"{episode.recording.path}: found the instruction {wanted!r}; the bundle holds "
                f"{known or 'none'}: add it with `memorywam prompt BUNDLE --add`, or name one with "
                "--instruction"
            )


def session_frames(
    episode: Episode, manifest: Manifest, seed: int, cameras: Mapping[str, str] | None = None
) -> Iterator[drift.Frame]:
    """Yield an episode's frames in the model's units, each with noise for some chunks.

    Args:
        episode: Of any kind.
        manifest: Whose contract and statistics count.
        seed: Of the noise, 0 or more; with the frame's number it decides it.
        cameras: The contract's camera to the recording's name for it, where they differ.

    Raises:
        InputError: what the recording lacks.
    """
    contract, held = manifest.contract, None
    for frame in frames_of(episode.recording, contract, cameras):
        if held is not None:
            yield _fed(held, frame.executed, manifest, seed)
        held = frame
    if held is not None:
        yield _fed(held, np.empty((0, contract.actions.action_dim)), manifest, seed)


def one_after_another(
    episodes: Sequence[Episode],
    manifest: Manifest,
    num_frames: int,
    seed: int = 0,
    cameras: Mapping[str, str] | None = None,
) -> Iterator[drift.Frame]:
    """Yield frames of one endless episode: the given ones in turn, again and again.

    Memory goes on where one episode ends and the next begins, so that it fills further than in any
    of them; the first image of all but the first is left out, as a group makes a frame from then
    on.

    Args:
        episodes: Each with two frames at least.
        manifest: Whose contract and statistics count.
        num_frames: How many.
        seed: Of the noise; another one in each turn.
        cameras: The contract's camera to the recording's name for it, where they differ.

    Raises:
        InputError: no episode of two frames.
    """
    count = turn = 0
    while count < num_frames:
        before = count
        for episode in episodes:
            for number, frame in enumerate(session_frames(episode, manifest, seed + turn, cameras)):
                if number == 0 and count > 0 and not _is_single(manifest.contract):
                    continue
                yield frame
                count += 1
                if count == num_frames:
                    return
        if count == before:
            raise InputError(
                f"found {len(episodes)} episodes of one frame or none; expected one of two at "
                "least: record longer ones"
            )
        turn += 1


def instruct(session: Session, instruction: str) -> None:
    """Reset a session of a bundle, with an instruction that the bundle holds.

    Raises:
        InputError: it does not hold it.
    """
    assert session.root is not None
    session.reset(read_prompt(session.root, session.manifest, instruction))


def _fed(frame: Frame, executed: NDArray[np.float64], manifest: Manifest, seed: int) -> drift.Frame:
    """Return what a session is fed of a frame."""
    contract, normalization = manifest.contract, manifest.normalization
    mosaics = [mosaic_from_images(one.images, contract.observations) for one in frame.observations]
    shape = (contract.actions.horizon, contract.actions.action_dim)
    rng = np.random.default_rng((seed, frame.number))
    after = np.zeros(shape, np.float32)
    if executed.shape == shape:
        after = normalization.action.normalized(executed, "executed actions")
    return drift.Frame(
        pixels=pixels_from_mosaics(np.stack(mosaics)),
        state=normalization.state.normalized(frame.state, "joint state"),
        executed=after,
        noise=rng.standard_normal((drift.NUM_CHUNKS, *shape)).astype(np.float32),
    )


def _is_single(contract: InferenceContract) -> bool:
    """Is every frame one image?"""
    return contract.conventions.vae_history == "single_frame"
