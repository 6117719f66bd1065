"""The listener: hooks on the torch modules of a session, which hear what linear maps are given."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from memorywam_calibration.replay.activations import Activations, Rows
from memorywam_export.eager.eager import EagerEngine
from memorywam_runtime.errors import InputError
from memorywam_runtime.session import Session

__all__ = ["GRAPHS", "Listener", "class_of", "graph_module", "linear_maps"]

GRAPHS = ("cache_update", "action_step", "state_kv")
"""Those that are looked into: one writes memory, one is run for every denoising step, and one
makes keys and values of the joint state before a chunk."""


class Listener:
    """Hooks on a session's graphs: which graph runs, for which step, with what inputs."""

    def __init__(self, session: Session) -> None:
        self._contract = session.contract
        self._modules = {graph: graph_module(session, graph) for graph in GRAPHS}
        self._maps = [
            (graph, name, module)
            for graph in GRAPHS
            for name, module in linear_maps(session, graph).items()
        ]
        self._hooks: list[Any] = []
        self._part: Activations | None = None
        self._frame = 0
        self._graph = ""
        self._step = -1
        self._given_last: torch.Tensor | None = None
        self._groups: list[tuple[str, Rows]] = []
        self._is_chunk = False
        """The frame is in memory: action steps before are of actions that were executed."""

    def __enter__(self) -> "Listener":
        """Hang up the hooks."""
        for graph, module in self._modules.items():
            self._hooks += [
                module.register_forward_pre_hook(partial(self._begin, graph)),
                module.register_forward_hook(self._end),
            ]
        self._hooks += [
            # Before any other hook: what a map is given, and not what another makes of that.
            module.register_forward_pre_hook(partial(self._given, graph, name), prepend=True)
            for graph, name, module in self._maps
        ]
        return self

    def __exit__(self, *_: object) -> None:
        """Take them down."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @contextmanager
    def to(self, part: Activations | None, frame: int) -> Iterator[None]:
        """Count what the calls in the block are given; None counts nothing."""
        self._part, self._frame, self._step, self._is_chunk = part, frame, -1, False
        try:
            yield
        finally:
            self._part, self._graph, self._given_last = None, "", None

    def _begin(self, graph: str, _module: nn.Module, _inputs: tuple[Any, ...]) -> None:
        """Note which graph runs."""
        if self._part is None:
            return
        self._graph, self._given_last = graph, None
        if graph == "action_step" and self._is_chunk:
            self._step += 1
            self._part.counts[f"step/{self._step:02d}"] += 1

    def _end(self, _module: nn.Module, _inputs: tuple[Any, ...], _output: object) -> None:
        """Note that it is done."""
        self._is_chunk = self._is_chunk or self._graph == "cache_update"
        self._graph = ""

    def _given(self, graph: str, name: str, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Count what a linear map is given, [1, n, channels]."""
        if self._part is None or self._graph != graph:
            return
        if inputs[0] is not self._given_last:  # queries, keys and values are made of one tensor
            # A copy: the next call may write where this one lies.
            rows = inputs[0].detach().to(torch.float32, copy=True).flatten(0, -2).numpy()
            self._given_last, self._groups = inputs[0], list(self._grouped(rows))
        for group, some in self._groups:
            self._part.add(f"{graph}/{name}:input", some, group)

    def _grouped(self, rows: Rows) -> Iterator[tuple[str, Rows]]:
        """Tell apart a frame's tokens by what they will be in memory, and actions by step."""
        if self._graph == "action_step":
            yield (f"step/{self._step:02d}" if self._is_chunk else "executed"), rows
            return
        if self._graph == "state_kv":
            yield "state", rows
            return
        visual = self._contract.num_visual
        yield class_of(self._contract.memory.num_anchors, self._frame), rows[:visual]
        if len(rows) > visual:
            yield "gist", rows[visual:]


def linear_maps(session: Session, graph: str) -> dict[str, nn.Linear]:
    """Return the linear maps of a graph by the names of their weights, less `.weight`.

    Raises:
        InputError: a session that torch does not run.
    """
    return {
        _weight_name(name): module
        for name, module in graph_module(session, graph).named_modules()
        if isinstance(module, nn.Linear)
    }


def _weight_name(name: str) -> str:
    """Return what the weights file calls a map: a graph holds the whole model, or an expert."""
    inside = name.removeprefix("model.")
    return inside if inside != name else f"mixtures.{name}"


def graph_module(session: Session, graph: str) -> nn.Module:
    """Return the torch module that runs a graph.

    Raises:
        InputError: a session that torch does not run.
    """
    engine = session.engines[graph]
    if not isinstance(engine, EagerEngine):
        raise InputError(
            f"found graph '{graph}' on the backend '{session.backend.name}'; expected 'eager': "
            "only torch shows what is inside a graph"
        )
    return engine.module


def class_of(num_anchors: int, frame: int) -> str:
    """Return what a frame's visual tokens are in memory."""
    return "anchor" if frame < num_anchors else "recent"
