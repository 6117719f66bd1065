"""A session: engines, buffers and memory, alive; reset, remember a frame, denoise a chunk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.backends import Array, Backend, Engine
from memorywam_runtime.buffers import Buffers
from memorywam_runtime.calls import Calls
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.memory import Memory, Visible
from memorywam_runtime.positions import Positions
from memorywam_runtime.schedule import euler_steps
from memorywam_runtime.snapshot import SessionSnapshot
from memorywam_runtime.tensors import TensorSpec, check_names, storage_dtype
from memorywam_runtime.timing import Timings

__all__ = ["STAGES", "Session"]

STAGES = ("vae_first", "vae_step", "cache_update", "state_kv", "action_step", "chunk")


class Session:
    """Runs a bundle's graphs on tensors in the model's units; `Policy` adds the robot's.

    Not for several threads at once.
    """

    def __init__(
        self,
        manifest: Manifest,
        backend: Backend,
        engines: Mapping[str, Engine],
        *,
        root: Path | None = None,
        visible: Visible | None = None,
    ) -> None:
        """Allocate every buffer and bind every graph.

        Args:
            manifest: What the engines promise.
            backend: Where tensors live.
            engines: One per graph of the manifest that the session uses.
            root: The bundle's directory, where prompts are read from.
            visible: Parts of memory to hide, for ablations.
        """
        self.manifest = manifest
        self.root = root
        self.contract = manifest.contract
        self.backend = backend
        plan = manifest.memory
        self.memory = Memory(
            self.contract, max_frames=plan.max_frames, on_full=plan.on_full, visible=visible
        )
        self.buffers = Buffers(manifest, backend)
        self.calls = Calls(manifest, backend, engines, self.buffers)
        self.timings = Timings(STAGES)
        self._positions = Positions(self.contract)
        self._in_place = manifest.cache_write == "in_place"
        self._turn = 0
        self._has_state = False
        self.reset()

    def reset(self, text: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Forget everything; afterwards the session is bit-equal to a new one.

        Args:
            text: The instruction's keys and values by name (`video_text.00.k`, ...); without
                them the prompt is empty until `set_text`.
        """
        self.memory.reset()
        self.buffers.reset()
        self.calls.bind_memory()
        self._turn = 0
        self._has_state = False
        if text is not None:
            self.set_text(text)

    def set_text(self, text: Mapping[str, NDArray[Any]]) -> None:
        """Take over an instruction's keys and values; memory stays as it is.

        Raises:
            InputError: a name or shape that is not the contract's.
        """
        specs = {spec.name: spec for spec in self.manifest.graphs["prompt_kv"].outputs}
        check_names(text, specs, "an instruction's keys and values")
        for name, spec in specs.items():
            spec.validate(text[name])
        for name, spec in specs.items():
            self.backend.write(self.buffers.fixed(spec), text[name])

    def set_state(self, state: NDArray[np.floating]) -> None:
        """Make the cross-attention keys of a normalized joint state [state_dim]."""
        self._write("state_kv", "state", np.asarray(state).reshape(1, -1))
        with self.timings.span("state_kv"):
            self.calls.state_kv()
        self._has_state = True

    def remember(
        self,
        pixels: NDArray[np.floating],
        executed: NDArray[np.floating] | None = None,
        state: NDArray[np.floating] | None = None,
    ) -> int:
        """Encode images to a latent frame and write its keys and values to memory.

        Args:
            pixels: [1, 3, T, H, W] in [-1, 1]: one image at first, then a whole group.
            executed: With action history, the normalized actions [horizon, action_dim] executed
                since the last frame.
            state: Where the video sees the joint state, the normalized one of this frame; the
                executed actions still belong to the one before.

        Returns:
            The frame's number.

        Raises:
            InputError: a wrong count of images, or actions where none are kept; memory is as it
                was.
            CapacityError: the gist table is full; memory is as it was.
        """
        single = self.contract.conventions.vae_history == "single_frame"
        self.check_images(pixels)
        if single:
            self.memory.reset()
        self.memory.check_capacity()
        if executed is not None:
            self._remember_actions(executed)
        if state is not None:
            self.set_state(state)
        if self.memory.rows.num_gists and self.memory.num_frames == self.buffers.capacity:
            self._grow()
        if self.memory.num_frames == 0 or single:
            self._write("vae_first", "image", pixels)
            with self.timings.span("vae_first"):
                self.calls.vae_first()
            self._turn = 0
            self._keep_last_image(pixels)
        else:
            self._step_encoder(pixels)
        self._update()
        return self.memory.num_frames - 1

    def check_images(self, pixels: NDArray[np.floating]) -> None:
        """Refuse a wrong count, size or type of images.

        Raises:
            InputError: saying what the next frame takes.
        """
        first = self.memory.num_frames == 0 or "vae_step" not in self.manifest.graphs
        graph, name = ("vae_first", "image") if first else ("vae_step", "images")
        specs = self.manifest.graphs[graph].inputs
        next(spec for spec in specs if spec.name == name).validate(pixels)

    def denoise(
        self, noise: NDArray[np.floating], num_steps: int | None = None
    ) -> NDArray[np.float32]:
        """Return a chunk of normalized actions [horizon, action_dim] after the newest frame.

        Args:
            noise: Standard normal [horizon, action_dim].
            num_steps: Euler steps; the contract's by default.

        Raises:
            InputError: no frame or no state yet, or a wrong shape.
        """
        if self.memory.num_frames == 0 or not self._has_state:
            missing = "frame" if self.memory.num_frames == 0 else "joint state"
            raise InputError(f"nothing to act on: no {missing} since reset; remember a frame first")
        conventions = self.contract.conventions
        count = conventions.num_steps if num_steps is None else num_steps
        timesteps, deltas = euler_steps(count, conventions.action_shift)
        with self.timings.span("chunk"):
            self._prepare_chunk(self.memory.rows.chunk)
            self._write("action_step", "x", np.asarray(noise)[None])
            for step in range(len(timesteps)):
                self._write("action_step", "timestep", timesteps[step : step + 1])
                self._write("action_step", "delta", deltas[step : step + 1])
                with self.timings.span("action_step"):
                    self.calls.action_step[step % 2]()
            name = "x" if len(timesteps) % 2 == 0 else "x_next"
            actions = self.backend.read(self.calls.tensor("action_step", name))[0]
        return np.asarray(actions, np.float32)

    def snapshot(self) -> SessionSnapshot:
        """Return all state, so that `restore` goes on bit for bit."""
        return SessionSnapshot(
            contract_hash=self.manifest.contract_hash,
            memory=self.memory.snapshot(),
            bucket=self.buffers.bucket,
            turn=self._turn,
            has_state=self._has_state,
            arrays={name: self.backend.read(array) for name, array in self._state_arrays().items()},
        )

    def restore(self, snapshot: SessionSnapshot) -> None:
        """Take over a snapshot of a session of the same contract.

        Raises:
            InputError: another contract, or tensors missing or left over; nothing is changed.
        """
        if snapshot.contract_hash != self.manifest.contract_hash:
            raise InputError(
                f"found a snapshot of contract {snapshot.contract_hash[:12]}...; "
                f"expected {self.manifest.contract_hash[:12]}..."
            )
        specs = self._state_specs(snapshot.bucket)
        check_names(snapshot.arrays, specs, "snapshot")
        for name, spec in specs.items():
            spec.validate(snapshot.arrays[name])
        self.memory.restore(snapshot.memory)
        self.buffers.reset()
        self.buffers.bucket = snapshot.bucket
        self.calls.bind_memory()
        self._turn = snapshot.turn
        self._has_state = snapshot.has_state
        for name, array in self._state_arrays().items():
            self.backend.write(array, snapshot.arrays[name])

    def _state_specs(self, bucket: int) -> dict[str, TensorSpec]:
        """Return the spec of every tensor that outlives a call, with memory in a bucket."""
        graphs, buckets = self.manifest.graphs, self.manifest.memory.gist_buckets
        if not 0 <= bucket < len(buckets):
            raise InputError(
                f"found a snapshot in bucket {bucket}; expected 0 to {len(buckets) - 1}"
            )
        rows = self.memory.rows.total(buckets[bucket])
        kept = [*graphs["prompt_kv"].outputs, *graphs["state_kv"].outputs]
        kept += [
            s.bound(rows=rows) for s in graphs["cache_update"].inputs if s.name in self.calls.memory
        ]
        caches = {
            spec.name.replace("cache_out", "vae_cache", 1): spec
            for spec in graphs["vae_first"].outputs
            if spec.name.startswith("cache_out.")
        }
        return {spec.name: spec for spec in kept} | caches | {"last_image": self._image_spec()}

    def _state_arrays(self) -> dict[str, Array]:
        """Return the tensor of each of these specs, by name."""
        arrays = dict(self.calls.memory)
        for name, spec in self._state_specs(self.buffers.bucket).items():
            if name not in arrays:
                key = name.replace("vae_cache", f"vae_cache{self._turn}", 1)
                arrays[name] = self.buffers.fixed(spec, name=key)
        return arrays

    def _image_spec(self) -> TensorSpec:
        """Return the spec of one mosaic."""
        return self.manifest.graphs["vae_first"].inputs[0]

    def _step_encoder(self, pixels: NDArray[np.floating]) -> None:
        """Run the encoder over a group of images."""
        last = self.buffers.fixed(self._image_spec(), name="last_image")
        if self.contract.conventions.vae_history == "windowed":
            self.backend.write(self.calls.tensor("vae_first", "image"), self.backend.read(last))
            self.calls.vae_first()
            self._turn = 0
        self._write("vae_step", "images", pixels)
        with self.timings.span("vae_step"):
            self.calls.vae_step[self._turn]()
        self._turn = 1 - self._turn
        self._keep_last_image(pixels)

    def _keep_last_image(self, pixels: NDArray[np.floating]) -> None:
        """Keep the newest image, with which a windowed encoder starts the next group."""
        last = self.buffers.fixed(self._image_spec(), name="last_image")
        self.backend.write(last, pixels[:, :, -1:])

    def _update(self) -> None:
        """Write the latent frame's keys and values to its slot and its gist to the table."""
        rows, frame = self.memory.rows, self.memory.num_frames
        slot = rows.slot(self.memory.slot_of(frame))
        if self._in_place:
            self._write("cache_update", "slot_row", np.array([slot]))
        cos, sin = self._positions.of_frame(frame)
        self._write("cache_update", "rope_cos", cos)
        self._write("cache_update", "rope_sin", sin)
        num_keys = self.calls.num_frame_keys
        visual, gist = np.empty(num_keys), np.empty(num_keys)
        self.memory.frame_bias(slot if self._in_place else self.buffers.num_rows, visual, gist)
        self._write("cache_update", "visual_bias", visual.reshape(1, 1, 1, -1))
        self._write("cache_update", "gist_bias", gist.reshape(1, 1, 1, -1))
        with self.timings.span("cache_update"):
            self.calls.cache_update()
            self._store("cache_update", slot, rows.num_frame)
            if rows.num_gists:
                place = rows.gist(self.memory.gist_place(frame))
                for tensor in self.calls.memory.values():
                    self.backend.copy_rows(
                        tensor, place, tensor, slot + rows.num_visual, rows.num_gists
                    )
        self.memory.remembered()

    def _remember_actions(self, executed: NDArray[np.floating]) -> None:
        """Write clean actions to the newest frame's slot: one step at the clean timestep."""
        rows = self.memory.rows
        if not rows.num_history or self.memory.num_frames == 0:
            raise InputError("found executed actions; this contract keeps none here")
        if not self._has_state:
            raise InputError("executed actions need the joint state that they were chosen in")
        row = rows.history(self.memory.slot_of(self.memory.num_frames - 1))
        self._prepare_chunk(row)
        self._write("action_step", "x", executed[None])
        clean = self.contract.conventions.clean_timestep
        self._write("action_step", "timestep", np.array([clean]))
        self._write("action_step", "delta", np.zeros(1))
        self.calls.action_step[0]()
        self._store("action_step", row, rows.num_history)
        self.memory.executed()

    def _prepare_chunk(self, row: int) -> None:
        """Set positions, bias and row for actions after the newest frame."""
        frame = self.memory.num_frames - 1
        cos, sin = self._positions.of_chunk(frame)
        self._write("action_step", "rope_cos", cos)
        self._write("action_step", "rope_sin", sin)
        bias = np.empty(self.calls.num_action_keys)
        self.memory.action_bias(row if self._in_place else self.buffers.num_rows, bias)
        self._write("action_step", "key_bias", bias.reshape(1, 1, 1, -1))
        if self._in_place:
            self._write("action_step", "action_row", np.array([row]))

    def _store(self, graph: str, row: int, num_rows: int) -> None:
        """Copy new rows into memory, where the graph did not write them itself."""
        for memory, new in self.calls.new_rows(graph):
            self.backend.copy_rows(memory, row, new, 0, num_rows)

    def _grow(self) -> None:
        """Move to the next gist bucket if there is one; else gists are dropped."""
        if self.buffers.bucket + 1 < len(self.manifest.memory.gist_buckets):
            self.buffers.grow()
            self.calls.bind_memory()

    def _write(self, graph: str, name: str, values: NDArray[Any]) -> None:
        """Copy values into a graph's input, in the input's type."""
        spec = next(s for s in self.manifest.graphs[graph].inputs if s.name == name)
        typed = values.astype(storage_dtype(spec.dtype), copy=False)
        spec.validate(typed)
        self.backend.write(self.calls.tensor(graph, name), typed)
