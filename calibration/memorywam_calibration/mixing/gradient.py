"""Gradient scores: what rounding a product does to the actions, to first order, all at once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from memorywam_calibration.mixing.sensitivity import CANDIDATES, Point
from memorywam_calibration.replay.emulation import Emulation
from memorywam_calibration.replay.listener import graph_module, linear_maps
from memorywam_export.episodes import drift
from memorywam_runtime.scale_table import ScaleTable
from memorywam_runtime.session import Session

__all__ = ["gradient_scores"]

_GRAPHS = ("cache_update", "state_kv", "action_step")


def gradient_scores(
    session: Session,
    table: ScaleTable,
    names: Sequence[str],
    points: Sequence[Point],
    *,
    candidates: Sequence[str] = CANDIDATES,
    seed: int = 0,
    tell: Callable[[str], None] = lambda doing: None,
) -> dict[tuple[str, str], float]:
    """Return a score for every product and recipe: root mean square of the actions' change.

    A chunk is differentiated through all its steps and, by the keys and values of the newest frame,
    through that frame: one hop of memory. At each action stands a random sign (Rademacher), whose
    square in the mean is the sum of squares over actions. What rounding changes of a product's
    output, times the gradient there, summed over all calls, is how much that moves.

    Args:
        session: That torch runs.
        table: Scales of inputs.
        names: Weights, less `.weight`.
        points: From `decision_points`.
        candidates: Recipes.
        seed: Of the signs.
        tell: Called with what is at work.
    """
    emulation = Emulation(session, table)
    generator = torch.Generator().manual_seed(seed)
    squares: dict[tuple[str, str], list[float]] = {}
    for number, point in enumerate(points):
        tell(f"differentiates decision point {number + 1} of {len(points)}")
        met = _differentiated(session, point, generator)
        for name in names:
            for recipe in (one for one in candidates if emulation.can(name, one)):
                moved = sum(_moved(emulation, recipe, one) for one in met if one.name == name)
                squares.setdefault((name, recipe), []).append(moved**2)
    actions = session.contract.actions
    size = actions.horizon * actions.action_dim
    return {key: float(np.sqrt(np.mean(found) / size)) for key, found in squares.items()}


@dataclass(slots=True, kw_only=True)
class _Met:
    """One call of a linear map."""

    graph: str
    name: str
    module: nn.Linear
    given: torch.Tensor
    made: torch.Tensor


@dataclass(slots=True)
class _Calls:
    """What the graphs were called with: copies, since a session writes its inputs again."""

    frame: tuple[Any, ...] = ()
    state: tuple[Any, ...] = ()
    steps: list[tuple[Any, ...]] = field(default_factory=list[Any])


def _moved(emulation: Emulation, recipe: str, met: _Met) -> float:
    """Return how far the sum of signs moves when one call is rounded."""
    grad = met.made.grad
    if grad is None:  # nothing after it reads what it made
        return 0.0
    with torch.no_grad():
        delta = emulation.rounded(met.graph, met.name, recipe, met.given) - met.made
        return float((grad * delta).sum())


def _differentiated(session: Session, point: Point, generator: torch.Generator) -> list[_Met]:
    """Run a decision point with gradients; return every call of a linear map with its own."""
    calls = _recorded(session, point)
    modules = {graph: graph_module(session, graph) for graph in _GRAPHS}
    with _meeting(session) as met, torch.enable_grad():
        made = modules["cache_update"](*_live(calls.frame))
        state = list(modules["state_kv"](*calls.state))
        x = calls.steps[0][0]
        for *single, memory, text, old in calls.steps:
            now = _with_frame(session, memory, made)
            x = modules["action_step"](x, *single[1:], now, text, state if old else old)[0]
        signs = torch.randint(0, 2, x.shape, generator=generator).to(x.dtype) * 2 - 1
        (x * signs).sum().backward()
    return met


def _recorded(session: Session, point: Point) -> _Calls:
    """Remember the point's frame and make a chunk; return what the two graphs were given."""
    calls = _Calls()

    def note(graph: str, _module: nn.Module, given: tuple[Any, ...]) -> None:
        if graph == "cache_update":
            calls.frame = _live(given)
        elif graph == "state_kv":
            calls.state = _live(given)
        else:
            calls.steps.append(_live(given))

    hooks = [
        graph_module(session, graph).register_forward_pre_hook(partial(note, graph))
        for graph in _GRAPHS
    ]
    try:
        session.restore(point.start)
        drift.remember(session, point.frame, point.before)
        # Actions that were executed, where they are kept, are steps before the chunk's.
        calls.steps = []
        session.denoise(point.frame.noise[0])
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _live(given: Sequence[Any]) -> tuple[Any, ...]:
    """Return copies of tensors and of lists of tensors."""
    return tuple(
        [each.clone() for each in one] if isinstance(one, list) else one.clone() for one in given
    )


def _with_frame(
    session: Session, memory: Sequence[torch.Tensor], made: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Return memory as a chunk reads it, with the newest frame's rows as they were made."""
    rows, frame = session.memory.rows, session.memory.num_frames - 1
    slot = rows.slot(session.memory.slot_of(frame))
    gist = rows.gist(session.memory.gist_place(frame))
    found = []
    for old, new in zip(memory, made, strict=True):
        if session.manifest.cache_write == "in_place":
            own = new[:, :, slot : slot + rows.num_frame]
        else:
            own = new[:, :, : rows.num_frame]
        whole = old.clone()
        whole[:, :, slot : slot + rows.num_frame] = own
        if rows.num_gists:
            whole[:, :, gist : gist + rows.num_gists] = own[:, :, rows.num_visual :]
        found.append(whole)
    return found


@contextmanager
def _meeting(session: Session) -> Iterator[list[_Met]]:
    """Note every call of a linear map in the block, its output with a gradient to come."""
    met: list[_Met] = []
    running = ""

    def begin(graph: str, _module: nn.Module, _given: tuple[Any, ...]) -> None:
        nonlocal running
        running = graph

    def note(
        graph: str, name: str, module: nn.Linear, given: tuple[Any, ...], made: torch.Tensor
    ) -> torch.Tensor:
        if running != graph:
            return made
        kept = made if made.requires_grad else made.requires_grad_()
        kept.retain_grad()
        one = _Met(graph=graph, name=name, module=module, given=given[0].detach(), made=kept)
        met.append(one)
        return kept

    hooks: list[Any] = []
    for graph in _GRAPHS:
        hooks.append(graph_module(session, graph).register_forward_pre_hook(partial(begin, graph)))
        for name, module in linear_maps(session, graph).items():
            hooks.append(module.register_forward_hook(partial(note, graph, name)))
    try:
        yield met
    finally:
        for hook in hooks:
            hook.remove()
