"""The closed loop: the same episodes driven by the reference and by a backend, pair by pair."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from memorywam_export.episodes.paired import Pairs, Share, pairs_from_outcomes, share_of
from memorywam_runtime.errors import InputError
from memorywam_runtime.verb_calls import Document

__all__ = [
    "ABLATIONS",
    "LARGEST_DIFFERENCE",
    "REFERENCE",
    "TASKS",
    "Caller",
    "LoopOptions",
    "TaskLoop",
    "closed_loop",
    "loop_data",
    "loop_verdict",
]

REFERENCE = "eager"
"""The backend that is torch on the bundle's own weights."""
ABLATIONS = ("anchors", "gists", "window", "anchors,gists")
"""What is hidden in turn, as in the paper's table 3."""
TASKS = ("recall", "glimpse", "count")
"""Of the simulated robot, which judges its own episodes."""
LARGEST_DIFFERENCE = 0.04
"""Between two shares of success: two episodes of fifty, which the order of sums may decide."""


class Caller(Protocol):
    """Runs a verb to its end; `VerbCalls.call` is one."""

    def __call__(self, verb: str, *words: str, name: str | None = None) -> Document:
        """Return what `--json` writes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopOptions:
    """How much is driven, and by what."""

    tasks: tuple[str, ...]
    """As `--robot sim:TASK` takes them."""
    num_episodes: int = 50
    """Of each task."""
    seed: int = 0
    """Of the first episode; the others follow it."""
    backend: str = "ort"
    """What is compared with the reference."""
    ablations: tuple[str, ...] = ABLATIONS
    """By the backend alone; none leaves the table out."""
    words: tuple[str, ...] = ("--threads", "1", "--allow-unverified")
    """Said to every run. Small models are slower with a second thread; and what is being verified
    may have failed before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLoop:
    """One task: the reference, the backend, and the backend with a part of memory hidden."""

    task: str
    backend: str
    seeds: tuple[int, ...]
    reference: Share
    found: Share
    pairs: Pairs
    repairs: tuple[int, ...]
    """Seeds at which the backend alone succeeds."""
    regressions: tuple[int, ...]
    """Seeds at which the reference alone succeeds."""
    same_ending: int
    """Episodes that end with the same remark."""
    largest_action_difference: float | None
    """Between executed actions, in the robot's units; None where runs do not tell them."""
    hidden: dict[str, Share] = field(default_factory=dict[str, Share])
    """The backend's success by what was hidden."""
    hidden_pairs: dict[str, Pairs] = field(default_factory=dict[str, Pairs])
    """The same episodes with a whole memory against those."""


def closed_loop(
    bundle: Path,
    call: Caller,
    options: LoopOptions,
    tell: Callable[[str], None] = lambda doing: None,
    *,
    reference: Path | None = None,
) -> list[TaskLoop]:
    """Drive every task by the reference and by a backend, and compare the episodes by seed.

    Each run is a process of its own. An episode's seed decides the scene and the noise of every
    chunk, so that two that differ differ in what they computed.

    Args:
        bundle: The bundle's directory.
        call: Runs the verb `run`.
        options: How much, and by what.
        tell: Called with what is being done.
        reference: The bundle that this one was made from, on the same backend; by default torch on
            this one's weights.

    Raises:
        InputError: no task or no episode, a backend that is the reference, or episodes that
            nobody judged.
        MemorywamError: a run could not run; what it said.
    """
    is_same = reference is None and options.backend == REFERENCE
    if not options.tasks or options.num_episodes < 1 or is_same:
        raise InputError(
            f"found tasks {list(options.tasks)}, {options.num_episodes} episodes, backend "
            f"'{options.backend}'; expected a task, an episode, and a backend other than "
            f"'{REFERENCE}', which is what it is compared with"
        )
    first = (bundle, REFERENCE) if reference is None else (reference, options.backend)
    return [_task_loop(bundle, first, call, task, options, tell) for task in options.tasks]


def loop_verdict(loop: TaskLoop) -> tuple[bool, str]:
    """Return whether the backend succeeds as often as the reference, and why that is said.

    It does where the two differ by at most 4 points, or where the interval of the difference holds
    0: then so many episodes do not tell the two apart, and how small a loss they could have seen
    is said.
    """
    pairs = loop.pairs
    told = f"{100 * pairs.difference:+.0f} points, {_interval(pairs)}"
    seeable = f"{pairs.episodes} pairs see a loss of {100 * pairs.seeable:.0f} points"
    if abs(pairs.difference) <= LARGEST_DIFFERENCE + 1e-9:
        return True, f"{told}: within {100 * LARGEST_DIFFERENCE:.0f} points; {seeable}"
    if pairs.low <= 0 <= pairs.high:
        return True, f"{told}: explained by the interval, not shown to be equal; {seeable}"
    return False, f"{told}: more than {100 * LARGEST_DIFFERENCE:.0f} points; {seeable}"


