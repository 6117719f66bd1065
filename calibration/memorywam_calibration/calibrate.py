"""Calibration from end to end: a bundle and recordings to a scale table."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from memorywam_calibration.episodes.coverage import (
    CoverageRow,
    coverage_rows,
    expected_cells,
    planned_counts,
)
from memorywam_calibration.episodes.episodes import Episode, count_by_split, episodes_in
from memorywam_calibration.episodes.held_out import check_instructions
from memorywam_calibration.episodes.needs import Needs, needs_of
from memorywam_calibration.episodes.samples import FillCell, Sample, chosen_samples, fill_cells
from memorywam_calibration.episodes.survey import Survey, surveyed
from memorywam_calibration.options import Options
from memorywam_calibration.replay.activations import Activations
from memorywam_calibration.replay.replay import policy_from_bundle
from memorywam_calibration.replay.second_pass import second_pass
from memorywam_calibration.scales.equalization import equalized
from memorywam_calibration.scales.plateau import nested_bounds, plateau_of, whole
from memorywam_calibration.scales.scales import Data, all_maps, fitted_table
from memorywam_calibration.scales.sites import chosen_sites
from memorywam_calibration.scales.smoothing import gram_sites
from memorywam_calibration.tasks.cluster import worker_on_cluster
from memorywam_calibration.tasks.gather import gathered, worker_here
from memorywam_calibration.tasks.shards import ShardFolder
from memorywam_calibration.tasks.tasks import Replay, episode_tasks
from memorywam_export.recipes.recipes import recipe_from_name
from memorywam_runtime.bench.bench_machine import usable_cores
from memorywam_runtime.bundle import check_bundle
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.policy import Policy
from memorywam_runtime.scale_table import ScaleTable

__all__ = ["Calibration", "Options", "Plan", "calibrated", "planned"]

_Tell = Callable[[str], None]
_SMALL_BYTES = 80_000_000
"""Of a bundle: 20 million weights in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be replayed, and what it covers."""

    manifest: Manifest
    needs: Needs
    episodes: list[Episode]
    surveys: list[Survey]
    samples: list[Sample]
    fills: list[FillCell]
    counts: Counter[str]
    longest_frames: int
    """That an episode of these tasks can get."""
    prompts: tuple[str, ...]

    def rows(self, counts: Mapping[str, int], allowed: Sequence[str]) -> list[CoverageRow]:
        """Return the coverage table of some counts."""
        steps = self.manifest.contract.conventions.num_steps
        return coverage_rows(
            expected_cells(self.manifest, self.fills, steps, self.prompts),
            counts,
            self.needs,
            allowed=allowed,
            fills=self.fills,
            longest_frames=self.longest_frames,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What came of it."""

    plan: Plan
    coverage: list[CoverageRow]
    table: ScaleTable | None
    """None where the coverage lacks what the recipe asks for: nothing was replayed then."""
    resumed: Sequence[str] = ()
    """Episodes whose statistics were there already."""
    redone: Mapping[str, str] = field(default_factory=dict[str, str])
    """Episodes whose statistics were there and could not be used, and why."""


