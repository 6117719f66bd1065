"""Slots, window and gists against a model that knows no slots: what is seen, by rule alone."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.contracts import small_contracts, visibles

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_runtime.errors import CapacityError, InputError
from memorywam_runtime.memory import HIDDEN, Memory, Rows, Visible

FREE = ("free",)


class Simulated:
    """A memory tensor whose rows hold labels: what a session would have written where.

    It follows the session's steps, but never asks `Memory` what is seen.
    """

    def __init__(self, contract, capacity, *, in_place, visible):
        self.contract = contract
        self.in_place = in_place
        self.visible = visible
        self.capacity = capacity
        self.memory = Memory(
            contract, max_frames=capacity, on_full="drop-oldest-gist", visible=visible
        )
        self.rows = Rows(contract)
        self.labels = [FREE] * self.rows.total(capacity)
        self.acted = set()

    def write(self, row, labels):
        self.labels[row : row + len(labels)] = labels

    def frame_labels(self, frame):
        visual = [("visual", frame, i) for i in range(self.contract.num_visual)]
        return visual, [("gist", frame, i) for i in range(self.contract.memory.num_gists)]

    def seen(self, bias):
        """Return the labels that a bias shows; rows behind memory are the caller's own."""
        assert set(np.unique(bias)) <= {0.0, HIDDEN}
        own = [("own", i) for i in range(len(bias) - len(self.labels))]
        labels = [*self.labels, *own]
        shown = [labels[row] for row in np.flatnonzero(bias == 0.0)]
        assert FREE not in shown, "an unwritten row is seen"
        assert len(shown) == len(set(shown)), "a row and its copy are both seen"
        return set(shown)

    def remember(self):
        """Write the next frame; return what its visual and its gist tokens saw."""
        memory, rows = self.memory, self.rows
        frame = memory.num_frames
        slot = rows.slot(memory.slot_of(frame))
        visual, gist = self.frame_labels(frame)
        # In place, a graph writes the frame's rows before it attends; otherwise they are behind.
        own_row = slot if self.in_place else len(self.labels)
        extra = 0 if self.in_place else rows.num_frame
        if self.in_place:
            self.write(slot, [*visual, *gist])
        biases = np.empty(len(self.labels) + extra), np.empty(len(self.labels) + extra)
        memory.frame_bias(own_row, *biases)
        own = dict(zip([("own", i) for i in range(extra)], [*visual, *gist], strict=False))
        found = [{own.get(label, label) for label in self.seen(bias)} for bias in biases]
        self.write(slot, [*visual, *gist])
        memory.remembered()
        if gist:
            # The copy in the slot is never seen again: only the table is.
            place = rows.gist(memory.gist_place(frame))
            self.write(place, gist)
            self.write(slot + len(visual), [("copy", *label) for label in gist])
        return found

    def act(self):
        """Return what a chunk sees."""
        memory, rows = self.memory, self.rows
        own = [("action", "now", i) for i in range(rows.num_actions)]
        extra = 0 if self.in_place else rows.num_actions
        if self.in_place:
            self.write(rows.chunk, own)
        bias = np.empty(len(self.labels) + extra)
        memory.action_bias(rows.chunk if self.in_place else len(self.labels), bias)
        names = dict(zip([("own", i) for i in range(extra)], own, strict=False))
        return {names.get(label, label) for label in self.seen(bias)}

    def execute(self):
        """Write the newest frame's executed actions."""
        frame = self.memory.num_frames - 1
        row = self.rows.history(self.memory.slot_of(frame))
        self.write(row, [("action", frame, i) for i in range(self.rows.num_history)])
        self.memory.executed()
        self.acted.add(frame)

    def held(self, now):
        """Return the frames that are seen in full when `now` is the newest."""
        sizes, conventions = self.contract.memory, self.contract.conventions
        # "4 recent" counts the current frame, or counts those before it.
        reach = sizes.num_recent - 1 + (not conventions.recent_includes_current)
        oldest = now - reach if self.visible.window else now
        return {
            frame
            for frame in range(now + 1)
            if frame >= oldest or (frame < sizes.num_anchors and self.visible.anchors)
        }

    def gists(self, last):
        """Return labels of the gists still in the table once frames up to `last` are in it."""
        first = max(0, last + 1 - self.capacity)
        frames = range(first, last + 1) if self.visible.gists else ()
        return {label for frame in frames for label in self.frame_labels(frame)[1]}

    def wanted_by_frame(self, frame):
        visual, gist = (set(labels) for labels in self.frame_labels(frame))
        past = {v for other in self.held(frame) for v in self.frame_labels(other)[0]}
        seen = past | visual | self.gists(frame - 1)
        of_visual = seen | gist if self.contract.conventions.visual_sees_own_gist else seen
        return [of_visual, seen | gist]

    def wanted_by_chunk(self, frame):
        seen = {v for other in self.held(frame) for v in self.frame_labels(other)[0]}
        own = {("action", "now", i) for i in range(self.rows.num_actions)}
        executed = {
            ("action", other, i)
            for other in self.held(frame) & self.acted - {frame}
            for i in range(self.rows.num_history)
        }
        return seen | self.gists(frame) | own | executed


