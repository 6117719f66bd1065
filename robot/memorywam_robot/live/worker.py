"""The worker: the one that owns the policy; frames into memory first, then denoising steps."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.live.tasks import (
    Act,
    Begin,
    Begun,
    ChunkLost,
    ChunkMade,
    ChunkReplaced,
    Event,
    Failed,
    Finish,
    Finished,
    FrameRemembered,
    Instruct,
    Remember,
    See,
    Task,
)
from memorywam_runtime.errors import MemorywamError
from memorywam_runtime.observation import Observation

__all__ = ["ActingPolicy", "Unit", "Worker", "WorkerThread"]

Unit = Literal["begin", "see", "remember", "prepare", "step", "instruct", "finish"]
"""What one turn does: a reset, an image that is not its frame's last, a frame, a chunk's inputs,
one denoising step, another instruction, the end."""
_UNITS: dict[type[Task], Unit] = {
    Begin: "begin",
    See: "see",
    Remember: "remember",
    Act: "prepare",
    Instruct: "instruct",
    Finish: "finish",
}


class Chunking(Protocol):
    """A chunk under way."""

    @property
    def is_stale(self) -> bool:
        """Was it given up?"""
        ...

    def advance(self) -> bool:
        """Make one denoising step; return whether it was the last."""
        ...

    def give_up(self) -> None:
        """Make no more steps."""
        ...

    def chunk(self) -> NDArray[np.float64]:
        """Return the finished chunk."""
        ...


class ActingPolicy(Protocol):
    """What the worker asks of a policy; `memorywam_runtime.Policy` is one."""

    def reset(self, instruction: str, *, seed: int = 0, max_steps: int | None = None) -> None:
        """Start an episode."""
        ...

    def see(self, observation: Observation) -> None:
        """Take an observation of the next frame that is not its last."""
        ...

    def forget_seen(self) -> None:
        """Drop what was seen of an incomplete frame."""
        ...

    def remember(
        self,
        observations: Sequence[Observation] = (),
        executed: NDArray[np.floating] | None = None,
    ) -> int:
        """Write one frame to memory."""
        ...

    def set_instruction(self, instruction: str, *, keep_memory: bool) -> None:
        """Change the instruction in the middle of an episode."""
        ...

    def begin_act(
        self,
        state: NDArray[np.floating],
        noise: NDArray[np.floating] | None = None,
        *,
        prefix: NDArray[np.floating] | None = None,
    ) -> Chunking:
        """Begin a chunk that takes one step at a time."""
        ...


class Worker:
    """Does one thing a turn, so that a frame never waits for more than one denoising step.

    Tasks come from one thread and events go back to it; turns are another's. A task of an epoch
    that is over is dropped, and so is what it made.
    """

    def __init__(
        self,
        policy: ActingPolicy,
        *,
        on_begin: Callable[[Begin], None] = lambda task: None,
        on_frame: Callable[[Remember, int], None] = lambda task, frame: None,
        on_chunk: Callable[[Act, NDArray[np.float64]], None] = lambda task, chunk: None,
        on_given_up: Callable[[Act], None] = lambda task: None,
        on_instruct: Callable[[Instruct], None] = lambda task: None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Take over a policy.

        Args:
            policy: Nobody else calls it from now on.
            on_begin: Told, in the worker's thread, that memory is empty.
            on_frame: Told of a frame that memory took.
            on_chunk: Told of a chunk that is ready.
            on_given_up: Told of a chunk that was begun and will never be ready: its joint state is
                in force all the same.
            on_instruct: Told of another instruction that is in force, memory as it was.
            now_ns: What times are measured by.
        """
        self._policy, self._now_ns = policy, now_ns
        self._on_begin, self._on_frame, self._on_chunk = on_begin, on_frame, on_chunk
        self._on_instruct, self._on_given_up = on_instruct, on_given_up
        self._epoch = 0
        self._has_failed = False
        self._given: deque[tuple[Task, int]] = deque()
        self._tasks: deque[tuple[Task, int]] = deque()
        self._acting: tuple[Act, Chunking, int] | None = None
        self._events: deque[Event] = deque()
        self._has_work = threading.Event()

    def put(self, task: Task) -> None:
        """Leave a task; never waits."""
        self._given.append((task, self._now_ns()))
        self._has_work.set()

    def events(self) -> list[Event]:
        """Return what happened since the last call, in order; never waits."""
        found = []
        while self._events:
            found.append(self._events.popleft())
        return found

    def wait(self, timeout_s: float) -> None:
        """Wait for a task, but no longer."""
        self._has_work.wait(timeout_s)

    def wake(self) -> None:
        """Let a wait end."""
        self._has_work.set()

    def next_unit(self) -> Unit | None:
        """Return what the next turn does; None for nothing.

        Tasks in their order, and a denoising step when there are none: so a chunk begins with the
        memory that it was asked for, and a frame waits for one step at most.
        """
        self._has_work.clear()
        while self._given:
            task, put_ns = self._given.popleft()
            if isinstance(task, Begin) and task.epoch >= self._epoch:
                self._forget(task.epoch)
                self._has_failed = False
            if task.epoch >= self._epoch and not self._has_failed:
                self._tasks.append((task, put_ns))
        if self._tasks and not (self._acting and isinstance(self._tasks[0][0], Finish)):
            return _UNITS[type(self._tasks[0][0])]
        return "step" if self._acting is not None else None

    def turn(self) -> Unit | None:
        """Do the next thing; return what it was."""
        unit = self.next_unit()
        if unit is None:
            return None
        epoch = self._epoch
        try:
            if unit == "step":
                self._step()
            else:
                self._do()
        except MemorywamError as error:
            self._fail(epoch, str(error))
        # The arms must hear of it, whatever it was: a thread that died in silence would not tell.
        except Exception as error:
            self._fail(epoch, f"{type(error).__name__}: {error}")
        return unit

    def _forget(self, epoch: int) -> None:
        """Drop all that was to be done."""
        self._epoch = epoch
        self._tasks.clear()
        self._give_up()

    def _give_up(self) -> None:
        """Make no more steps of the chunk under way: memory need not keep what it sees."""
        if self._acting is not None:
            self._acting[1].give_up()
        self._acting = None

    def _replace(self) -> None:
        """Give up the chunk under way, if there is one, for what comes in its place; tell of it."""
        if self._acting is not None:
            self._events.append(ChunkReplaced(task=self._acting[0]))
            self._on_given_up(self._acting[0])
        self._give_up()

    def _fail(self, epoch: int, reason: str) -> None:
        # Told first: giving up a chunk may fail in its turn.
        self._events.append(Failed(epoch=epoch, reason=reason))
        self._has_failed = True  # until the next episode begins, whatever its number
        if self._acting is not None:
            self._on_given_up(self._acting[0])
        self._forget(epoch)

    def _do(self) -> None:
        """Do the next task."""
        task, put_ns = self._tasks.popleft()
        begun_ns = self._now_ns()
        if isinstance(task, Begin):
            self._policy.reset(task.instruction, seed=task.seed, max_steps=task.max_steps)
            self._on_begin(task)
            self._events.append(Begun(epoch=task.epoch))
        elif isinstance(task, Instruct):
            self._replace()
            self._policy.set_instruction(task.instruction, keep_memory=True)
            self._on_instruct(task)
        elif isinstance(task, See):
            self._policy.see(task.observation)
        elif isinstance(task, Finish):
            self._policy.forget_seen()
            self._events.append(Finished(epoch=task.epoch))
        elif isinstance(task, Act):
            self._replace()
            acting = self._policy.begin_act(task.state, task.noise, prefix=task.prefix)
            self._acting = task, acting, begun_ns
        else:
            frame = self._policy.remember(task.observations[task.num_seen :], task.executed)
            self._on_frame(task, frame)
            told = FrameRemembered(
                epoch=task.epoch,
                frame=frame,
                took_ms=(self._now_ns() - begun_ns) / 1e6,
                waited_ms=(begun_ns - put_ns) / 1e6,
            )
            self._events.append(told)

    def _lose(self, task: Act, reason: str) -> None:
        self._acting = None
        self._on_given_up(task)
        self._events.append(ChunkLost(task=task, reason=reason))

    def _step(self) -> None:
        assert self._acting is not None
        task, acting, begun_ns = self._acting
        if acting.is_stale:
            self._lose(task, "memory outgrew it while it was made")
        elif acting.advance():
            self._acting = None
            try:
                chunk = acting.chunk()
            except MemorywamError as error:
                self._lose(task, str(error))
                return
            took_ms = (self._now_ns() - begun_ns) / 1e6
            self._on_chunk(task, chunk)
            self._events.append(ChunkMade(task=task, chunk=chunk, took_ms=took_ms))


class WorkerThread:
    """Turns a worker until it is closed."""

    def __init__(self, worker: Worker) -> None:
        """Start the thread."""
        self.worker = worker
        self._is_closed, self._failure = False, ""
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def put(self, task: Task) -> None:
        """Leave a task; never waits."""
        self.worker.put(task)

    def events(self) -> list[Event]:
        """Return what happened since the last call."""
        return self.worker.events()

    @property
    def is_alive(self) -> bool:
        """Is it still turning?"""
        return self._thread.is_alive()

    @property
    def ending(self) -> str:
        """Return why it turns no more; empty while it does."""
        return "" if self.is_alive else self._failure or "it was closed"

    def close(self, timeout_s: float = 10.0) -> bool:
        """End the thread; return whether it ended in time."""
        self._is_closed = True
        self.worker.wake()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._is_closed:
                if self.worker.turn() is None:
                    self.worker.wait(0.05)
        # Not even an exit may pass in silence: it would look as if the policy hung.
        except BaseException as error:
            self._failure = f"{type(error).__name__}: {error}"
