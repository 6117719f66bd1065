"""A session: engines, buffers and memory, alive; reset, remember a frame, denoise a chunk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.action_inputs import ActionInputs
from memorywam_runtime.aside import Aside, UnderWay
from memorywam_runtime.backends import Array, Backend, Engine
from memorywam_runtime.buffers import Buffers
from memorywam_runtime.calls import Calls
from memorywam_runtime.denoising import Denoising, checked_prefix
from memorywam_runtime.encoder import Encoder
from memorywam_runtime.errors import InputError
from memorywam_runtime.frame_writer import FrameWriter
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.memory import Memory, Visible
from memorywam_runtime.positions import Positions
from memorywam_runtime.schedule import noise_levels
from memorywam_runtime.snapshot import SessionSnapshot
from memorywam_runtime.snapshot_fit import check_fit
from memorywam_runtime.tensors import TensorSpec, check_names
from memorywam_runtime.timing import Timings

__all__ = ["STAGES", "Session"]

STAGES = (
    "prepare", "vae_first", "vae_step", "vae_image", "vae_pair", "vae_group", "cache_update",
    "write", "see", "remember", "state_kv", "action_step", "chunk",
)  # fmt: skip
"""`prepare` is a policy's; `see`, `remember`, `chunk` are whole; others are parts, where timed."""


