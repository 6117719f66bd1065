"""Our own dialect: episodes, frames and chunks apart, and every reply says what memory has.

`{type: episode, op: begin, instruction, seed, max_steps}` gives a session, which every later
message carries. `{type: frame, session, step, images, state, executed_actions}` is taken when it
is made, whether or not a chunk is asked for; `{type: chunk, session, state, after_frame,
deadline_ms}` is answered from the frames that are complete. Further `op`s of an episode: end,
snapshot, restore (of a `snapshot`; it begins a session), forget (one), and set_instruction with
`keep_memory`.
"""

import secrets
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.adapters.dialects_fields import (
    number_field,
    whole_field,
    word_of,
)
from memorywam_robot.adapters.dialects_observation import ObservationReader
from memorywam_robot.adapters.dialects_prompt import begin_episode
from memorywam_robot.adapters.serving import DialectOptions
from memorywam_robot.adapters.serving_grid import GridFeeder, GridSnapshot
from memorywam_runtime.errors import InputError

__all__ = ["OwnDialect", "begins_epoch"]

_OPS = ("begin", "end", "snapshot", "restore", "forget", "set_instruction")
_TYPES = ("episode", "frame", "chunk")


def begins_epoch(message: Mapping[str, Any]) -> bool:
    """Return whether nothing asked for before this message may be answered after it."""
    ops = ("begin", "end", "restore", "set_instruction")
    return word_of(message, "type") == "episode" and word_of(message, "op") in ops


class OwnDialect:
    """One client's sessions, one after the other."""

    def __init__(
        self,
        feeder: GridFeeder,
        reader: ObservationReader,
        options: DialectOptions,
        snapshots: dict[str, GridSnapshot],
    ) -> None:
        """Take what is shared.

        Args:
            feeder: Of the policy.
            reader: Of its contract.
            options: What messages cannot say.
            snapshots: Of all clients, so that one that lost its connection can go on.
        """
        self._feeder = feeder
        self._reader = reader
        self._options = options
        self._snapshots = snapshots
        self._session = ""
        self._seed = 0
        self._num_chunks = 0
        self._state: NDArray[np.float64] | None = None

    def answer(self, message: Mapping[str, Any], arrived_ns: int) -> dict[str, Any]:
        """Do what a message asks for.

        Raises:
            InputError: it is of no known type, of another session, or one of its fields is not as
                it must be.
        """
        kind = word_of(message, "type")
        if kind == "episode":
            return self._episode(message)
        if kind not in _TYPES:
            raise InputError(f"found type {kind[:40]!r}; expected one of {', '.join(_TYPES)}")
        self._check_session(message)
        if kind == "frame":
            return self._frame(message)
        return self._chunk(message, arrived_ns)

    def _episode(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Begin, end, keep or change an episode."""
        op, feeder = word_of(message, "op"), self._feeder
        if op not in _OPS:
            raise InputError(f"found op {op[:40]!r}; expected one of {', '.join(_OPS)}")
        extra: dict[str, Any] = {}
        if op == "begin":
            self._seed = begin_episode(
                feeder, {"prompt": message.get("instruction", ""), **_begin(message)}, self._options
            )
            self._start()
        elif op == "restore":
            feeder.restore(self._snapshots[self._kept(message.get("snapshot"))])
            self._start()
        else:
            self._check_session(message)
            if op == "end":
                feeder.end()
                self._session = ""
            elif op == "snapshot":
                extra = {"snapshot": self._keep(), "snapshots": list(self._snapshots)}
            elif op == "forget":
                del self._snapshots[self._kept(message.get("snapshot"))]
            else:
                self._change(message)
        return {"type": "episode", "op": op, "seed": self._seed} | extra | self._about()

    def _frame(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Take an observation."""
        step = whole_field(message, "step")
        if step is None:
            raise InputError("found no step; expected environment steps since begin")
        observation = self._reader.observation(message, step)
        completed = self._feeder.observe(observation, self._executed(message))
        self._state = observation.state
        return {"type": "ack", "completed": completed} | self._about()

    def _chunk(self, message: Mapping[str, Any], arrived_ns: int) -> dict[str, Any]:
        """Return a chunk, if it is not too late and memory is where the client thinks."""
        newest, wanted = self._feeder.num_frames - 1, whole_field(message, "after_frame")
        if wanted is not None and wanted != newest:
            raise InputError(f"found after_frame {wanted}; memory's newest frame is {newest}")
        deadline_ms = number_field(message, "deadline_ms")
        state = self._reader.state(message) if "state" in message else self._state
        if state is None:
            raise InputError("found no joint state; expected one with the chunk, or a frame before")
        actions = self._feeder.act(state)
        took_ms = (time.monotonic_ns() - arrived_ns) / 1e6
        if deadline_ms is not None and took_ms > deadline_ms:
            raise InputError(
                f"the chunk took {took_ms:.0f} ms; its deadline was {deadline_ms:.0f} ms: it is "
                "dropped; go on with the actions at hand, then slow down"
            )
        self._num_chunks += 1
        about = {"type": "chunk", "actions": actions, "after_frame": newest}
        return about | {"chunk": self._num_chunks - 1, "seed": self._seed} | self._about()

    def _executed(self, message: Mapping[str, Any]) -> NDArray[np.float64] | None:
        """Return the actions that were executed since the frame before."""
        executed = message.get("executed_actions")
        if executed is None:
            return None
        size = self._feeder.contract.actions.action_dim
        is_array = isinstance(executed, np.ndarray) and executed.dtype.kind in "fiu"
        if not is_array or executed.ndim != 2 or executed.shape[1] != size:
            raise InputError(f"found executed_actions of another form; expected [n, {size}]")
        return np.asarray(executed, np.float64)

    def _change(self, message: Mapping[str, Any]) -> None:
        """Take another instruction."""
        text, keeps = message.get("instruction"), message.get("keep_memory")
        if not isinstance(text, str) or not isinstance(keeps, bool):
            raise InputError(
                "set_instruction: expected `instruction`, a text, and `keep_memory`, true or "
                "false: frames remembered so far were seen with the old text"
            )
        self._feeder.set_instruction(text, keep_memory=keeps)

    def _keep(self) -> str:
        """Keep a snapshot; return its name."""
        if len(self._snapshots) >= self._options.max_snapshots:
            raise InputError(
                f"found {len(self._snapshots)} snapshots kept; expected fewer than "
                f"{self._options.max_snapshots}: op forget frees one"
            )
        name = secrets.token_hex(8)
        self._snapshots[name] = self._feeder.snapshot()
        return name

    def _kept(self, name: object) -> str:
        """Return the name of a snapshot that is kept."""
        if not isinstance(name, str) or name not in self._snapshots:
            raise InputError(
                f"found snapshot {name!r:.40}; expected one of {list(self._snapshots)}"
            )
        return name

    def _start(self) -> None:
        """Begin a session."""
        self._session = secrets.token_hex(8)
        self._num_chunks = 0
        self._state = None

    def _check_session(self, message: Mapping[str, Any]) -> None:
        """Refuse a message of another session."""
        found = word_of(message, "session")
        if not self._session or found != self._session:
            raise InputError(
                f"found session {found[:40]!r}, which is over or was never begun; expected "
                "{type: episode, op: begin} first, and its session in every message"
            )

    def _about(self) -> dict[str, Any]:
        """Return what every reply says."""
        return {"session": self._session, "instruction": self._feeder.instruction}


def _begin(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a begin belongs to the episode."""
    return {key: message[key] for key in ("seed", "max_steps") if key in message}
