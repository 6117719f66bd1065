"""One episode that keeps time: at every tick, what goes into memory and where the arms are sent."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.live.early_sight import EarlySight
from memorywam_robot.live.grid_rules import CommitGroup, Decision, Hold, Resume, Stop
from memorywam_robot.live.group_observations import observations_of_group
from memorywam_robot.live.instruction_changes import InstructionChange
from memorywam_robot.live.live_chunks import LiveChunks
from memorywam_robot.live.live_counts import LiveCounts
from memorywam_robot.live.live_eyes import offer_frames
from memorywam_robot.live.live_parts import Parts
from memorywam_robot.live.live_steps import LiveSteps
from memorywam_robot.live.shadow import ShadowDistance
from memorywam_robot.live.sight import Sight
from memorywam_robot.live.start_gate import StartGate
from memorywam_robot.live.state_ring import StateRing
from memorywam_robot.live.tasks import (
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
)
from memorywam_robot.loop import EpisodeStart
from memorywam_runtime.errors import InputError

__all__ = ["LiveEpisode", "Phase"]

Phase = Literal["gate", "running", "ended"]


class LiveEpisode:
    """Decides; waits for nothing, and knows no clock but the time it is told.

    A chunk is asked for where a frame is complete, and nowhere else: between frames memory would be
    older than the joint state, which no training showed the model. Its first actions belong to the
    steps during which it is made, so they are left out when it arrives, counted by the queue.
    """

    def __init__(self, parts: Parts, start: EpisodeStart, now_ns: int) -> None:
        """Begin with the gate shut; the arms are at rest, and their guard follows."""
        self.parts, self.start = parts, start
        shadow = ShadowDistance(parts.contract.actions) if parts.rules.is_shadow else None
        self.counts = LiveCounts(grid=parts.grid.counts, shadow=shadow)
        self.phase: Phase = "gate"
        self.aborted = ""
        """Why it ended early; empty if it did not."""
        contract = parts.contract
        self._steps = LiveSteps(parts, self.counts, start.num_steps)
        self._stride = round(parts.grid.shape.period_ns / self._steps.step_ns)
        self._tick_ns = round(1e9 / parts.rules.tick_hz)
        self._state = np.zeros(contract.actions.state_dim)
        self._target = np.zeros(contract.actions.action_dim)
        self._states = StateRing(contract.actions.state_dim)
        self._start_gate = StartGate(parts.cameras, parts.rules)
        self._sight = Sight(parts.cameras, parts.rules, parts.grid.rules.camera_hz)
        self._now_ns = now_ns
        self._obstacle = "not looked at yet"
        self._has_finished = False
        self._held_since_ns = 0
        self._num_limited_before = parts.body.num_limited
        self._begin(parts.grid.reset(0, now_ns), start.instruction)

    @property
    def executed(self) -> list[NDArray[np.float64]]:
        """What was sent as each step [action_dim], within all limits."""
        return self._steps.executed

    @property
    def num_executed(self) -> int:
        """Return environment steps that are over."""
        return len(self._steps.executed)

    @property
    def obstacle(self) -> str:
        """Why the gate is shut; empty once it is open."""
        return self._obstacle if self.phase == "gate" else ""

    def tick(self, now_ns: int) -> bool:
        """Do all that is due; return whether the episode goes on."""
        self._now_ns = now_ns
        if self.has_ended:
            return False
        parts = self.parts
        self._states.put(parts.body.state(self._state), self._state)
        if self.phase == "running":
            self._take_steps()
        epoch, gate_ns = self._epoch, self._gate_ns
        offer_frames(parts, self.counts, self._sight, epoch=epoch, gate_ns=gate_ns, now_ns=now_ns)
        self._watch_cameras()
        for event in parts.worker.events():
            self._hear(event)
        if self.phase == "gate":
            self._try_gate()
        for decision in parts.grid.poll(now_ns):
            if self.phase != "ended":  # what comes after `Finish` memory must not take
                self._decide(decision)
        if self.phase == "running" and parts.rules.is_eager:
            self._early.look()
        self._watch_arms()
        if self.has_ended:
            return False
        self._command()
        return True

    @property
    def has_ended(self) -> bool:
        """Is it over, as planned or not?"""
        return self.phase == "ended"

    def set_instruction(self, text: str, *, keep_memory: bool = False) -> None:
        """Change the instruction, between two ticks.

        Without `keep_memory` the episode begins anew: memory is emptied, the gate shuts, nothing
        that was under way counts, and there are as many steps again. With it the frames that were
        encoded with the old text stay, as no model was trained to, and the chunk in force goes on.

        Args:
            text: One that the bundle holds; if it does not, the episode is aborted.
            keep_memory: Whether frames stay.

        Raises:
            InputError: the episode has ended.
        """
        if self.has_ended:
            raise InputError("the episode has ended; expected one that goes on: start another")
        changes, grid, step = self.counts.instructions, self.parts.grid, self.num_executed
        changes.append(InstructionChange(step=step, instruction=text, keep_memory=keep_memory))
        grid.set_instruction(len(changes), self._now_ns, "keep" if keep_memory else "reset")
        if not keep_memory:
            self._begin(grid.epoch, text, begun_after=step)
            return
        self.parts.worker.put(Instruct(epoch=self._epoch, instruction=text, step=step))
        self._chunks.ask_anew()

    def _begin(self, epoch: int, instruction: str, begun_after: int | None = None) -> None:
        """Begin with empty memory and the gate shut, the arms where they are sent."""
        parts, start = self.parts, self.start
        self.phase = "gate"
        self._epoch = epoch
        self._begun_ns = self._gate_ns = self._now_ns
        self._has_begun = self._is_held = self._is_blind = False
        self._chunks = LiveChunks(parts, self.counts, start.seed, epoch)
        self._early = EarlySight(parts, self._states, self._stride, epoch)
        parts.gate.reset()
        parts.body.state(self._state)
        self._steps.begin()
        for camera in parts.cameras:
            camera.take()
        parts.worker.put(
            Begin(
                epoch=epoch,
                instruction=instruction,
                seed=start.seed,
                max_steps=start.num_steps,
                begun_after=begun_after,
            )
        )

    def _hear(self, event: Event) -> None:
        """Hear of what the worker did."""
        counts, grid = self.counts, self.parts.grid
        match event:
            case Begun(epoch=epoch):
                self._has_begun = epoch == self._epoch
            case FrameRemembered():
                if grid.done(event.epoch, event.frame, self._now_ns):
                    counts.frames += 1
                    counts.remember_ms.append(event.took_ms)
                    counts.waited_ms.append(event.waited_ms)
            case ChunkMade() | ChunkLost():
                if grid.takes_result(event.task.epoch) and not self.has_ended:
                    self._take_chunk(event)
            case ChunkReplaced():
                counts.chunks_replaced += grid.takes_result(event.task.epoch)
            case Finished():
                self._has_finished = event.epoch == self._epoch
            case Failed():
                self._has_finished |= event.epoch == self._epoch
                if event.epoch == self._epoch:
                    self.abort(f"the policy failed: {event.reason}")

    def _take_chunk(self, event: ChunkMade | ChunkLost) -> None:
        """Put a chunk in force; else go on with the commands there are, or stop."""
        if isinstance(event, ChunkMade):
            verdict = self._chunks.join(event, is_held=self._is_held)
        else:
            verdict = self._chunks.lost(event)
        if verdict is None:
            return
        if verdict.verdict == "stop":
            self.abort(verdict.reason)
            return
        self._note(f"{verdict.verdict}: {verdict.reason}")
        if not self._is_held:
            self._chunks.ask_again(event.task)

    def _try_gate(self) -> None:
        """Open the gate if nothing is in the way; give up if that lasts."""
        state = self._states.newest()
        self._obstacle = self._start_gate.obstacle(self._now_ns, state, has_begun=self._has_begun)
        if not self._obstacle:
            self.parts.grid.open_gate(self._now_ns)
            self._gate_ns = self._now_ns
            self._steps.open(self._now_ns)
            self.phase = "running"
            self._sight.begin(self._now_ns)
            self.parts.begun()
        elif self._now_ns - self._begun_ns > self.parts.rules.gate_timeout_s * 1e9:
            self.abort(f"the start gate stayed shut: {self._obstacle}")

    def _decide(self, decision: Decision) -> None:
        """Do what the memory clock says."""
        counts = self.counts
        match decision:
            case CommitGroup():
                self._remember(decision)
            case Hold(reason=reason):
                counts.holds += 1
                self._note(f"hold: {reason}")
                self._is_held, self._held_since_ns = True, self._now_ns
                self.parts.queue.clear()
            case Resume():
                counts.held_ms += (self._now_ns - self._held_since_ns) / 1e6
                self._is_held = False
                self._steps.forgive()
            case Stop(reason=reason):
                self.abort(reason)

    def _remember(self, group: CommitGroup) -> None:
        """Leave a frame to the worker, and ask for the chunk after it."""
        parts = self.parts
        observed = observations_of_group(group, self._states, self._stride)
        observations = [observation for observation, _ in observed]
        for observation, captured_ns in observed:
            for listener in parts.listeners:
                listener.on_observation(observation, captured_ns)
        keeps_actions = parts.contract.conventions.action_history and group.frame > 0
        executed = self._steps.since_frame(group.frame) if keeps_actions else None
        parts.worker.put(
            Remember(
                epoch=group.epoch,
                frame=group.frame,
                observations=tuple(observations),
                num_seen=self._early.num_given(group.frame),
                executed=executed,
            )
        )
        # Its first action belongs to the step that begins with the last slot, whatever filled that.
        requested_at = min(observations[-1].step, parts.queue.num_taken)
        slot_ns = self._gate_ns + group.slots[-1] * parts.grid.shape.period_ns
        self._chunks.complete(group.frame, requested_at, self._states.at(slot_ns))
        is_last = observations[-1].step >= self.start.num_steps  # nothing acts on what is seen last
        if is_last or group.frame % (parts.load.num_executed // parts.load.steps_per_frame):
            return
        if self._is_held or parts.grid.is_behind:
            self.counts.chunks_not_asked += 1
            return
        self._chunks.ask()

    def _take_steps(self) -> None:
        """Take the action of the environment step that has begun."""
        found = self._steps.take(self._now_ns, is_standing=self._is_held or self._is_blind)
        if found:
            self.abort(found)
        elif found is not None:
            self._end("the episode is over")

    def _command(self) -> None:
        """Send the target of this tick: a command is a heartbeat, so there is always one."""
        share = 1.0
        if self.phase == "running" and self.parts.rules.is_linear:
            share = self._steps.share(self._now_ns, self._tick_ns)
        self.parts.queue.target(share, self._target)
        self.parts.body.command(self._target, ramp_ns=self._tick_ns)

    def abort(self, reason: str) -> None:
        """End early: the arms brake and hold."""
        if self.phase == "ended":
            return
        self.aborted = reason
        self._note(f"stop: {reason}")
        self._end(reason)

    def _watch_arms(self) -> None:
        """Abort if the guard of the arms follows no more, for whatever reason."""
        body = self.parts.body
        if self.phase == "running" and body.mode not in ("following", "braking"):
            self.abort(f"the arms are {body.mode}: {body.reason}")

    def _watch_cameras(self) -> None:
        """Hold while a camera shows nothing, and end the episode when that lasts."""
        if self.phase != "running":
            return
        if reason := self._sight.stop_reason(self._now_ns):
            self.abort(reason)
            return
        reason = self._sight.hold_reason(self._now_ns)
        if bool(reason) == self._is_blind:
            return
        self._is_blind = bool(reason)
        self.parts.grid.set_held(self._now_ns, is_held=self._is_blind)
        if self._is_blind:
            self.counts.holds += 1
            self._held_since_ns = self._now_ns
            self._note(f"hold: {reason}")
        else:
            self.counts.held_ms += (self._now_ns - self._held_since_ns) / 1e6
            self._steps.forgive()

    def _note(self, reason: str) -> None:
        """Keep why it held, warned or stopped, and when."""
        self.counts.reasons.append(reason)
        self.counts.reacted_ms.append((self._now_ns - self._gate_ns) / 1e6)

    def has_finished(self) -> bool:
        """Return whether memory stands still after the end; ask again and again."""
        for event in self.parts.worker.events():
            self._hear(event)
        return self._has_finished

    def lose_worker(self, reason: str) -> None:
        """Hear that the worker is gone: nothing more is done, and nothing to be waited for."""
        if self.has_finished():
            return
        self.abort(reason := f"the worker's thread ended: {reason}")
        self.aborted = self.aborted or reason
        self._has_finished = True

    def _end(self, reason: str) -> None:
        """Let the arms brake, and the worker come to the end of what was given."""
        self.phase = "ended"
        if self._is_held:
            self.counts.held_ms += (self._now_ns - self._held_since_ns) / 1e6
        self.counts.limited = self.parts.body.num_limited - self._num_limited_before
        self.parts.body.stop(reason)
        self.parts.worker.put(Finish(epoch=self._epoch))