def loop_data(loops: Sequence[TaskLoop]) -> list[dict[str, Any]]:
    """Return the figures for machines, with each task's verdict."""
    told = []
    for loop in loops:
        ok, why = loop_verdict(loop)
        told.append({**asdict(loop), "ok": ok, "verdict": why})
    return told


def _task_loop(
    bundle: Path,
    first: tuple[Path, str],
    call: Caller,
    task: str,
    options: LoopOptions,
    tell: Callable[[str], None],
) -> TaskLoop:
    """Drive one task: by the reference, a bundle on a backend, and by what is compared with it."""

    def driven(root: Path, backend: str, hide: str = "") -> dict[int, Mapping[str, Any]]:
        without = f" without {hide}" if hide else ""
        by = backend if root == bundle else "the reference"
        tell(f"{task}: {options.num_episodes} episodes by {by}{without}")
        hiding = ("--hide", hide) if hide else ()
        suffix = f"-no-{hide.replace(',', '-')}" if hide else ""
        document = call(
            "run", str(root), "--robot", f"sim:{task}", "--episodes", str(options.num_episodes),
            "--seed", str(options.seed), "--backend", backend, *hiding, *options.words,
            name=f"loop-{task}-{by.replace(' ', '-')}{suffix}",
        )  # fmt: skip
        return _by_seed(document, task, options)

    reference, found = driven(*first), driven(bundle, options.backend)
    hidden = {hide: driven(bundle, options.backend, hide) for hide in options.ablations}
    outcomes = {seed: (one["success"], found[seed]["success"]) for seed, one in reference.items()}
    return TaskLoop(
        task=task,
        backend=options.backend,
        seeds=tuple(outcomes),
        reference=_share(reference),
        found=_share(found),
        pairs=pairs_from_outcomes(list(outcomes.values())),
        repairs=tuple(seed for seed, pair in outcomes.items() if pair == (False, True)),
        regressions=tuple(seed for seed, pair in outcomes.items() if pair == (True, False)),
        same_ending=sum(one["remark"] == found[seed]["remark"] for seed, one in reference.items()),
        largest_action_difference=_action_difference(reference, found),
        hidden={hide: _share(episodes) for hide, episodes in hidden.items()},
        hidden_pairs={
            hide: pairs_from_outcomes(
                [(found[seed]["success"], one["success"]) for seed, one in episodes.items()]
            )
            for hide, episodes in hidden.items()
        },
    )


def _by_seed(document: Document, task: str, options: LoopOptions) -> dict[int, Mapping[str, Any]]:
    """Return a run's episodes by seed; refuse others than were asked for, or not judged ones."""
    episodes = {int(one["seed"]): one for one in document["data"]["episodes"]}
    wanted = list(range(options.seed, options.seed + options.num_episodes))
    if sorted(episodes) != wanted:
        raise InputError(
            f"{task}: found episodes of seeds {sorted(episodes)}; expected {wanted}: every pair "
            "needs both"
        )
    if unjudged := [seed for seed, one in episodes.items() if one["success"] is None]:
        raise InputError(
            f"{task}: found no verdict on the episodes of seeds {unjudged}; expected a robot that "
            "judges its episodes, such as sim:recall"
        )
    return {seed: episodes[seed] for seed in wanted}


def _share(episodes: Mapping[int, Mapping[str, Any]]) -> Share:
    """Return the share of successes."""
    return share_of(sum(one["success"] for one in episodes.values()), len(episodes))


def _action_difference(
    reference: Mapping[int, Mapping[str, Any]], found: Mapping[int, Mapping[str, Any]]
) -> float | None:
    """Return the largest difference of executed actions, over the steps that both made."""
    largest = 0.0
    for seed, one in reference.items():
        if "executed" not in one or "executed" not in found[seed]:
            return None
        first, second = (np.asarray(each["executed"], float) for each in (one, found[seed]))
        steps = min(len(first), len(second))
        if steps:
            largest = max(largest, float(np.abs(first[:steps] - second[:steps]).max()))
    return largest


def _interval(pairs: Pairs) -> str:
    """Return the interval of a difference in points."""
    return f"95 % {100 * pairs.low:+.0f} to {100 * pairs.high:+.0f}"
