"""A policy: observations to action chunks, on the grid that the model was trained on."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.acting import Acting, chunk_in_units
from memorywam_runtime.bundle import read_prompt
from memorywam_runtime.denoising import checked_prefix
from memorywam_runtime.episode_length import check_length
from memorywam_runtime.errors import InputError
from memorywam_runtime.observation import Observation
from memorywam_runtime.session import Session
from memorywam_runtime.snapshot import SessionSnapshot
from memorywam_runtime.transforms import mosaic_from_images, pixels_from_mosaics

__all__ = ["Policy", "PolicySnapshot"]


class PolicySnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All of a policy's state: the session's, the instruction, the clock and the noise."""

    session: SessionSnapshot
    instruction: str
    next_step: int
    noise_state: dict[str, Any]


class Policy:
    """Turns what the robot saw into what it should do, and remembers.

    One episode: `reset(instruction)`; `remember` the first observation; `act` for a chunk;
    execute it while taking an observation every `steps_per_image` steps; `remember` that group;
    `act` again. Observations of a group that `see` has taken as they were made need not be given
    again. Whatever does not fit this grid is refused, and memory stays as it was.
    """

    def __init__(self, session: Session, *, num_steps: int | None = None) -> None:
        """Make a policy.

        Args:
            session: From `open_bundle`.
            num_steps: Denoising steps; the contract's by default.
        """
        self.session = session
        self.contract = session.contract
        self._num_steps = num_steps
        self._normalization = session.manifest.normalization
        self._instruction = ""
        self._next_step = 0
        self._seen_step = 0
        self._seen_state: NDArray[np.float32] | None = None
        self._noise = np.random.default_rng(0)

    @property
    def instruction(self) -> str:
        """The instruction in force; empty before the first reset."""
        return self._instruction

    @property
    def num_frames(self) -> int:
        """Latent frames remembered since reset."""
        return self.session.memory.num_frames

    @property
    def num_denoising_steps(self) -> int:
        """Denoising steps of a chunk."""
        return self.contract.conventions.num_steps if self._num_steps is None else self._num_steps

    def expected_steps(self) -> tuple[int, ...]:
        """Return the environment steps at which the rest of the next group is observed.

        That is the whole group until some of it was seen; empty when all of it was.
        """
        stride = self.contract.observations.steps_per_image
        return tuple(
            self._next_step + index * stride for index in range(self._num_seen, self._group_size())
        )

    def reset(self, instruction: str, *, seed: int = 0, max_steps: int | None = None) -> None:
        """Start an episode: forget everything and take an instruction of the bundle.

        Args:
            instruction: Its text, as it was added to the bundle.
            seed: Of the noise that chunks start from.
            max_steps: Longest the episode can get, in environment steps: refused now, not in the
                middle, if memory cannot hold it.

        Raises:
            InputError: the bundle does not hold the instruction; nothing is changed.
            CapacityError: memory cannot hold max_steps; nothing is changed.
        """
        if max_steps is not None:
            check_length(max_steps, self.contract, self.session.manifest.memory)
        text = self._text(instruction)
        self.session.reset(text)
        self._instruction = instruction
        self._next_step = 0
        self._noise = np.random.default_rng(seed)

    def set_instruction(self, instruction: str, *, keep_memory: bool) -> None:
        """Change the instruction in the middle of an episode.

        Frames remembered so far were encoded with the old text. `keep_memory` keeps them, as no
        model was trained to; without it this is a reset with the noise going on.

        Raises:
            InputError: the bundle does not hold the instruction; nothing is changed.
        """
        text = self._text(instruction)
        if keep_memory:
            self.session.set_text(text)
        else:
            self.session.reset(text)
            self._next_step = 0
        self._instruction = instruction

    def see(self, observation: Observation) -> None:
        """Take the next observation of a group as it is made.

        Where the bundle's graphs allow it, all but a group's last are encoded at once, so that
        `remember` has one observation's work left.

        Raises:
            InputError: a wrong camera, size, type or step, or one too many; nothing is changed.
            CapacityError: memory is full and its policy is not to drop; nothing is changed.
        """
        expected = self.expected_steps()
        if not expected:
            raise InputError(
                f"found an observation of step {observation.step}; frame {self.num_frames} was "
                "seen whole: remember it first"
            )
        if observation.step != expected[0] and not self._is_single:
            raise InputError(
                f"found an observation of step {observation.step}; expected step {expected[0]}: "
                "an image that is late, early or missing would shift all that follow; forget "
                "those seen, and observe the whole group"
            )
        state = self._seen_by_video(observation)
        self.session.see(self._pixels([observation]))
        self._seen_step, self._seen_state = observation.step, state

    def forget_seen(self) -> None:
        """Drop the observations of an incomplete group: as if none of it had been seen."""
        self.session.forget_seen()

    def remember(
        self,
        observations: Sequence[Observation] = (),
        executed: NDArray[np.floating] | None = None,
    ) -> int:
        """Write one latent frame to memory; return its number.

        Args:
            observations: One at first, then a whole group at the trained stride, in order; less
                those that were seen.
            executed: The actions [horizon, action_dim] executed since the last frame, in the
                robot's units; needed exactly where the contract keeps action history.

        Raises:
            InputError: a wrong count, camera, size, type, order or step; memory is as it was.
            CapacityError: memory is full and its policy is not to drop; memory is as it was.
        """
        self._check_group(observations)
        actions = self._executed(executed)
        last_step, state, pixels = self._seen_step, self._seen_state, None
        if observations:
            last_step, state = observations[-1].step, self._seen_by_video(observations[-1])
            pixels = self._pixels(observations)
        frame = self.session.remember(pixels, actions, state)
        self._next_step = last_step + self._stride_to_next()
        return frame

    def act(
        self, state: NDArray[np.floating], noise: NDArray[np.floating] | None = None
    ) -> NDArray[np.float64]:
        """Return the chunk [horizon, action_dim] to execute next, in the robot's units.

        Memory is not changed; asking twice draws new noise.

        Args:
            state: Joint positions [state_dim] now.
            noise: Standard normal [horizon, action_dim]; drawn from the seed by default.

        Raises:
            InputError: a state of wrong length or not finite, or no frame yet.
            MemorywamError: the model gave an action that is not finite: hold the arms.
        """
        drawn = self._in_state(state, noise)
        found = self.session.denoise(drawn, self._num_steps)
        return chunk_in_units(found, self._normalization.action, self.num_frames - 1)

    def begin_act(
        self,
        state: NDArray[np.floating],
        noise: NDArray[np.floating] | None = None,
        *,
        prefix: NDArray[np.floating] | None = None,
    ) -> Acting:
        """Return the chunk that `act` would, before its first denoising step.

        What is seen and remembered between its steps does not reach it, nor it that.

        Args:
            state: Joint positions [state_dim] now.
            noise: Standard normal [horizon, action_dim]; drawn from the seed by default.
            prefix: Actions [d, action_dim] in the robot's units that will have been executed
                before the chunk takes over: it begins with them; none by default.

        Raises:
            InputError: as `act`, or a prefix that is too long, too wide or not finite.
        """
        actions, to_model = self.contract.actions, self._normalization.action
        held = checked_prefix(prefix, actions.horizon, actions.action_dim)
        drawn = self._in_state(state, noise)
        wanted = None if held is None else to_model.normalized(held, "prefix")
        made = self.session.begin_chunk(drawn, self._num_steps, prefix=wanted)
        return Acting(made, to_model, self.num_frames - 1, held)

    def snapshot(self) -> PolicySnapshot:
        """Return all state, so that `restore` goes on bit for bit."""
        return PolicySnapshot(
            session=self.session.snapshot(),
            instruction=self._instruction,
            next_step=self._next_step,
            noise_state=dict(self._noise.bit_generator.state),
        )

    def restore(self, snapshot: PolicySnapshot) -> None:
        """Take over a snapshot made with a bundle of the same contract.

        Raises:
            InputError: it does not fit; nothing is changed.
        """
        noise = np.random.default_rng(0)
        try:
            noise.bit_generator.state = snapshot.noise_state
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"found a snapshot with another state of the noise: {error}"
            ) from error
        self.session.restore(snapshot.session)
        self._instruction = snapshot.instruction
        self._next_step = snapshot.next_step
        self._noise = noise

    def _in_state(
        self, state: NDArray[np.floating], noise: NDArray[np.floating] | None
    ) -> NDArray[np.floating]:
        """Take over the joint state that a chunk is for; return the noise that it starts from."""
        if self.num_frames == 0:
            raise InputError("nothing to act on: no frame since reset; remember a frame first")
        normalized = self._state(state)
        shape = (self.contract.actions.horizon, self.contract.actions.action_dim)
        drawn = self._noise.standard_normal(shape) if noise is None else np.asarray(noise)
        if drawn.shape != shape:
            raise InputError(f"noise: found shape {list(drawn.shape)}; expected {list(shape)}")
        self.session.set_state(normalized)
        return drawn

    def _group_size(self) -> int:
        """Return how many observations make the next frame."""
        return self.session.encoder.num_needed(self.num_frames)

    @property
    def _num_seen(self) -> int:
        """Observations of the next group that were seen."""
        return self.session.encoder.num_seen

    @property
    def _is_single(self) -> bool:
        """Each observation stands alone: its step carries no meaning."""
        return self.session.encoder.is_single

    def _pixels(self, observations: Sequence[Observation]) -> NDArray[np.float32]:
        """Return the observations' mosaics [1, 3, T, H, W] in -1 to 1."""
        views = self.contract.observations
        with self.session.timings.span("prepare"):
            mosaics = [mosaic_from_images(o.images, views) for o in observations]
            return pixels_from_mosaics(np.stack(mosaics))

    def _seen_by_video(self, observation: Observation) -> NDArray[np.float32] | None:
        """Return the checked, normalized joint state, where the video sees it."""
        sees_state = self.contract.conventions.proprio_in_video_context
        return self._state(observation.state) if sees_state else None

    def _stride_to_next(self) -> int:
        """Return the steps from the last observation taken to the next one expected."""
        if self._is_single:
            return self.contract.actions.horizon
        return self.contract.observations.steps_per_image

    def _check_group(self, observations: Sequence[Observation]) -> None:
        """Refuse a group that is not the next on the grid."""
        expected = self.expected_steps()
        found = tuple(observation.step for observation in observations)
        if self._is_single and len(found) == len(expected):
            return
        if len(found) != len(expected):
            more = " more" if self._num_seen else ""
            raise InputError(
                f"found {len(found)} observations; frame {self.num_frames} takes "
                f"{len(expected)}{more}, at steps {list(expected)}"
            )
        if found != expected:
            raise InputError(
                f"found observations of steps {list(found)}; expected {list(expected)}, in this "
                "order: a frame that is late, early, doubled or missing would shift all that follow"
            )

    def _executed(self, executed: NDArray[np.floating] | None) -> NDArray[np.float32] | None:
        """Return normalized executed actions where they are kept; refuse a mismatch."""
        wants = self.contract.conventions.action_history and self.num_frames > 0
        if (executed is not None) != wants:
            found = "no executed actions" if executed is None else "executed actions"
            need = "needs them" if wants else "keeps none here"
            raise InputError(f"found {found}; this contract {need} (conventions.action_history)")
        if executed is None:
            return None
        shape = (self.contract.actions.horizon, self.contract.actions.action_dim)
        if np.shape(executed) != shape:
            raise InputError(
                f"executed actions: found {list(np.shape(executed))}; expected {list(shape)}"
            )
        return self._normalization.action.normalized(executed, "executed actions")

    def _state(self, state: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return a checked, normalized joint state."""
        size = self.contract.actions.state_dim
        if np.shape(state) != (size,):
            raise InputError(f"joint state: found {list(np.shape(state))}; expected [{size}]")
        return self._normalization.state.normalized(state, "joint state")

    def _text(self, instruction: str) -> dict[str, NDArray[Any]]:
        """Return an instruction's keys and values."""
        if self.session.root is None:
            raise InputError("this session has no bundle to read instructions from")
        return read_prompt(self.session.root, self.session.manifest, instruction)
