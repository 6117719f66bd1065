"""Episode tasks: what it takes to replay one episode in any process, and its parts again."""

import functools
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import torch

from memorywam_calibration.episodes.episodes import content_hash
from memorywam_calibration.episodes.samples import Sample
from memorywam_calibration.episodes.survey import Survey
from memorywam_calibration.replay.activations import Activations
from memorywam_calibration.replay.replay import episode_parts, policy_from_bundle
from memorywam_calibration.tasks.shards import Point, ShardKey, shard_to_bytes
from memorywam_runtime.errors import InputError
from memorywam_runtime.files import sha256_of
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.policy import Policy
from memorywam_runtime.recording import Recording, open_recording
from memorywam_runtime.versions import versions

__all__ = [
    "EpisodeTask",
    "Replay",
    "done_elsewhere",
    "episode_tasks",
    "exact_versions",
    "task_parts",
]

_MANIFEST = "manifest.json"
_NOT_OF_RESULTS = ("machine", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx-cu13",
                   "cuda-bindings", "onnx", "onnxscript", "onnx-ir", "transformers", "mujoco",
                   "pyrealsense2")  # fmt: skip
"""Of `versions`, what neither decodes a recording nor computes a statistic."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts: immutable, keyword-only, and strict about unknown fields."""


class EpisodeTask(_Part, frozen=True):
    """One episode to replay."""

    bundle: str
    """Its path."""
    recording: str
    """Its path."""
    number: int
    """Of a data set's episodes."""
    key: ShardKey

    @property
    def num_frames(self) -> int:
        """That are replayed."""
        return 1 + max(point.frame for point in self.key.points)


class Replay(_Part, frozen=True):
    """What all episodes of one calibration have in common."""

    bundle: Path
    manifest: Manifest
    recipe: str
    seed: int
    cameras: Mapping[str, str]
    num_threads: int
    gram_sites: tuple[str, ...] = ()


def exact_versions() -> dict[str, str]:
    """Return the versions of what decodes and computes, and the kind of processor."""
    found = {name: one for name, one in versions().items() if name not in _NOT_OF_RESULTS}
    return found | {"processor": torch.backends.cpu.get_cpu_capability()}


def episode_tasks(
    replay: Replay, surveys: Sequence[Survey], samples: Sequence[Sample], bounds: Sequence[int]
) -> list[EpisodeTask]:
    """Return a task for each episode that has a decision point, the longest first.

    Args:
        replay: What all have in common.
        surveys: The episodes of the samples, at least.
        samples: Decision points, in their order.
        bounds: Where the samples are divided into nested parts, ascending.
    """
    ends = [*bounds, len(samples)]
    points: dict[str, list[Point]] = {}
    for place, sample in enumerate(samples):
        part = next(k for k, end in enumerate(ends) if place < end)
        point = Point(frame=sample.frame, seed=sample.seed, part=part)
        points.setdefault(sample.episode, []).append(point)
    manifest = replay.manifest
    common = ShardKey(
        contract_hash=manifest.contract_hash,
        checkpoint_sha256=manifest.source.sha256,
        manifest_sha256=sha256_of(replay.bundle / _MANIFEST),
        file_sha256s=manifest.judged_files,
        recipe=replay.recipe,
        seed=replay.seed,
        num_denoising_steps=manifest.contract.conventions.num_steps,
        episode="",
        recording_sha256="",
        instruction="",
        points=(),
        num_parts=len(ends),
        cameras=dict(replay.cameras),
        num_threads=replay.num_threads,
        versions=exact_versions(),
        gram_sites=replay.gram_sites,
    )
    found = [
        EpisodeTask(
            bundle=str(replay.bundle.absolute()),
            recording=str(survey.episode.recording.path.absolute()),
            number=survey.episode.number,
            key=msgspec.structs.replace(
                common,
                episode=survey.episode.name,
                recording_sha256=survey.episode.sha256,
                instruction=survey.instruction,
                points=tuple(points[survey.episode.name]),
            ),
        )
        for survey in surveys
        if survey.episode.name in points
    ]
    return sorted(found, key=lambda task: (-task.num_frames, task.key.episode))


def task_parts(policy: Policy, task: EpisodeTask, recording: Recording) -> list[Activations]:
    """Replay an episode; return what it adds to each nested part.

    Args:
        policy: On the task's bundle, with as many threads as the task asks for.
        task: What to do.
        recording: The task's.

    Raises:
        InputError: what the policy refuses, or a value that is not finite, with its place.
    """
    key = task.key
    points = {
        one.frame: (Sample(episode=key.episode, frame=one.frame, seed=one.seed), one.part)
        for one in key.points
    }
    return episode_parts(
        policy,
        recording,
        key.instruction,
        points,
        key.num_parts,
        key.cameras,
        gram_sites=key.gram_sites,
    )


def done_elsewhere(task: EpisodeTask) -> bytes:
    """Do a task in a process that knows nothing but the task; return a shard.

    Raises:
        InputError: a recording, bundle or version that is not the task's, or what `task_parts`
            refuses.
        BundleError: a bundle that does not pass its checks.
    """
    key, where = task.key, f"{platform.node()} (process {os.getpid()})"
    found = exact_versions()
    if found != key.versions:
        names = sorted(
            name for name in {*found, *key.versions} if found.get(name) != key.versions.get(name)
        )
        told = ", ".join(f"{one} {found.get(one)} for {key.versions.get(one)}" for one in names)
        raise InputError(
            f"{where}: found {told}; expected the versions and processor of the machine that "
            "calibrates: others round otherwise; install the same there, or leave it out"
        )
    files = (
        (Path(task.bundle) / _MANIFEST, sha256_of, key.manifest_sha256),
        (Path(task.recording), _content_hash_once, key.recording_sha256),
    )
    for path, hashed, expected in files:
        if not path.exists() or hashed(path) != expected:
            what = "another content" if path.exists() else "nothing"
            raise InputError(
                f"{where}: found {what} at {path}; expected the files of the machine that "
                "calibrates, under the same path: use a folder that all machines share"
            )
    policy = _policy_once(task.bundle, key.manifest_sha256, key.num_threads)
    recording = open_recording(task.recording, episode=task.number)
    return shard_to_bytes(key, task_parts(policy, task, recording))


@functools.lru_cache(maxsize=1)
def _policy_once(bundle: str, _manifest_sha256: str, num_threads: int) -> Policy:
    """Return a policy; a process does many tasks on one."""
    return policy_from_bundle(Path(bundle), num_threads=num_threads)


@functools.lru_cache(maxsize=1)
def _content_hash_once(path: Path) -> str:
    """Return the hash of a recording; the episodes of a data set come one after the other."""
    return content_hash(path)
