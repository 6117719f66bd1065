"""Second pass: the same decision points once more, through quantized memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from memorywam_calibration.episodes.samples import Sample
from memorywam_calibration.episodes.survey import Survey
from memorywam_calibration.replay.activations import Activations
from memorywam_calibration.replay.emulation import Emulation
from memorywam_calibration.replay.narrow_memory import NarrowMemory
from memorywam_calibration.replay.replay import replayed
from memorywam_export.quantize.quantize_memory import memory_entries
from memorywam_export.recipes.recipes import recipe_from_name
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.policy import Policy
from memorywam_runtime.scale_table import ScaleTable, SecondPassEntry
from memorywam_runtime.session import Session

__all__ = ["SecondPass", "second_pass"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondPass:
    """What quantization makes of its own inputs along the recurrence."""

    both: Activations
    """Statistics of both passes, under the decision points of the first."""
    found: SecondPassEntry


def second_pass(
    policy: Policy,
    table: ScaleTable,
    surveys: Sequence[Survey],
    samples: Sequence[Sample],
    first: Activations,
    *,
    cameras: Mapping[str, str] | None = None,
    tell: Callable[[str], None] = lambda doing: None,
) -> SecondPass:
    """Replay with every product, or the window of memory, rounded as the table says; merge all.

    In the first pass memory is what the float model writes and reads. Here each frame is computed
    from keys and values that rounded products wrote, or that the window keeps narrow, and ranges
    that grow along the way are seen. It runs in this process, whoever ran the first.

    Args:
        policy: That torch runs; reset here, and unrounded afterwards.
        table: Fitted to the first pass.
        surveys: Of the first pass.
        samples: Of the first pass.
        first: What it saw.
        cameras: The contract's camera to the recording's name for it, where they differ.
        tell: Called with what is at work.
    """
    with _rounding(policy.session, table) as before_frame:
        (second,) = replayed(
            policy,
            surveys,
            samples,
            cameras=cameras,
            before_frame=before_frame,
            tell=lambda doing: tell(f"second pass: {doing}"),
        )
    both = Activations()
    both.samples, both.counts = first.samples, first.counts
    for site, seen in first.sites.items():
        again = second.sites.get(site)
        both.sites[site] = seen if again is None else seen.merged(again)
    if recipe_from_name(table.recipe).memory is None:
        grown = _growth(first, second, table)
    else:
        grown = _memory_growth(both, table, policy.session.manifest)
    worst = max(sorted(grown), key=lambda site: grown[site], default="")
    return SecondPass(
        both=both,
        found=SecondPassEntry(
            worst_growth=grown.get(worst, 1.0),
            worst_site=worst,
            num_grown=sum(ratio > 1 for ratio in grown.values()),
            num_sites=len(grown),
        ),
    )


@contextmanager
def _rounding(session: Session, table: ScaleTable) -> Iterator[Callable[[], None]]:
    """Round in the block what the table's recipe does; yield what to call before each frame."""
    if recipe_from_name(table.recipe).memory is not None:
        yield NarrowMemory(session, table).age
        return
    emulation = Emulation(session, table)
    names = {key.partition("/")[2].removesuffix(":weight") for key in table.entries}
    chosen = {name: table.recipe for name in names if emulation.can(name, table.recipe)}
    with emulation.of(chosen):
        yield lambda: None


def _growth(first: Activations, second: Activations, table: ScaleTable) -> dict[str, float]:
    """Return the largest value of each quantized activation over that of the first pass."""
    return {
        site: second.sites[site].absmax / seen.absmax
        for site, seen in first.sites.items()
        if site in second.sites and seen.absmax > 0 and site in table.entries
    }


def _memory_growth(both: Activations, table: ScaleTable, manifest: Manifest) -> dict[str, float]:
    """Return, of keys and values, the most that a channel's scale grew by what both passes saw."""
    recipe, growth = recipe_from_name(table.recipe), {}
    for site, old in table.entries.items():
        held = {site: both.sites[site].channel_absmax}
        new = memory_entries(held, recipe, manifest, old.observer)[site]
        growth[site] = max(b / a for a, b in zip(old.scales, new.scales, strict=True))
    return growth
