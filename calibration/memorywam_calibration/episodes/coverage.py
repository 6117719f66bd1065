"""Coverage: which situations the decision points hold, which are missing, and whether they may."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from memorywam_calibration.episodes.episodes import Episode, count_by_split
from memorywam_calibration.episodes.needs import Needs
from memorywam_calibration.episodes.samples import FillCell, Sample
from memorywam_calibration.episodes.survey import PHASES, Survey
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest

__all__ = ["CoverageRow", "coverage_rows", "expected_cells", "planned_counts", "token_classes"]

_ALWAYS_FILL = ("1", "2", "filling", "first eviction", "8-15")
"""Stretches that every deployment goes through; a longer one counts if an episode may get there.
Keys calibrated on the first 4 frames alone were 14 to 18 dB worse than on 64."""
_NEVER_WAIVED = ("samples",)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageRow:
    """One cell of the coverage table."""

    cell: str
    count: int
    """Decision points that fall into it; of `samples` and `episodes` all of them."""
    least: int
    verdict: Literal["covered", "missing, allowed", "MISSING"]
    remark: str = ""

    @property
    def is_ok(self) -> bool:
        """Covered, or allowed to be missing."""
        return self.verdict != "MISSING"

    @property
    def row(self) -> tuple[object, ...]:
        """The row of a printed table."""
        return self.cell, self.count, self.least, self.verdict, self.remark


def token_classes(manifest: Manifest, fill: int) -> set[str]:
    """Return the classes of tokens that attention meets at a memory fill."""
    memory, ring = manifest.contract.memory, manifest.contract.num_ring_slots
    found = {"current", "action", "text"}
    if manifest.contract.conventions.vae_history == "single_frame":
        return found
    if memory.num_gists:
        found.add("gist")
    if memory.num_anchors and fill > 1:
        found.add("anchor")
    if fill > memory.num_anchors + 1 and ring > 1:
        found.add("recent")
    return found


def expected_cells(
    manifest: Manifest, fills: Sequence[FillCell], num_steps: int, prompts: Sequence[str]
) -> list[str]:
    """Return all cells of a table, in the order in which they are told.

    Args:
        manifest: The bundle's.
        fills: Stretches of memory fill.
        num_steps: Denoising steps of the deployed schedule.
        prompts: Instructions of the bundle, or the one that stands for all.
    """
    classes = [
        one
        for one in ("anchor", "recent", "gist", "current", "action", "text")
        if one in token_classes(manifest, manifest.memory.max_frames)
    ]
    return [
        "samples",
        "episodes",
        "split/development",
        "split/held_out",
        *(f"fill/{cell.name}" for cell in fills),
        *(f"step/{step:02d}" for step in range(num_steps)),
        *(f"token/{name}" for name in classes),
        *(f"phase/{phase}" for phase in PHASES),
        *(f"camera/{camera}" for camera in manifest.contract.observations.cameras),
        *(f"prompt/{text}" for text in prompts),
    ]


def planned_counts(
    samples: Sequence[Sample],
    surveys: Sequence[Survey],
    episodes: Sequence[Episode],
    manifest: Manifest,
    fills: Sequence[FillCell],
    num_steps: int,
) -> Counter[str]:
    """Count what decision points will hold, before anything is replayed."""
    by_name = {survey.episode.name: survey for survey in surveys}
    found = Counter[str](samples=len(samples), episodes=len({one.episode for one in samples}))
    for split, count in count_by_split(episodes).items():
        found[f"split/{split}"] = count
    for sample in samples:
        survey, fill = by_name[sample.episode], sample.frame + 1
        found.update(f"fill/{cell.name}" for cell in fills if cell.first <= fill <= cell.last)
        found.update(f"step/{step:02d}" for step in range(num_steps))
        found.update(f"token/{name}" for name in token_classes(manifest, fill))
        found.update(f"camera/{name}" for name in manifest.contract.observations.cameras)
        found.update([f"phase/{survey.phase(sample.frame)}", f"prompt/{survey.instruction}"])
    return found


def coverage_rows(
    cells: Sequence[str],
    counts: Mapping[str, int],
    needs: Needs,
    *,
    allowed: Sequence[str] = (),
    fills: Sequence[FillCell] = (),
    longest_frames: int = 1 << 30,
) -> list[CoverageRow]:
    """Judge every cell.

    Args:
        cells: From `expected_cells`.
        counts: From `planned_counts`, or of what was seen.
        needs: That says what may be missing.
        allowed: Cells that the user lets be missing besides, with * for any.
        fills: Stretches of memory fill.
        longest_frames: That an episode of these tasks can get, by what any recording says.

    Raises:
        InputError: `allowed` names no cell, or one that is never left out.
    """
    _check_allowed(cells, allowed)
    beyond = {
        f"fill/{cell.name}": cell.first
        for cell in fills
        if cell.first > longest_frames and cell.name not in _ALWAYS_FILL
    }
    rows = []
    for cell in cells:
        least = {"samples": needs.least_samples, "episodes": needs.least_episodes}.get(cell, 1)
        count = counts.get(cell, 0)
        remark = ""
        if count >= least:
            verdict: Literal["covered", "missing, allowed", "MISSING"] = "covered"
        elif cell in beyond:
            verdict, remark = "missing, allowed", f"episodes end at {longest_frames} frames"
        elif _matches(cell, allowed):
            verdict, remark = "missing, allowed", "by --allow-missing"
        elif _matches(cell, needs.may_be_missing):
            verdict, remark = "missing, allowed", f"by the recipe {needs.recipe}"
        else:
            verdict = "MISSING"
        rows.append(
            CoverageRow(cell=cell, count=count, least=least, verdict=verdict, remark=remark)
        )
    return rows


def _matches(cell: str, patterns: Sequence[str]) -> bool:
    """Is this cell one of those?"""
    return any(fnmatchcase(cell, pattern) for pattern in patterns)


def _check_allowed(cells: Sequence[str], allowed: Sequence[str]) -> None:
    """Refuse names that would change nothing, or too much."""
    for pattern in allowed:
        if not any(fnmatchcase(cell, pattern) for cell in cells):
            raise InputError(
                f"found '{pattern}' among the cells that may be missing; expected any of "
                f"{', '.join(cells)}"
            )
        if _matches(_NEVER_WAIVED[0], [pattern]):
            raise InputError(
                f"found '{pattern}' among the cells that may be missing, which lets the number of "
                "decision points be anything; expected cells besides 'samples': record more"
            )
