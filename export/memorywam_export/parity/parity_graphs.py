"""One graph at a time, fed with fixed numbers on any backend: what parity compares call by call."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memorywam_export.parity.trace_report import Array, Tensors
from memorywam_runtime.backends import Array as DeviceArray
from memorywam_runtime.backends import Backend, Engine
from memorywam_runtime.manifest import GraphEntry, Manifest
from memorywam_runtime.schedule import euler_steps
from memorywam_runtime.session import Session
from memorywam_runtime.tensors import DType, TensorSpec, decoded, encoded

__all__ = [
    "Script",
    "context_rows",
    "engine_outputs",
    "graph_inputs",
    "graph_outputs",
    "kept_type",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What every rung is fed: one episode of random pictures, states, noise and actions."""

    pixels: list[NDArray[np.float32]]
    """One [1, 3, T, H, W] a frame."""
    states: NDArray[np.float32]
    noise: NDArray[np.float32]
    executed: NDArray[np.float32]
    """[frames, horizon, action_dim], as `noise`; used where actions are kept."""
    other_noise: NDArray[np.float32]
    context: NDArray[np.float32]
    """[1, text_len, text_dim]; rows past the prompt are zero."""
    num_tokens: int
    """Rows of it that are the prompt."""
    other_context: NDArray[np.float32]
    """Of another instruction with as many."""

    def first(self, count: int) -> "Script":
        """Return the first frames alone."""
        return replace(
            self,
            pixels=self.pixels[:count],
            states=self.states[:count],
            noise=self.noise[:count],
            executed=self.executed[:count],
        )


def graph_inputs(session: Session, script: Script, manifest: Manifest) -> dict[str, Tensors]:
    """Return inputs of every graph of the bundle: those of a session at the episode's end.

    They are rounded to the bundle's types, so that every rung gets the same numbers.
    """
    rows, horizon = session.buffers.num_rows, session.contract.actions.horizon
    conventions = session.contract.conventions
    timesteps, deltas = euler_steps(conventions.num_steps, conventions.action_shift)
    bias = np.empty(rows + horizon + session.memory.rows.num_window)
    session.memory.action_bias(rows, bias)
    step = len(timesteps) // 2
    timestep = timesteps[step : step + 1]
    chosen: dict[str, Tensors] = {
        "prompt_kv": {"context": context_rows(session, script.context)},
        "action_modulation": {"timestep": timestep},
        "action_step": {
            "x": script.noise[-1:],
            "timestep": timestep,
            "delta": deltas[step : step + 1],
        },
        "action_denoise": {
            "noise": script.noise[-1:],
            "timesteps": timesteps,
            "deltas": deltas,
            "key_bias": bias.reshape(1, 1, 1, -1),
            **{n: session.calls.tensor("action_step", n) for n in ("rope_cos", "rope_sin")},
        },
    }
    if "action_modulation" in manifest.graphs:
        each = [
            graph_outputs(session, "action_modulation", {"timestep": timesteps[s : s + 1]})
            for s in range(len(timesteps))
        ]
        chosen["action_step"] |= each[step]
        chosen["action_denoise"]["modulations"] = np.concatenate([e["modulation"] for e in each])
    inputs: dict[str, Tensors] = {}
    for graph, entry in manifest.graphs.items():
        inputs[graph] = {}
        for spec in entry.inputs:
            value = chosen.get(graph, {}).get(spec.name)
            if value is None and spec.name.startswith("memory."):
                value = session.backend.read(session.calls.memory[spec.name])
            elif value is None:
                kept = "action_step" if graph == "action_denoise" else graph
                value = session.backend.read(session.calls.tensor(kept, spec.name))
            inputs[graph][spec.name] = decoded(encoded(value, spec.dtype), spec.dtype)
    return inputs


def graph_outputs(session: Session, graph: str, inputs: Mapping[str, Array]) -> Tensors:
    """Return the outputs of one call of a graph, in arrays of its own."""
    entry, backend = session.manifest.graphs[graph], session.backend
    engine = backend.load((session.root or Path()) / entry.file, entry)
    return engine_outputs(backend, engine, entry, inputs)


def engine_outputs(
    backend: Backend, engine: Engine, entry: GraphEntry, inputs: Mapping[str, Array]
) -> Tensors:
    """Return the outputs of one call of an engine, in arrays of its own.

    Args:
        backend: Of the engine.
        engine: Of the graph.
        entry: Its inputs and outputs.
        inputs: Numbers by name, rounded here to the graph's types.
    """
    given = {s.name: encoded(inputs[s.name], s.dtype) for s in entry.inputs}
    shapes = [
        (size, n)
        for s in entry.inputs
        for size, n in zip(s.shape, given[s.name].shape, strict=True)
    ]
    sizes = {size: n for size, n in shapes if isinstance(size, str)}

    def made(spec: TensorSpec) -> DeviceArray:
        bound = spec.bound(**sizes)
        return backend.view(backend.flat(math.prod(bound.fixed_shape), bound), bound)

    placed = {spec.name: made(spec) for spec in entry.inputs}
    for name, values in given.items():
        backend.write(placed[name], values)
    # What is written in place is one tensor, bound as input and output.
    outputs = {
        spec.name: placed.get(spec.name.replace("memory_out.", "memory.", 1))
        if spec.name.startswith("memory_out.")
        else made(spec)
        for spec in entry.outputs
    }
    engine.bind(placed, outputs)()
    return {s.name: decoded(backend.read(outputs[s.name]), s.dtype) for s in entry.outputs}


def kept_type(session: Session) -> DType:
    """Return the type of latents, keys and values."""
    latent = next(s for s in session.manifest.graphs["cache_update"].inputs if s.name == "latent")
    return latent.dtype


def context_rows(session: Session, context: Array) -> Array:
    """Return a context with as many rows as the session's graphs take."""
    (spec,) = session.manifest.graphs["prompt_kv"].inputs
    return context[:, : spec.fixed_shape[1]]
