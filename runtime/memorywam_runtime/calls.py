"""The prepared calls of one session: every graph bound to the session's buffers."""

from collections.abc import Mapping

import numpy as np

from memorywam_runtime.backends import Array, Backend, Engine, Run
from memorywam_runtime.buffers import Buffers
from memorywam_runtime.inputs import HostInput
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.memory import Rows
from memorywam_runtime.schedule import euler_steps
from memorywam_runtime.tensors import TensorSpec
from memorywam_runtime.timing import Timings

__all__ = ["Calls"]


class Calls:
    """Binds graphs once, and those that read memory again when the gist bucket changes.

    The encoder's caches and the noisy actions exist twice, so that a call never reads what it
    writes; which of the two is current is the `turn`. Every denoising step has a call of its own,
    with its timestep in place: nothing is written between the steps of a chunk.
    """

    def __init__(
        self,
        manifest: Manifest,
        backend: Backend,
        engines: Mapping[str, Engine],
        buffers: Buffers,
        timings: Timings,
    ) -> None:
        self._manifest = manifest
        self._engines = engines
        self._buffers = buffers
        self._timings = timings
        self._in_place = manifest.cache_write == "in_place"
        self._inputs: dict[tuple[str, str], HostInput] = {}
        self.rows = Rows(manifest.contract)
        self.backend = backend
        self._new = {name: self._packed(name) for name in ("cache_update", "action_step")}
        self.state_kv = self._timed("state_kv", self._bind("state_kv"))
        self._encoders = self._encoder_paths()
        self.bind_memory()

    @property
    def num_frame_keys(self) -> int:
        """Rows that cache_update attends to."""
        return self._buffers.num_rows + (0 if self._in_place else self.rows.num_frame)

    @property
    def num_action_keys(self) -> int:
        """Rows that action_step attends to."""
        return self._buffers.num_rows + (0 if self._in_place else self.rows.num_actions)

    def bind_memory(self) -> None:
        """Bind the graphs that read memory to the current bucket."""
        self.memory = self._buffers.memory()
        self._arena = self._buffers.arena()
        self._inputs.clear()
        update = self._timed("cache_update", self._bind("cache_update"))
        self.updates = {
            path: self.backend.sequence([*runs, update]) for path, runs in self._encoders.items()
        }
        """Images in the encoder to a frame in its slot, by the encoder's path."""
        self._chunks: dict[int, Run] = {}
        self.chunk(self._manifest.contract.conventions.num_steps)
        if self.rows.num_history:
            clean = self._manifest.contract.conventions.clean_timestep
            self.store_actions = self._step("clean", clean, 0.0, turn=0)

    def chunk(self, num_steps: int) -> Run:
        """Return the call that denoises x0 in that many steps, prepared on the first request.

        The result is in `actions(num_steps)`.

        Raises:
            InputError: less than one step.
        """
        if num_steps not in self._chunks:
            timesteps, deltas = euler_steps(
                num_steps, self._manifest.contract.conventions.action_shift
            )
            steps = [
                self._step(f"{num_steps}.{step}", timesteps[step], deltas[step], turn=step % 2)
                for step in range(num_steps)
            ]
            self._chunks[num_steps] = self.backend.sequence(steps)
        return self._chunks[num_steps]

    def actions(self, num_steps: int) -> Array:
        """Return the tensor that holds a chunk after that many steps."""
        return self.tensor("action_step", "x" if num_steps % 2 == 0 else "x_next")

    def tensor(self, graph: str, name: str) -> Array:
        """Return the fixed tensor bound to one of a graph's inputs or outputs."""
        return self._fixed(graph, self._spec(graph, name), turn=0)

    def input(self, graph: str, name: str) -> HostInput:
        """Return an input that the host writes; looked up on the first request."""
        key = (graph, name)
        if key not in self._inputs:
            spec = self._spec(graph, name)
            self._inputs[key] = HostInput(self.backend, spec, self._fixed(graph, spec, turn=0))
        return self._inputs[key]

    def copy_rows(self, target: int, source: int, num_rows: int) -> None:
        """Copy rows of memory to other rows, in every layer at once."""
        self.backend.copy_rows(self._arena, target, self._arena, source, num_rows)

    def store(self, graph: str, row: int, num_rows: int) -> None:
        """Copy a graph's new rows into memory, where it did not write them itself."""
        new = self._new[graph]
        if new is not None:
            self.backend.copy_rows(self._arena, row, new, 0, num_rows)

    def _packed(self, graph: str) -> Array | None:
        """Lay a graph's new rows of all layers side by side; None if it writes in place."""
        outputs = self._manifest.graphs[graph].outputs
        specs = [spec for spec in outputs if spec.name.startswith("new.")]
        return self._buffers.pack(specs, prefix=graph) if specs else None

    def _encoder_paths(self) -> dict[str, list[Run]]:
        """Return the encoder's calls by path: first image, next group, or both in a window."""
        first = self._timed("vae_first", self._bind("vae_first", turn=1))
        paths = {"first": [first]}
        if "vae_step" in self._engines:
            steps = [self._timed("vae_step", self._bind("vae_step", turn=turn)) for turn in (0, 1)]
            paths |= {"step0": [steps[0]], "step1": [steps[1]], "window": [first, steps[0]]}
        return paths

    def _step(self, name: str, timestep: float, delta: float, turn: int) -> Run:
        """Return one Euler step whose timestep and length are constants."""
        constants = {}
        for key, value in (("timestep", timestep), ("delta", delta)):
            spec = self._spec("action_step", key)
            constants[key] = self._buffers.constant(spec, name=f"{key}.{name}")
            self.backend.write(constants[key], np.full_like(spec.zeros(), value))
        return self._timed("action_step", self._bind("action_step", turn=turn, given=constants))

    def _timed(self, stage: str, run: Run) -> Run:
        """Return the call with its span recorded, where a call returns when it is done."""
        return run if self.backend.is_async else self._timings.timed(stage, run)

    def _bind(self, graph: str, *, turn: int = 0, given: Mapping[str, Array] | None = None) -> Run:
        """Return a call of a graph on its buffers, or on those given by name."""
        entry, given = self._manifest.graphs[graph], given or {}
        inputs, outputs = (
            {
                s.name: given[s.name] if s.name in given else self._array(graph, bound, turn)
                for s, bound in ((s, self._bound(graph, s)) for s in specs)
            }
            for specs in (entry.inputs, entry.outputs)
        )
        return self._engines[graph].bind(inputs, outputs)

    def _array(self, graph: str, spec: TensorSpec, turn: int) -> Array:
        """Return memory, or a tensor of the graph's own, for an input or output."""
        if spec.name.startswith("memory"):
            return self.memory[spec.name.replace("memory_out.", "memory.", 1)]
        return self._fixed(graph, spec, turn)

    def _fixed(self, graph: str, spec: TensorSpec, turn: int) -> Array:
        """Return a tensor under the name that graphs share, or the graph's own name for it."""
        head, _, tail = spec.name.partition(".")
        match head:
            case "cache":
                return self._buffers.fixed(spec, name=f"vae_cache{turn}.{tail}")
            case "cache_out":
                return self._buffers.fixed(spec, name=f"vae_cache{1 - turn}.{tail}")
            case "x":
                return self._buffers.fixed(spec, name=f"x{turn}")
            case "x_next":
                return self._buffers.fixed(spec, name=f"x{1 - turn}")
            case "latent" | "video_text" | "action_text" | "video_state" | "action_state":
                return self._buffers.fixed(spec)
            case "visual_bias" | "gist_bias" | "key_bias":
                return self._buffers.fixed(spec, name=f"{graph}.{spec.name}.{spec.shape[-1]}")
            case _:
                return self._buffers.fixed(spec, name=f"{graph}.{spec.name}")

    def _bound(self, graph: str, spec: TensorSpec) -> TensorSpec:
        """Return a spec with the sizes of the current bucket."""
        keys = self.num_frame_keys if graph == "cache_update" else self.num_action_keys
        return spec.bound(rows=self._buffers.num_rows, keys=keys)

    def _spec(self, graph: str, name: str) -> TensorSpec:
        """Return the spec of an input or output, bound to the current bucket."""
        entry = self._manifest.graphs[graph]
        found = next(s for s in (*entry.inputs, *entry.outputs) if s.name == name)
        return self._bound(graph, found)
