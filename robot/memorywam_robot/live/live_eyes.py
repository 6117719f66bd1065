"""From running cameras to the memory clock: which of their frames are offered to it."""

from memorywam_robot.live.grid_rules import CameraFrame
from memorywam_robot.live.live_counts import LiveCounts
from memorywam_robot.live.live_parts import Parts
from memorywam_robot.live.sight import Sight

__all__ = ["offer_frames"]


def offer_frames(
    parts: Parts, counts: LiveCounts, sight: Sight, *, epoch: int, gate_ns: int, now_ns: int
) -> None:
    """Give to the grid what cameras have captured from the time of a slot on.

    What is due is asked before anything is put: of a late tick, that may give up a slot whose
    images are only now looked at.

    Args:
        parts: Of the episode.
        counts: Of the episode.
        sight: Told of every frame that nothing speaks against.
        epoch: That the frames belong to.
        gate_ns: When the gate opened.
        now_ns: Monotonic.
    """
    grid, shape, due_ns = parts.grid, parts.grid.shape, parts.grid.due_ns()
    for camera in parts.cameras:
        for frame in camera.take():
            counts.camera_dropped += frame.num_dropped
            if parts.signal is not None:
                parts.signal.see(frame.camera, frame.captured_ns)
            if frame.doubt:
                counts.doubtful += due_ns is not None
                continue
            sight.see(frame)
            since_ns = frame.captured_ns - gate_ns
            is_early = shape.nearest_slot(since_ns) * shape.period_ns > since_ns
            if due_ns is None or frame.captured_ns < due_ns or is_early:
                continue
            offered = CameraFrame(
                camera=frame.camera,
                number=frame.number,
                captured_ns=frame.captured_ns,
                epoch=epoch,
                image=frame.image,
            )
            grid.put(offered, now_ns)
