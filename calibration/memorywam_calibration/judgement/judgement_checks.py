"""What a quantized bundle may be off by, check by check, with where each limit comes from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from memorywam_calibration.judgement.chunk_error import ChunkErrors
from memorywam_calibration.judgement.narrow_bytes import NarrowBytes
from memorywam_calibration.judgement.tick_ratio import TickRatio
from memorywam_export.episodes.closed_loop import LARGEST_DIFFERENCE, TaskLoop, loop_verdict
from memorywam_export.parity.parity_report import Check
from memorywam_export.quantize.quantize_memory_bytes import MemoryBytes
from memorywam_export.quantize.quantize_report import FLOORS_DB, QuantizedTensor, suspects
from memorywam_runtime.manifest import QuantizationRecipe

__all__ = [
    "LIMITS",
    "Limits",
    "bytes_check",
    "chunk_checks",
    "is_waived_by_option",
    "loop_checks",
    "memory_check",
    "site_checks",
    "tick_check",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one recipe."""

    cosine: float
    """The median chunk's, at least."""
    p95: float
    """Of the differences of normalized actions, at most."""
    p99: float
    """Of any one joint's, at most."""
    bits: float
    """Of a quantized weight, at most, with its share of scales."""

    @property
    def drift_floor(self) -> float:
        """Return the relative RMS below which errors of a long episode are not told apart.

        A tenth of what the cosine allows: vectors of one length whose cosine is c differ by
        sqrt(2 - 2 c). A narrow window changes next to nothing before frames leave it, and growth
        from nothing is no drift.
        """
        return 0.1 * math.sqrt(2 - 2 * self.cosine)


_EIGHT = Limits(cosine=0.995, p95=0.1, p99=0.3, bits=9.0)
"""openpi-thor releases an engine in FP16 at a cosine of 0.995 and errors of at most 0.12, one in
FP8 or NVFP4 at 0.97 and 0.3; ApxInf one in INT8 at a relative error of 0.1. Here memory carries
errors on: 8 bits have FP16's cosine, and FP8's largest error bounds each joint's tail. A scale in
float32 for each output of 32 inputs, the narrowest layers that ship, takes a bit of each weight."""
_FOUR = Limits(cosine=0.97, p95=0.3, p99=0.9, bits=6.0)
"""The limits of NVFP4 there, and the same tail beside them as for 8 bits. A float32 scale for each
block of 16 inputs, the shortest, takes two bits of each weight."""
LIMITS: dict[QuantizationRecipe, Limits] = {
    "int8": _EIGHT,
    "fp8": _EIGHT,
    "int8-weight": _EIGHT,
    "int4-weight": _FOUR,
    "mixed": _EIGHT,
    "kv-int8": _EIGHT,
    "kv-fp8": _EIGHT,
}


_WAIVED = ("bits of a quantized weight", "tick at ")


def is_waived_by_option(check: Check) -> bool:
    """Is this one that `--allow-slower` lets fail: size and speed here, nothing of the actions?"""
    return check.what.startswith(_WAIVED)


def site_checks(found: Sequence[QuantizedTensor], recipe: QuantizationRecipe) -> list[Check]:
    """Judge the product that lost most, each fed the float graph's inputs."""
    if not found:
        return []
    under, worst = suspects(found, recipe), found[0]
    return [
        Check(
            rung=recipe,
            what="products one call long: SQNR, dB, at least",
            max_abs=worst.sqnr_db,
            tolerance=FLOORS_DB[recipe],
            worst=f"{worst.graph} {worst.name}; {len(under)} of {len(found)} are under",
            ok=not under,
        )
    ]


def chunk_checks(errors: ChunkErrors, recipe: QuantizationRecipe) -> list[Check]:
    """Judge chunks over held-out episodes."""
    limits = LIMITS[recipe]
    worst = max(errors.joints, key=lambda joint: joint.rms / max(joint.spread, 1e-12))
    told = (
        f"{errors.num_chunks} chunks; most beside its own spread: {worst.name}, {worst.rms:.2g} "
        f"{worst.unit} of {worst.spread:.2g}"
    )
    return [
        Check(
            rung=recipe,
            what="chunks: median cosine, at least",
            max_abs=errors.cosine_median,
            tolerance=limits.cosine,
            worst=f"5 % are below {errors.cosine_p5:.4f}",
            ok=errors.cosine_median >= limits.cosine,
        ),
        Check(
            rung=recipe,
            what="chunks: 95 % of normalized actions are off by at most",
            max_abs=errors.p95,
            tolerance=limits.p95,
            worst=told,
            ok=errors.p95 <= limits.p95,
        ),
        Check(
            rung=recipe,
            what="chunks: 99 % of any joint's normalized actions are off by at most",
            max_abs=errors.joint_p99,
            tolerance=limits.p99,
            worst=f"the largest of all {errors.max:.2g}",
            ok=errors.joint_p99 <= limits.p99,
        ),
    ]


def bytes_check(size: NarrowBytes, recipe: QuantizationRecipe, *, forced: bool) -> Check:
    """Judge whether the weights shrank as the recipe promises."""
    limit = LIMITS[recipe].bits
    is_small = 0 < size.bits <= limit and size.narrow < size.wide
    return Check(
        rung=recipe,
        what="bits of a quantized weight, with its share of scales",
        max_abs=size.bits,
        tolerance=limit,
        worst=f"all weights: {size.ratio:.3f} of {size.wide / 1e6:.1f} MB"
        + _forced(forced and not is_small),
        ok=is_small or forced,
    )


def memory_check(rows: Sequence[MemoryBytes], recipe: QuantizationRecipe) -> Check:
    """Judge whether memory shrank, at every length of an episode."""
    worst = max(rows, key=lambda one: one.share)
    told = ", ".join(f"{one.frames}: {one.share:.2f}" for one in rows)
    return Check(
        rung=recipe,
        what="memory, over that of the float bundle, below",
        max_abs=worst.share,
        tolerance=1.0,
        worst=f"by frames: {told}",
        ok=worst.share < 1,
    )


def tick_check(ticks: TickRatio, recipe: QuantizationRecipe, *, forced: bool) -> Check:
    """Judge whether the tick is slower than the float bundle's, on this machine."""
    return Check(
        rung=recipe,
        what=f"tick at {ticks.frames} frames, over the float bundle's, surely",
        max_abs=ticks.at_least,
        tolerance=max(ticks.noise, 1 / ticks.noise, 1.0),
        worst=f"{ticks.wide_ms:.2f} to {ticks.narrow_ms:.2f} ms on {ticks.num_threads} threads; "
        f"x{ticks.ratio:.2f} in the median" + _forced(forced and ticks.is_slower),
        ok=forced or not ticks.is_slower,
    )


def loop_checks(loops: Sequence[TaskLoop]) -> list[Check]:
    """Judge success in the simulator: more of it than the float bundle has is no fault."""
    return [
        Check(
            rung=loop.backend,
            what=f"closed loop: {loop.task}",
            max_abs=abs(loop.pairs.difference),
            tolerance=LARGEST_DIFFERENCE,
            worst=f"{why}; {len(loop.repairs)} repairs, {len(loop.regressions)} regressions",
            ok=ok or loop.pairs.difference > 0,
        )
        for loop in loops
        for ok, why in [loop_verdict(loop)]
    ]


def _forced(is_forced: bool) -> str:  # noqa: FBT001 - a word, or none
    """Return what is said of a check that was overruled."""
    return "; overruled by --allow-slower" if is_forced else ""
