"""Whether a device is fast enough for a robot: delay, cycle and load, before anything moves."""

import math
from dataclasses import dataclass

from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import InputError

__all__ = ["Load", "LoadRules", "load_from_measured", "steps_of_busy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRules:
    """Numbers by which a device is judged."""

    most: float = 0.7
    """Share of the time in which the device computes; above it queues grow without end."""
    longest_bridge_ms: float = 250.0
    """For so long the arms may stand at the last action where two chunks meet, if a chunk does not
    reach beyond the next frame: choice, a quarter of the pause that the eye takes for a stop."""
    margin: float = 1.25
    """Measured times are multiplied by this: later frames are dearer than the first; choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one chunk costs on this device, in environment steps."""

    remember_ms: float
    """One frame into memory, measured."""
    act_ms: float
    """One chunk, measured."""
    step_ms: float
    """One environment step."""
    steps_per_frame: int
    horizon: int
    num_delayed: int
    """d: steps from a complete observation to the first action of its chunk."""
    num_executed: int
    """s: steps from one chunk to the next: chunks are asked for where frames are complete, for a
    model is not trained to act on a memory that is older than its joint state."""
    num_bridged: int
    """Steps of each chunk in which the last action stays in force, as no chunk reaches there."""
    share: float
    """Of the time in which the device computes."""
    margin: float
    """By which measured times were multiplied."""
    most_delayed: int
    """Greatest d that would not have been refused, s being what it is."""

    @property
    def bridge_ms(self) -> float:
        """Return how long the arms stand at each seam."""
        return self.num_bridged * self.step_ms

    @property
    def headroom(self) -> float:
        """Return what is left below the load that is refused."""
        return LoadRules().most - self.share

    def sentence(self) -> str:
        """Return it in words."""
        bridge = f", {self.bridge_ms:.0f} ms of them at the last action" if self.num_bridged else ""
        return (
            f"remember {self.remember_ms:.0f} + act {self.act_ms:.0f} ms = {self.num_delayed} of "
            f"{self.num_executed} steps of {self.step_ms:.0f} ms{bridge}; load {self.share:.0%}"
        )


def load_from_measured(
    contract: InferenceContract,
    *,
    remember_ms: float,
    act_ms: float,
    rules: LoadRules | None = None,
) -> Load:
    """Return the cycle that a device can keep: d <= s <= H - d, and the load.

    Where the horizon ends at the next frame, s = H leaves no room for d: then the last action is
    held for d steps, if that is short enough.

    Args:
        contract: Rates and sizes.
        remember_ms: One frame into memory on this device.
        act_ms: One chunk.
        rules: What is too much.

    Raises:
        InputError: it cannot keep up; with the numbers, and what to do.
    """
    rules = rules or LoadRules()
    step_ms = 1000 / contract.observations.control_hz
    every, horizon = contract.steps_per_frame, contract.actions.horizon
    if contract.conventions.vae_history == "single_frame":
        every = horizon
    busy_ms = (remember_ms + act_ms) * rules.margin
    delayed = steps_of_busy(busy_ms, step_ms)
    most = max(every, (horizon - delayed) // every * every)
    bridged = max(0, most + delayed - horizon)
    share = rules.margin * (remember_ms / every + act_ms / most) / step_ms
    load = Load(
        remember_ms=remember_ms,
        act_ms=act_ms,
        step_ms=step_ms,
        steps_per_frame=every,
        horizon=horizon,
        num_delayed=delayed,
        num_executed=most,
        num_bridged=bridged,
        share=share,
        margin=rules.margin,
        most_delayed=min(most, horizon - most + int(rules.longest_bridge_ms / step_ms + 1e-9)),
    )
    if complaint := _complaint(load, rules):
        raise InputError(complaint)
    return load


def steps_of_busy(busy_ms: float, step_ms: float) -> int:
    """Return how many steps of the arms begin while the device computes; 1 at least."""
    # 60 ms is 59.99999999999999 by way of its rate, and simulated time is of whole nanoseconds:
    # what fits exactly is not one step more.
    return max(1, math.ceil(busy_ms / step_ms - 1e-6))


def _complaint(load: Load, rules: LoadRules) -> str:
    """Return why a device cannot keep up, and what to do; empty if it can."""
    most, horizon = load.num_executed, load.horizon
    remedy = "use fewer denoising steps, a faster backend or precision, or run without --async"
    if most > horizon:
        return (
            f"a chunk has {horizon} actions and frames are {load.steps_per_frame} steps apart; "
            "expected chunks that reach from frame to frame"
        )
    if load.num_delayed > most:
        return f"{load.sentence()}; expected at most {most} steps of delay: {remedy}"
    if load.bridge_ms > rules.longest_bridge_ms:
        return (
            f"{load.sentence()}; expected the arms to stand for at most "
            f"{rules.longest_bridge_ms:.0f} ms at a seam: {remedy}"
        )
    if load.share > rules.most:
        return f"{load.sentence()}; expected a load of at most {rules.most:.0%}: {remedy}"
    return ""