def planned(bundle: Path, recordings: Path, options: Options, tell: _Tell) -> Plan:
    """Find episodes, split them, and choose decision points.

    Args:
        bundle: Its contract and instructions count; its weights are only checked.
        recordings: One recording, a data set, or a directory of recordings.
        options: What may be chosen.
        tell: Called with what is at work.

    Raises:
        InputError: recordings that are not there, do not fit, or hold nothing to calibrate on.
        BundleError: a bundle that does not pass its checks.
    """
    needs = needs_of(options.recipe)
    count = needs.num_samples if options.num_samples is None else options.num_samples
    if count < needs.least_samples:
        raise InputError(
            f"found {count} decision points; expected at least {needs.least_samples}, and "
            f"{needs.release_samples} for a release: ask for more"
        )
    manifest = check_bundle(bundle)
    if manifest.quantization is not None:
        raise InputError(
            f"{bundle} is quantized already, with {manifest.quantization.recipe}; expected a "
            "bundle as exported: calibrate that one"
        )
    contract = manifest.contract
    episodes = episodes_in(
        recordings, contract, manifest.contract_hash, seed=options.seed, shares=options.shares
    )
    chosen = [one for one in episodes if one.split == "calibration"]
    _check_chosen(recordings, episodes, chosen)
    check_instructions(chosen, manifest, options.instruction)
    surveys = surveyed(
        chosen, contract, instruction=options.instruction, cameras=options.cameras, tell=tell
    )
    drops = manifest.memory.on_full == "drop-oldest-gist"
    fills = fill_cells(contract, None if drops else manifest.memory.max_frames)
    samples = chosen_samples(_limited(surveys, options.max_fill), fills, count, seed=options.seed)
    steps = contract.conventions.num_steps
    return Plan(
        manifest=manifest,
        needs=needs,
        episodes=episodes,
        surveys=surveys,
        samples=samples,
        fills=fills,
        counts=planned_counts(samples, surveys, episodes, manifest, fills, steps),
        longest_frames=_longest(episodes, surveys, contract.steps_per_frame),
        prompts=tuple(prompt.text for prompt in manifest.prompts)
        if options.instruction is None
        else (options.instruction,),
    )


def calibrated(
    bundle: Path,
    recordings: Path,
    options: Options | None = None,
    tell: _Tell = lambda _: None,
    *,
    check: Callable[[Plan], None] = lambda _: None,
) -> Calibration:
    """Make a scale table.

    Args:
        bundle: To be quantized; its own weights are run, by torch.
        recordings: One recording, a data set, or a directory of recordings.
        options: What may be chosen.
        tell: Called with what is at work.
        check: Called with the plan before anything is replayed, to refuse it.

    Raises:
        InputError: recordings that are not there, do not fit, or hold nothing to calibrate on.
        BundleError: a bundle that does not pass its checks.
    """
    options = options or Options()
    plan = planned(bundle, recordings, options, tell)
    check(plan)
    coverage = plan.rows(plan.counts, options.allowed)
    if not all(row.is_ok for row in coverage):
        return Calibration(plan=plan, coverage=coverage, table=None)
    folder = None if options.shards is None else ShardFolder(options.shards)
    if folder is not None and not options.is_resuming:
        folder.refuse_left_over()
    num_threads = options.num_threads or _threads(plan.manifest)
    replay = Replay(
        bundle=bundle,
        manifest=plan.manifest,
        recipe=options.recipe,
        seed=options.seed,
        cameras=options.cameras,
        num_threads=num_threads,
        gram_sites=_gram_sites(bundle, plan, options),
    )
    bounds = nested_bounds(len(plan.samples), plan.needs.least_samples)
    tasks = episode_tasks(replay, plan.surveys, plan.samples, bounds)
    policy = policy_from_bundle(bundle, num_threads=num_threads)
    if options.cluster is None:
        worker = worker_here(policy, plan.surveys)
    else:
        worker = worker_on_cluster(options.cluster)
    work = gathered(tasks, worker, folder=folder, tell=tell)
    parts = work.parts
    tell("fits scales")
    found = whole(parts)
    counts = _met_counts(plan, found)
    coverage = plan.rows(counts, options.allowed)
    done = Calibration(
        plan=plan, coverage=coverage, table=None, resumed=work.resumed, redone=work.redone
    )
    if not all(row.is_ok for row in coverage):
        return done
    table = _fitted(bundle, plan, policy, parts, coverage, options, num_threads, tell)
    return replace(done, table=table)


