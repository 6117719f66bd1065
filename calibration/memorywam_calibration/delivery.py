"""Delivery: recordings and a bundle in, a quantized bundle out that carries its judgement."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memorywam_calibration.calibrate import Calibration, Options, calibrated
from memorywam_calibration.episodes.episodes import Episode, episodes_in
from memorywam_calibration.episodes.held_out import (
    check_instructions,
    development_episodes,
    held_out_episodes,
)
from memorywam_calibration.judgement.judgement import JudgeOptions, judged
from memorywam_calibration.judgement.judgement_page import page_from_judgement
from memorywam_calibration.mixing.assignment import check_solver
from memorywam_calibration.mixing.mixing import MixOptions, check_budget, mixed
from memorywam_export.bundles.bundle_report import record_bundle_parity
from memorywam_export.parity.parity_report import Check
from memorywam_export.quantize.quantize import quantize_bundle
from memorywam_export.quantize.quantize_memory import check_window
from memorywam_export.recipes.recipes import Recipe, recipe_from_name
from memorywam_runtime.bundle import check_bundle, check_parity, open_bundle
from memorywam_runtime.files import atomic_directory, refuse_occupied
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.scale_table import ScaleTable

__all__ = ["Delivery", "delivered"]

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What came of it."""

    calibration: Calibration | None
    """None for a recipe of weights alone."""
    checks: list[Check]
    """Empty where coverage was missing: nothing was written then."""
    data: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Was a bundle written whose every check holds?"""
        return bool(self.checks) and all(check.ok for check in self.checks)


def delivered(
    bundle: Path,
    recordings: Path,
    out: Path,
    options: Options,
    judging: JudgeOptions,
    *,
    mixing: MixOptions | None = None,
    overwrite: bool = False,
    tell: Tell = lambda doing: None,
) -> Delivery:
    """Calibrate, quantize, judge, and write the bundle with its report; or write nothing.

    A bundle that fails a check is written too, for its page to be read: it opens only where that
    is asked for.

    Args:
        bundle: As exported.
        recordings: One recording, a data set, or a directory of recordings.
        out: Directory to write.
        options: Of the calibration.
        judging: Of the judgement.
        mixing: Under `mixed`, how a recipe is found for each product.
        overwrite: Replace a bundle that is there.
        tell: Called with what is at work.

    Raises:
        InputError: recordings or a bundle that do not fit, or a directory that is in use.
        BundleError: a damaged bundle, or one that failed its verification.
    """
    refuse_occupied(out, overwrite=overwrite)
    recipe = recipe_from_name(options.recipe)
    check_parity(bundle, check_bundle(bundle))
    if recipe.parts:
        check_budget(bundle, mixing or MixOptions())

    def ready(episodes: Sequence[Episode], manifest: Manifest) -> None:
        _check_ready(bundle, manifest, recipe, episodes, judging.instruction)

    calibration, table, episodes = _calibrated(bundle, recordings, recipe, options, ready, tell)
    if calibration is not None and table is None:
        return Delivery(calibration=calibration, checks=[], data={})
    held_out = held_out_episodes(episodes)
    mix = None
    if recipe.parts and table is not None:
        mix = mixed(bundle, table, episodes, mixing, tell)
        table = mix.table
    with atomic_directory(out, overwrite=overwrite) as draft:
        tell("quantizes")
        quantize_bundle(bundle, draft, recipe, table, overwrite=True)
        checks, data = judged(bundle, draft, held_out, judging, tell)
        passed = all(check.ok for check in checks)
        if mix is not None:
            data["mix"] = mix.data
        page = page_from_judgement(data, table)
        record_bundle_parity(draft, data, page, passed=passed)
    return Delivery(calibration=calibration, checks=checks, data=data)


def _check_ready(
    bundle: Path,
    manifest: Manifest,
    recipe: Recipe,
    episodes: Sequence[Episode],
    instruction: str | None,
) -> None:
    """Refuse what would fail after hours of replay, before it."""
    open_bundle(bundle, num_threads=1, spin=False, allow_unverified=True)
    judging = held_out_episodes(episodes)
    check_instructions(judging, manifest, instruction)
    if recipe.memory is not None:
        check_window(manifest, recipe)
    if recipe.parts:
        check_solver()
        check_instructions(development_episodes(episodes), manifest, instruction)


def _calibrated(
    bundle: Path,
    recordings: Path,
    recipe: Recipe,
    options: Options,
    ready: Callable[[Sequence[Episode], Manifest], None],
    tell: Tell,
) -> tuple[Calibration | None, ScaleTable | None, list[Episode]]:
    """Return the calibration and its table, where the recipe takes one, and all episodes."""
    if recipe.needs_table:
        # Where products get recipes of their own, all get scales first.
        first = recipe.parts[0] if recipe.parts else recipe.name
        found = calibrated(
            bundle,
            recordings,
            replace(options, recipe=first),
            tell,
            check=lambda plan: ready(plan.episodes, plan.manifest),
        )
        return found, found.table, found.plan.episodes
    manifest = check_bundle(bundle)
    episodes = episodes_in(
        recordings,
        manifest.contract,
        manifest.contract_hash,
        seed=options.seed,
        shares=options.shares,
    )
    ready(episodes, manifest)
    return None, None, episodes
