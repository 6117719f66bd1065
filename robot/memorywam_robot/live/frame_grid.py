"""The memory clock: which images make which latent frame, on the grid of the training."""

from collections import deque
from collections.abc import Mapping
from itertools import count, takewhile
from typing import Literal

from memorywam_robot.live.grid_rules import (
    CameraFrame,
    CommitGroup,
    Decision,
    Fate,
    FrameNumbers,
    GridCounts,
    GridRules,
    GridShape,
    Hold,
    Reset,
    Resume,
    Stop,
    nearest,
)
from memorywam_runtime.errors import InputError

__all__ = ["FrameGrid"]


class FrameGrid:
    """Orders camera frames into groups, one a latent frame, whether or not anything is inferred.

    Slot k lies at t0 + k * period, where t0 is the opening of the start gate. A frame belongs to
    the slot nearest to its capture; the first of its camera takes it, or a later one if it had to
    wait so long for another camera that they could not be of one moment. A group is committed once
    each of its slots has a set of all cameras, or is given up for missing as the rules allow.

    One owner calls it, and every call says the time. What falls due before that happens first, in
    order, each at its own time: how often `poll` is called changes nothing but when one hears.
    """

    def __init__(self, shape: GridShape, rules: GridRules | None = None, epoch: int = 0) -> None:
        """Make a grid that is stopped until a reset begins the epoch after this one."""
        self.shape = shape
        self.rules = rules or GridRules()
        self.counts = GridCounts()
        self._late_ns = max(round(self.rules.late_ms * 1e6), shape.period_ns // 2)
        self._start_ns: int | None = None
        self._decisions: list[Decision] = []
        self._now_ns, self._epoch = 0, epoch
        self._forget(instruction_id=0)
        self._is_stopped = True

    @property
    def epoch(self) -> int:
        """The episode that frames and results must belong to."""
        return self._epoch

    @property
    def is_held(self) -> bool:
        """The grid lacks frames and asked for a hold that goes on."""
        return self._held_ns is not None

    @property
    def is_stopped(self) -> bool:
        """Only `reset` goes on from here."""
        return self._is_stopped

    @property
    def is_behind(self) -> bool:
        """Too many groups wait for memory to begin another chunk."""
        return self._next_group - self._num_done > self.rules.max_behind

    @property
    def num_open(self) -> int:
        """Slots that hold frames of groups not yet committed: what the grid keeps alive."""
        return len(self._sets.keys() | self._partial.keys())

    def due_ns(self) -> int | None:
        """Return the time of the first slot not given up that lacks a whole set.

        The first image captured from then on is the one to put in. None before the gate is open.
        """
        if self._start_ns is None or self._is_stopped:
            return None
        return self._slot_ns(next(filter(self._is_lacking, count(self._next_due))))

    def settled(self) -> list[tuple[int, Mapping[str, CameraFrame]]]:
        """Return slots and sets of the next group, up to the first that lacks one: all final."""
        slots = takewhile(self._sets.__contains__, self.shape.slots(self._next_group))
        return [(slot, self._sets[slot]) for slot in slots]

    def reset(self, instruction_id: int, now_ns: int) -> int:
        """Begin an episode with the gate shut; return its epoch. Counts of memory begin anew."""
        self._advance(now_ns)
        self._epoch += 1
        self._forget(instruction_id)
        self.counts.begin()
        told = Reset(at_ns=now_ns, epoch=self._epoch, instruction_id=instruction_id)
        self._decisions.append(told)
        return self._epoch

    def open_gate(self, now_ns: int) -> None:
        """Say that exposure has settled and the arms stand still: slot 0 is now.

        Raises:
            InputError: no episode was begun, it was stopped, or its gate is open.
        """
        self._advance(now_ns)
        if self._is_stopped or self._start_ns is not None:
            state = "stopped" if self._is_stopped else "open"
            raise InputError(f"the grid is {state}; expected a shut gate: reset before opening it")
        self._start_ns = now_ns

    def set_instruction(
        self, instruction_id: int, now_ns: int, mode: Literal["reset", "keep"] = "reset"
    ) -> None:
        """Change the instruction: with a new episode, or of the groups not yet committed."""
        self._advance(now_ns)
        self._instruction_id = instruction_id
        if mode == "reset":
            self.reset(instruction_id, now_ns)

    def set_held(self, now_ns: int, *, is_held: bool) -> None:
        """Say that the robot is held for another reason; memory goes on, up to a number."""
        self._advance(now_ns)
        self._is_held_outside = is_held

    def put(self, frame: CameraFrame, now_ns: int) -> Fate:
        """Take a frame; return what became of it.

        Raises:
            InputError: an unknown camera, or time ran backwards; nothing is changed.
        """
        if frame.camera not in self.shape.cameras:
            names = ", ".join(self.shape.cameras)
            raise InputError(f"found a frame of camera '{frame.camera}'; expected one of {names}")
        self._advance(now_ns)
        fate = self._refusal(frame, now_ns) or self._placed(frame, now_ns)
        self.counts.fates[fate] += 1
        return fate

    def done(self, epoch: int, frame: int, now_ns: int) -> bool:
        """Hear that memory took a group; return False, and count, if its epoch is over.

        Raises:
            InputError: another group than the next one that memory was given.
        """
        self._advance(now_ns)
        if not self.takes_result(epoch):
            return False
        if frame != self._num_done or frame >= self._next_group:
            raise InputError(
                f"found frame {frame} remembered; {self._next_group} were committed and "
                f"{self._num_done} remembered before it: memory takes them in order, once"
            )
        self._num_done += 1
        return True

    def takes_result(self, epoch: int) -> bool:
        """Return whether a result, such as a chunk, is of this epoch; count it if not."""
        self.counts.old_results += epoch != self._epoch
        return epoch == self._epoch

    def poll(self, now_ns: int) -> list[Decision]:
        """Return what was decided since the last poll, in order."""
        self._advance(now_ns)
        decisions, self._decisions = self._decisions, []
        return decisions

    def _forget(self, instruction_id: int) -> None:
        """Be as new, but for the epoch, the counts and what was decided."""
        self._instruction_id, self._start_ns = instruction_id, None
        self._held_ns: int | None = None
        self._is_held_outside = self._is_stopped = False
        self._partial: dict[int, dict[str, CameraFrame]] = {}
        self._sets: dict[int, Mapping[str, CameraFrame]] = {}
        self._last: dict[int, Mapping[str, CameraFrame]] = {}
        self._next_due = self._next_group = self._num_done = 0
        self._num_held_in_row = self._num_missing_in_row = 0
        self._filled_ns: deque[int] = deque(maxlen=self.rules.max_filled_groups + 1)
        self._numbers = FrameNumbers(self.rules.num_numbers)

    def _slot_ns(self, slot: int) -> int:
        return (self._start_ns or 0) + slot * self.shape.period_ns

    def _advance(self, now_ns: int) -> None:
        """Let happen, in order, all that fell due before now."""
        if now_ns < self._now_ns:
            raise InputError(
                f"found the time {now_ns} ns after {self._now_ns} ns; expected time to go on: "
                "take it from one monotonic clock, where the grid is called"
            )
        self._now_ns = now_ns
        while self._start_ns is not None and not self._is_stopped:
            due_ns = self._slot_ns(self._next_due) + self._late_ns
            if self._held_ns is not None:
                stop_ns = self._held_ns + round(self.rules.stop_after_ms * 1e6)
                if stop_ns <= due_ns and stop_ns < now_ns:
                    self._stop(stop_ns, f"no frames for {self.rules.stop_after_ms:g} ms of hold")
                    return
            if due_ns >= now_ns:
                return
            self._pass_slot(due_ns)

    def _pass_slot(self, at_ns: int) -> None:
        """Give the next slot up for missing if it has no set; commit what that completes."""
        slot, self._next_due = self._next_due, self._next_due + 1
        if self._is_lacking(slot):
            self.counts.missing += 1
            self._num_missing_in_row += 1
            if self._num_missing_in_row > self.rules.max_outage_slots:
                self._stop(at_ns, f"{self._num_missing_in_row} slots in a row without frames")
                return
            reason = self._excess(self.shape.group(slot), at_ns)
            if reason and self._held_ns is None:
                self._held_ns = at_ns
                self.counts.holds += 1
                self._decisions.append(Hold(at_ns=at_ns, epoch=self._epoch, reason=reason))
        self._commit(at_ns)

    def _is_lacking(self, slot: int) -> bool:
        """Return whether a slot is neither committed nor has a set."""
        return self.shape.group(slot) >= self._next_group and slot not in self._sets

    def _missing(self) -> list[int]:
        """Return the open slots that were given up, in order."""
        first = self.shape.slots(self._next_group)[0]
        return [slot for slot in range(first, self._next_due) if slot not in self._sets]

    def _excess(self, group: int, at_ns: int) -> str:
        """Return why a group's missing slots are more than may be filled; empty if they are not."""
        rules, missing = self.rules, self._missing()
        of_group = [slot for slot in missing if self.shape.group(slot) == group]
        if not of_group:
            return ""
        if self.shape.is_anchor(group):
            return f"slot {of_group[0]} of anchor {group} is missing"
        if len(of_group) > rules.max_filled_per_group:
            return f"{len(of_group)} slots of frame {group} are missing"
        since_ns = at_ns - round(rules.filled_window_s * 1e9)
        num = sum(filled_ns > since_ns for filled_ns in self._filled_ns)
        num += len({self.shape.group(slot) for slot in missing if slot <= of_group[-1]})
        if num > rules.max_filled_groups:
            return f"{num} frames with missing slots in {rules.filled_window_s:g} s"
        return ""

    def _refusal(self, frame: CameraFrame, now_ns: int) -> Fate | None:
        """Return why a frame is no use to any slot; None if it may be."""
        if frame.epoch != self._epoch:
            return "old_epoch"
        if self._is_stopped:
            return "after_stop"
        if self._start_ns is None or frame.captured_ns < self._start_ns:
            return "before_gate"
        if frame.captured_ns > now_ns:
            return "from_future"
        if not self._numbers.note(frame):
            return "duplicate"
        self.counts.reordered += self._numbers.is_reordered
        return None

    def _placed(self, frame: CameraFrame, now_ns: int) -> Fate:
        """Put a frame into its slot; go on from there if that completes a set."""
        slot = self.shape.nearest_slot(frame.captured_ns - self._slot_ns(0))
        if self.shape.group(slot) < self._next_group:
            return "too_late"
        apart_ns = self.rules.skew_ns(self.rules.skew_refused_share)
        images = self._partial.get(slot, {})
        held = images.get(frame.camera)
        if slot in self._sets or (held and frame.captured_ns - held.captured_ns <= apart_ns):
            return "taken"
        self._partial[slot] = images
        images[frame.camera] = frame
        if len(images) < len(self.shape.cameras):
            return "accepted" if slot >= self._next_due else "late"
        times = [image.captured_ns for image in images.values()]
        skew_ns = max(times) - min(times)
        if skew_ns > apart_ns:  # those of the newest moment wait for the others of it
            recent = {c: f for c, f in images.items() if max(times) - f.captured_ns <= apart_ns}
            self._partial[slot] = recent
            return "skewed"
        del self._partial[slot]
        self.counts.skew_warned += skew_ns > self.rules.skew_ns(self.rules.skew_warned_share)
        self.counts.worst_skew_ns = max(self.counts.worst_skew_ns, skew_ns)
        self._sets[slot] = {camera: images[camera] for camera in self.shape.cameras}
        self._num_missing_in_row = 0
        self._resume(slot, now_ns)
        self._commit(now_ns)
        return "accepted" if slot >= self._next_due else "late"

    def _resume(self, slot: int, now_ns: int) -> None:
        """End a hold if this set shows that the cameras are back, or mends what was amiss."""
        if self._held_ns is None:
            return
        missing = self._missing()
        groups = {self.shape.group(each) for each in missing}
        is_back = slot > max(missing, default=-1) and not any(map(self.shape.is_anchor, groups))
        if is_back or not any(self._excess(group, now_ns) for group in groups):
            self._held_ns = None
            self._decisions.append(Resume(at_ns=now_ns, epoch=self._epoch))

    def _commit(self, at_ns: int) -> None:
        """Commit, in order, the groups that are complete; blind ones wait while held."""
        while not self._is_stopped:
            group = self._next_group
            missing = [slot for slot in self.shape.slots(group) if slot not in self._sets]
            may_fill = not self.is_held and not self.shape.is_anchor(group)
            if missing and (missing[-1] >= self._next_due or not may_fill):
                return
            self._commit_group(group, missing, at_ns)

    def _commit_group(self, group: int, missing: list[int], at_ns: int) -> None:
        """Hand a group to memory, its missing slots filled with the nearest set."""
        slots = self.shape.slots(group)
        real = {slot: self._sets.pop(slot) for slot in slots if slot in self._sets}
        sources = self._last | real
        for slot in missing:
            self._partial.pop(slot, None)
        if real:
            self._last = {max(real): real[max(real)]}
        if missing:
            self._filled_ns.append(self._slot_ns(slots[-1]))
        is_held = self.is_held or self._is_held_outside
        self._num_held_in_row = (self._num_held_in_row + 1) * is_held
        self.counts.real += len(real)
        self.counts.filled += len(missing)
        self.counts.hold_frames += is_held
        self._next_group += 1
        self._decisions.append(
            CommitGroup(
                at_ns=at_ns,
                epoch=self._epoch,
                frame=group,
                slots=tuple(slots),
                sets=tuple(sources[nearest(slot, sources)] for slot in slots),
                filled=tuple(slot in missing for slot in slots),
                instruction_id=self._instruction_id,
                is_held=is_held,
            )
        )
        num_waiting = self._next_group - self._num_done
        if num_waiting > self.rules.max_waiting:
            self._stop(at_ns, f"{num_waiting} groups wait for memory")
        elif self._num_held_in_row > self.rules.max_hold_frames:
            self._stop(at_ns, f"{self._num_held_in_row} frames in a row remembered while held")

    def _stop(self, at_ns: int, reason: str) -> None:
        """End the episode."""
        self._is_stopped, self._held_ns = True, None
        self._partial, self._sets = {}, {}
        self._decisions.append(Stop(at_ns=at_ns, epoch=self._epoch, reason=reason))