def _fitted(
    bundle: Path,
    plan: Plan,
    policy: Policy,
    parts: Sequence[Activations],
    coverage: Sequence[CoverageRow],
    options: Options,
    num_threads: int,
    tell: _Tell,
) -> ScaleTable:
    """Return the table of what was seen."""
    found, needs, session = whole(parts), plan.needs, policy.session
    sites = chosen_sites(bundle, plan.manifest, recipe_from_name(needs.recipe), found.sites)
    equalization = equalized(
        bundle,
        plan.manifest,
        sites,
        parts,
        all_maps(session),
        needs.observer,
        smooth=options.is_smoothed,
        per_step=options.per_step,
    )
    data = Data(
        episodes=plan.episodes,
        samples=plan.samples,
        seed=options.seed,
        num_denoising_steps=session.contract.conventions.num_steps,
        num_threads=num_threads,
        coverage={row.cell: row.count for row in coverage},
        missing=[row.cell for row in coverage if row.count < row.least],
        plateau=plateau_of(sites, parts, needs, equalization.factors()),
        equalization=equalization,
    )
    table = fitted_table(session, sites, found, needs, data)
    if not options.second_pass:
        return table
    again = second_pass(
        policy, table, plan.surveys, plan.samples, found, cameras=options.cameras, tell=tell
    )
    data = replace(data, second_pass=again.found)
    return fitted_table(session, sites, again.both, needs, data)


def _gram_sites(bundle: Path, plan: Plan, options: Options) -> tuple[str, ...]:
    """Return the inputs whose products of channels are counted."""
    if not options.gram_channels:
        return ()
    recipe = recipe_from_name(options.recipe)
    return gram_sites(bundle, plan.manifest, recipe, options.gram_channels)


def _threads(manifest: Manifest) -> int:
    """Return one thread for a small model, where a second waits more than it computes; else all."""
    num_bytes = sum(entry.num_bytes for entry in manifest.files.values())
    return 1 if num_bytes < _SMALL_BYTES else usable_cores()


def _met_counts(plan: Plan, found: Activations) -> Counter[str]:
    """Return what was planned, with all that the replay itself counted in its place."""
    kept = ("samples", "episodes", "split/", "phase/", "prompt/")
    counts = Counter({cell: n for cell, n in plan.counts.items() if cell.startswith(kept)})
    counts["samples"] = len(found.samples)
    for cell, number in found.counts.items():
        head, _, tail = cell.partition("/")
        if head != "frames":
            counts[cell] = number
            continue
        for fill in plan.fills:
            if fill.first <= int(tail) <= fill.last:
                counts[f"fill/{fill.name}"] += number
    return counts


def _check_chosen(recordings: Path, episodes: Sequence[Episode], chosen: Sequence[Episode]) -> None:
    """Refuse a split that leaves nothing to calibrate on."""
    if len(episodes) == 1:
        raise InputError(
            f"found one episode in {recordings}; expected at least three, and 20 for a good "
            "table: what calibrates must not judge; record more"
        )
    if not chosen:
        shares = ", ".join(f"{n} {split}" for split, n in count_by_split(episodes).items())
        raise InputError(
            f"{recordings}: found {len(episodes)} episodes, by lot {shares}; expected some for "
            "calibration: record more, or choose another --seed"
        )


def _limited(surveys: Sequence[Survey], max_fill: int | None) -> list[Survey]:
    """Return the episodes up to a memory fill."""
    if max_fill is None:
        return list(surveys)
    if max_fill < 1:
        raise InputError(f"found a memory fill of {max_fill}; expected at least 1 frame")
    return [
        Survey(
            episode=one.episode,
            instruction=one.instruction,
            num_frames=min(one.num_frames, max_fill),
            gripper_frames=one.gripper_frames,
        )
        for one in surveys
    ]


def _longest(episodes: Sequence[Episode], surveys: Sequence[Survey], steps_per_frame: int) -> int:
    """Return how many frames an episode of these tasks can get, by what any recording says."""
    said = [1 + one.recording.header.max_steps // steps_per_frame for one in episodes]
    return max([*said, *(one.num_frames for one in surveys)])
