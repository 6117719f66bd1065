"""The prepared calls of one session: every graph bound to the session's buffers."""

from collections.abc import Mapping

from memorywam_runtime.backends import Array, Backend, Engine, Run
from memorywam_runtime.buffers import Buffers
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.memory import Rows
from memorywam_runtime.tensors import TensorSpec

__all__ = ["Calls"]


class Calls:
    """Binds graphs once, and those that read memory again when the gist bucket changes.

    The encoder's caches and the noisy actions exist twice, so that a call never reads what it
    writes; which of the two is current is the `turn`.
    """

    def __init__(
        self, manifest: Manifest, backend: Backend, engines: Mapping[str, Engine], buffers: Buffers
    ) -> None:
        self._manifest = manifest
        self._engines = engines
        self._buffers = buffers
        self._in_place = manifest.cache_write == "in_place"
        self.rows = Rows(manifest.contract)
        self.backend = backend
        self.vae_first = self._bind("vae_first", turn=1)
        self.vae_step: tuple[Run, ...] = ()
        if "vae_step" in engines:
            self.vae_step = (self._bind("vae_step", turn=0), self._bind("vae_step", turn=1))
        self.state_kv = self._bind("state_kv")
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
        self.cache_update = self._bind("cache_update", keys=self.num_frame_keys)
        self.action_step = tuple(
            self._bind("action_step", keys=self.num_action_keys, turn=turn) for turn in (0, 1)
        )

    def tensor(self, graph: str, name: str) -> Array:
        """Return the fixed tensor bound to one of a graph's inputs or outputs."""
        return self._fixed(graph, self._spec(graph, name), turn=0)

    def new_rows(self, graph: str) -> list[tuple[Array, Array]]:
        """Return (memory tensor, new rows) per layer and part of a graph that does not write."""
        return [
            (
                self.memory[spec.name.replace("new.", "memory.", 1)],
                self._fixed(graph, spec, turn=0),
            )
            for spec in self._manifest.graphs[graph].outputs
            if spec.name.startswith("new.")
        ]

    def _bind(self, graph: str, *, keys: int = 0, turn: int = 0) -> Run:
        """Return a call of a graph on its buffers."""
        entry = self._manifest.graphs[graph]
        sizes = {"rows": self._buffers.num_rows, "keys": keys}
        inputs = {s.name: self._array(graph, s.bound(**sizes), turn) for s in entry.inputs}
        outputs = {s.name: self._array(graph, s.bound(**sizes), turn) for s in entry.outputs}
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

    def _spec(self, graph: str, name: str) -> TensorSpec:
        """Return the spec of an input or output, bound to the current bucket."""
        entry = self._manifest.graphs[graph]
        keys = self.num_frame_keys if graph == "cache_update" else self.num_action_keys
        found = next(s for s in (*entry.inputs, *entry.outputs) if s.name == name)
        return found.bound(rows=self._buffers.num_rows, keys=keys)
