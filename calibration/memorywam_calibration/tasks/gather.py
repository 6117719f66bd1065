"""Gathering: episode tasks to nested parts, from shards that are there and work that is not."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from memorywam_calibration.episodes.survey import Survey
from memorywam_calibration.replay.activations import Activations
from memorywam_calibration.tasks.shards import ShardFolder, shard_from_bytes, shard_to_bytes
from memorywam_calibration.tasks.tasks import EpisodeTask, task_parts
from memorywam_runtime.errors import InputError
from memorywam_runtime.policy import Policy

__all__ = ["Gathered", "Worker", "gathered", "worker_here"]

Worker = Callable[[Sequence[EpisodeTask]], Iterator[tuple[EpisodeTask, bytes]]]
"""Does tasks; yields a shard for each, in any order."""


@dataclass(slots=True, kw_only=True)
class Gathered:
    """What came of the tasks."""

    parts: list[Activations]
    """One for each nested part."""
    resumed: list[str] = field(default_factory=list)
    """Episodes whose shard was there."""
    redone: dict[str, str] = field(default_factory=dict[str, str])
    """Episodes whose shard was there and could not be used, and why."""


def worker_here(policy: Policy, surveys: Sequence[Survey]) -> Worker:
    """Return a worker in this process, one task after the other.

    Args:
        policy: On the bundle of the tasks.
        surveys: The episodes of the tasks, at least.
    """
    by_name = {survey.episode.name: survey.episode.recording for survey in surveys}

    def done(tasks: Sequence[EpisodeTask]) -> Iterator[tuple[EpisodeTask, bytes]]:
        for task in tasks:
            parts = task_parts(policy, task, by_name[task.key.episode])
            yield task, shard_to_bytes(task.key, parts)

    return done


def gathered(
    tasks: Sequence[EpisodeTask],
    worker: Worker,
    *,
    folder: ShardFolder | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Gathered:
    """Do tasks, but those whose shards are there; merge all, the same whatever their order.

    Args:
        tasks: From `tasks.episode_tasks`, one at least.
        worker: What does them.
        folder: Where each shard is kept as it comes, and looked for first; nothing is kept by
            default.
        tell: Called with what is at work.

    Raises:
        InputError: what a task refuses, or one decision point in two shards.
    """
    found = Gathered(parts=[Activations() for _ in range(tasks[0].key.num_parts)])
    left = [task for task in tasks if not _is_resumed(found, task, folder)]
    count = len(tasks) - len(left)
    tell(f"replays {len(left)} of {len(tasks)} episodes")
    for task, content in worker(left) if left else ():
        key, parts = shard_from_bytes(content, task.key.episode)
        if differing := key.differences(task.key):
            raise InputError(f"{task.key.episode}: came back with another {', '.join(differing)}")
        if folder is not None:
            folder.write(key, content)
        _merge(found, parts)
        count += 1
        tell(f"replayed {key.episode}, {count} of {len(tasks)} episodes")
    return found


def _is_resumed(found: Gathered, task: EpisodeTask, folder: ShardFolder | None) -> bool:
    """Take over a task's shard, if there is one that can be used."""
    if folder is None:
        return False
    try:
        parts = folder.read(task.key)
    except InputError as error:
        found.redone[task.key.episode] = str(error)
        return False
    if parts is None:
        return False
    _merge(found, parts)
    found.resumed.append(task.key.episode)
    return True


def _merge(found: Gathered, parts: Sequence[Activations]) -> None:
    """Add an episode's parts."""
    found.parts = [one.merged(more) for one, more in zip(found.parts, parts, strict=True)]