@settings(max_examples=150, deadline=None)
@given(
    contract=small_contracts(),
    capacity=st.integers(1, 20),
    in_place=st.booleans(),
    visible=visibles,
    acts=st.lists(st.booleans(), min_size=1, max_size=20),
)
def test_rows_seen_are_those_of_the_rules(contract, capacity, in_place, visible, acts):
    simulated = Simulated(contract, capacity, in_place=in_place, visible=visible)
    for frame, has_acted in enumerate(acts):
        assert simulated.remember() == simulated.wanted_by_frame(frame)
        assert simulated.act() == simulated.wanted_by_chunk(frame)
        if has_acted and contract.conventions.action_history:
            simulated.execute()
            # Its own executed actions are not seen by a chunk of the same frame.
            assert simulated.act() == simulated.wanted_by_chunk(frame)
    gists = contract.memory.num_gists > 0
    assert simulated.memory.num_dropped_gists == (max(0, len(acts) - capacity) if gists else 0)


@given(contract=small_contracts(), frame=st.integers(0, 200))
def test_anchors_keep_their_slots_and_the_others_form_a_ring(contract, frame):
    memory = Memory(contract, max_frames=1)
    anchors, ring = contract.memory.num_anchors, contract.num_ring_slots
    slots = {memory.slot_of(frame + i) for i in range(ring)}
    if frame < anchors:
        assert memory.slot_of(frame) == frame
    else:
        assert slots == set(range(anchors, anchors + ring))
        assert memory.slot_of(frame) == memory.slot_of(frame + ring)
    assert max(slots) < memory.rows.num_slots


@given(contract=small_contracts(), capacity=st.integers(1, 50))
def test_rows_do_not_overlap(contract, capacity):
    rows = Rows(contract)
    owners = np.zeros(rows.total(capacity), int)
    for slot in range(rows.num_slots):
        owners[rows.slot(slot) : rows.slot(slot) + rows.num_frame] += 1
        owners[rows.history(slot) : rows.history(slot) + rows.num_history] += 1
    owners[rows.chunk : rows.chunk + rows.num_actions] += 1
    for place in range(capacity):
        owners[rows.gist(place) : rows.gist(place) + rows.num_gists] += 1
    assert (owners == 1).all()


@given(contract=small_contracts(), cut=st.integers(0, 12), more=st.integers(1, 8))
def test_restored_counters_go_on_as_before(contract, cut, more):
    first = Simulated(contract, 9, in_place=True, visible=Visible())
    for _ in range(cut):
        first.remember()
        if contract.conventions.action_history:
            first.execute()
    other = Memory(contract, max_frames=9, on_full="drop-oldest-gist")
    other.restore(msgspec.json.decode(msgspec.json.encode(first.memory.snapshot()), type=_STATE))
    for _ in range(more):
        assert other.snapshot() == first.memory.snapshot()
        for memory in (first.memory, other):
            memory.remembered()
        found, wanted = (np.empty(len(first.labels)) for _ in range(2))
        other.action_bias(first.rows.chunk, found)
        first.memory.action_bias(first.rows.chunk, wanted)
        np.testing.assert_array_equal(found, wanted)


_STATE = type(Memory(contract_from_preset("tiny"), max_frames=1).snapshot())


def filled(num_frames, max_frames=4, on_full="refuse", preset="tiny"):
    memory = Memory(contract_from_preset(preset), max_frames=max_frames, on_full=on_full)
    for _ in range(num_frames):
        memory.check_capacity()
        memory.remembered()
    return memory


@pytest.mark.parametrize("on_full", ["refuse", "stop"])
def test_a_full_table_refuses_the_next_frame(on_full):
    memory = filled(4, on_full=on_full)
    with pytest.raises(
        CapacityError,
        match=rf"4 frames remembered, capacity 4, policy '{on_full}'; reset .* larger --max-frames",
    ):
        memory.check_capacity()
    assert memory.num_frames == 4


def test_the_oldest_gists_may_be_dropped():
    memory = filled(11, on_full="drop-oldest-gist")
    assert memory.num_frames == 11
    assert memory.num_dropped_gists == 7
    assert [memory.gist_place(frame) for frame in (8, 9, 10)] == [0, 1, 2]
    assert memory.num_table_places(11) == 4


def test_without_gists_nothing_is_ever_full():
    memory = filled(40, preset="tiny-fastwam")
    assert memory.num_frames == 40
    assert memory.num_dropped_gists == 0


def test_reset_forgets_everything():
    memory = filled(4)
    empty = filled(0)
    memory.reset()
    assert memory.snapshot() == empty.snapshot()
    memory.check_capacity()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_frames": 0}, "found max_frames 0; expected at least 1"),
        ({"max_frames": -2}, "found max_frames -2; expected at least 1"),
        (
            {"max_frames": 1, "on_full": "panic"},
            "unknown on_full 'panic'; expected one of refuse, stop, drop-oldest-gist",
        ),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Memory(contract_from_preset("tiny"), **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slot_frames": (0, 1)}, "found a snapshot with 2 slots; expected 5"),
        ({"slot_has_actions": (False,)}, "with 1 slot_has_actions; expected 5"),
        ({"num_dropped_gists": 3}, "of 2 frames with 3 dropped gists; .* another max_frames"),
        ({"num_frames": 9}, "of 9 frames with 0 dropped gists; a memory of 4 would have dropped 5"),
    ],
)
def test_restore_refuses_other_memories_and_changes_nothing(changes, message):
    memory = filled(2)
    before = memory.snapshot()
    with pytest.raises(InputError, match=message):
        memory.restore(msgspec.structs.replace(before, **changes))
    assert memory.snapshot() == before