class Session:
    """Runs a bundle's graphs on tensors in the model's units; for one thread at a time."""

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
        self.engines = engines
        plan = manifest.memory
        self.memory = Memory(
            self.contract,
            max_frames=plan.max_frames,
            on_full=plan.on_full,
            visible=visible,
            narrow_window=manifest.has_narrow_window,
        )
        self.buffers = Buffers(manifest, backend)
        self.timings = Timings((*STAGES, "advance"))
        self.calls = Calls(manifest, backend, engines, self.buffers, self.timings)
        self.encoder = Encoder(manifest, self.buffers, self.calls)
        self._positions = Positions(self.contract)
        self._inputs = ActionInputs(self.calls, self.buffers, self.memory, self._positions)
        self._aside = Aside(manifest, self.calls, self.buffers, self._inputs)
        self._writer = FrameWriter(
            self.calls, self.buffers, self.memory, self._positions, self._inputs, self._aside
        )
        self._has_state = False
        self.reset()

    def reset(self, text: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Forget everything; afterwards the session is bit-equal to a new one.

        Args:
            text: The instruction's keys and values by name (`video_text.00.k`, ...), and where
                the graphs take it `text_bias`, all as `read_prompt` returns them; without them
                the prompt is empty until `set_text`.
        """
        self._aside.give_up("the session was reset")
        self.memory.reset()
        self._move_to(bucket=0)
        self.encoder.reset()
        self._has_state = False
        if text is not None:
            self.set_text(text)

    def set_text(self, text: Mapping[str, NDArray[Any]]) -> None:
        """Take over an instruction's keys and values; memory stays as it is.

        Raises:
            InputError: a name or shape that is not the contract's.
        """
        specs = {spec.name: spec for spec in self._text_specs}
        check_names(text, specs, "an instruction's keys and values")
        for name, spec in specs.items():
            spec.validate(text[name])
        self._aside.give_up("the instruction was changed")
        for name, spec in specs.items():
            self.backend.write(self.buffers.fixed(spec), text[name])

    def set_state(self, state: NDArray[np.floating]) -> None:
        """Make the cross-attention keys of a normalized joint state [state_dim]."""
        self.calls.input("state_kv", "state").put(np.asarray(state).reshape(1, -1))
        self._aside.keep_state()
        self.calls.state_kv()
        self._has_state = True

    def see(self, pixels: NDArray[np.floating]) -> None:
        """Take one image of the next frame as it arrives, in time order.

        Where the bundle's graphs allow it, all but the last of a group are encoded at once, so
        that `remember` has one image's work left. Memory stays as it is.

        Args:
            pixels: [1, 3, 1, H, W] in [-1, 1].

        Raises:
            InputError: an image too many, or of another size or type; nothing is changed.
            CapacityError: memory is full: the frame could never be remembered.
        """
        self.encoder.missing_spec(self.memory.num_frames)
        self.encoder.image_spec.validate(pixels)
        if not self.encoder.is_single:
            self.memory.check_capacity()
        with self.timings.span("see"):
            self.encoder.feed(pixels, self.memory.num_frames)

    def forget_seen(self) -> None:
        """Drop the images of an incomplete group: as if none of it had been seen."""
        self.encoder.forget_seen()

    def remember(
        self,
        pixels: NDArray[np.floating] | None = None,
        executed: NDArray[np.floating] | None = None,
        state: NDArray[np.floating] | None = None,
    ) -> int:
        """Encode images to a latent frame and write its keys and values to memory.

        Args:
            pixels: [1, 3, T, H, W] in [-1, 1]: one image at first, then a whole group; less those
                that were seen, and None where all were.
            executed: With action history, the normalized actions [horizon, action_dim] executed
                since the last frame.
            state: Where the video sees the joint state, the normalized one of this frame; the
                executed actions still belong to the one before.

        Returns:
            The frame's number.

        Raises:
            InputError: a wrong count of images, or actions where none are kept; memory, and what
                was seen, are as they were.
            CapacityError: the gist table is full; memory is as it was.
        """
        if pixels is None:
            self.encoder.check_complete(self.memory.num_frames)
        else:
            self.check_images(pixels)
        if self.encoder.is_single:
            self.memory.reset()
        self.memory.check_capacity()
        if executed is not None:
            self._remember_actions(executed)
        if state is not None:
            self.set_state(state)
        if self.memory.rows.num_gists and self.memory.num_frames == self.buffers.capacity:
            self._grow()
        with self.timings.span("remember"):
            if pixels is not None:
                self.encoder.feed(pixels, self.memory.num_frames)
            path = self.encoder.path(self.memory.num_frames)
            self._writer.write_frame(path)
            self.backend.finish()
        self.encoder.encoded(path)
        self.memory.remembered()
        return self.memory.num_frames - 1

    def check_images(self, pixels: NDArray[np.floating]) -> None:
        """Refuse a wrong count, size or type of images.

        Raises:
            InputError: saying what the next frame still takes.
        """
        self.encoder.missing_spec(self.memory.num_frames).validate(pixels)

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
        count = self._steps_to_act(num_steps)
        run = self.calls.chunk(count)
        with self.timings.span("chunk"):
            self._prepare_chunk(self.memory.rows.chunk)
            self.calls.input("action_step", "x").put(np.asarray(noise)[None])
            run()
            actions = self.backend.read(self.calls.actions(count))[0]
        return np.asarray(actions, np.float32)

    def begin_chunk(
        self,
        noise: NDArray[np.floating],
        num_steps: int | None = None,
        *,
        prefix: NDArray[np.floating] | None = None,
    ) -> Denoising:
        """Return the chunk that `denoise` would, before its first step.

        What is remembered, seen or denoised between its steps does not reach it, nor it that.

        Args:
            noise: Standard normal [horizon, action_dim].
            num_steps: Euler steps; the contract's by default.
            prefix: Normalized actions [d, action_dim] that it must begin with; none by default.

        Raises:
            InputError: as `denoise`, or of the prefix; an earlier chunk under way goes on.
        """
        count, actions = self._steps_to_act(num_steps), self.contract.actions
        levels = noise_levels(count, self.contract.conventions.action_shift)
        held = checked_prefix(prefix, actions.horizon, actions.action_dim)
        self._prepare_chunk(self.memory.rows.chunk)
        self.calls.input("action_step", "x").put(np.asarray(noise)[None])
        chunk = UnderWay(self._inputs.given(self.memory.rows.chunk))
        self._aside.begin(chunk)
        made = Denoising(self.calls, self._aside, chunk, count)
        made.hold(held, noise, levels)
        return made

    def snapshot(self) -> SessionSnapshot:
        """Return all state, so that `restore` goes on bit for bit.

        Raises:
            InputError: a group is incomplete.
        """
        self.encoder.check_between(self.memory.num_frames)
        return SessionSnapshot(
            contract_hash=self.manifest.contract_hash,
            memory=self.memory.snapshot(),
            bucket=self.buffers.bucket,
            turn=self.encoder.turn,
            has_state=self._has_state,
            arrays={
                name: self.backend.read(array)
                for name, (_, array) in self.state_arrays(self.buffers.bucket).items()
            },
        )

    def restore(self, snapshot: SessionSnapshot) -> None:
        """Take over a snapshot of a session of the same contract; images seen are forgotten.

        Raises:
            InputError: another contract, or tensors missing or left over; nothing is changed.
        """
        check_fit(
            snapshot,
            self.manifest,
            lambda bucket: {name: spec for name, (spec, _) in self.state_arrays(bucket).items()},
        )
        self.memory.restore(snapshot.memory)
        self._aside.give_up("a snapshot was restored")
        self._move_to(snapshot.bucket)
        self.encoder.reset(snapshot.turn)
        self._has_state = snapshot.has_state
        for name, (_, array) in self.state_arrays(snapshot.bucket).items():
            self.backend.write(array, snapshot.arrays[name])

    def state_arrays(self, bucket: int) -> dict[str, tuple[TensorSpec, Array]]:
        """Return spec and tensor of all that outlives a call, with the specs of a bucket."""
        rows = self.memory.rows.total(self.manifest.memory.gist_buckets[bucket])
        kept = [*self._text_specs, *self.manifest.graphs["state_kv"].outputs]
        return {
            **self.calls.remembered(rows),
            **{spec.name: (spec, self.buffers.fixed(spec)) for spec in kept},
            **self.encoder.state_arrays(),
        }

    @property
    def _text_specs(self) -> list[TensorSpec]:
        """All that an instruction brings: keys and values, and the bias of its zero rows."""
        graphs = self.manifest.graphs
        bias = [spec for spec in graphs["action_step"].inputs if spec.name == "text_bias"]
        return [*graphs["prompt_kv"].outputs, *bias]

    def _move_to(self, bucket: int) -> None:
        """Zero all state; afterwards memory has the rows of a bucket."""
        moved = self.buffers.bucket != bucket
        self.buffers.reset()
        self.buffers.bucket = bucket
        if moved:
            self.calls.bind_memory()

    def _remember_actions(self, executed: NDArray[np.floating]) -> None:
        """Write clean actions to the newest frame's slot."""
        if not self.memory.rows.num_history or self.memory.num_frames == 0:
            raise InputError("found executed actions; this contract keeps none here")
        if not self._has_state:
            raise InputError("executed actions need the joint state that they were chosen in")
        self._writer.write_actions(executed)

    def _prepare_chunk(self, row: int) -> None:
        """Set positions, bias and row for actions after the newest frame."""
        self._aside.keep_inputs()
        self._inputs.prepare(row)

    def _steps_to_act(self, num_steps: int | None) -> int:
        """Return how many steps a chunk takes; refuse one that has nothing to act on."""
        if self.memory.num_frames == 0 or not self._has_state:
            missing = "frame" if self.memory.num_frames == 0 else "joint state"
            raise InputError(f"nothing to act on: no {missing} since reset; remember a frame first")
        return self.contract.conventions.num_steps if num_steps is None else num_steps

    def _grow(self) -> None:
        """Move to the next gist bucket if there is one; else gists are dropped."""
        if self.buffers.bucket + 1 < len(self.manifest.memory.gist_buckets):
            before = self.buffers.num_rows
            self.buffers.grow()
            self.calls.bind_memory()
            self._aside.grown(before, self.buffers.num_rows - before)
