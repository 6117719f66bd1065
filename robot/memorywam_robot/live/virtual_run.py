"""Episodes of the simulator in simulated time: the loop that keeps time, as fast as it computes."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.arms.virtual_arm import VirtualArm
from memorywam_robot.cameras.camera_arguments import CameraSpec
from memorywam_robot.cameras.camera_rules import NOISELESS, CameraRules
from memorywam_robot.cameras.frame_faults import FaultSchedule
from memorywam_robot.cameras.virtual_camera import Stepped, VirtualCamera, VirtualRealSense
from memorywam_robot.live.camera_rates import asked_rates, check_rates
from memorywam_robot.live.chunk_gate import ChunkGate
from memorywam_robot.live.chunks import ActionQueue
from memorywam_robot.live.delay import ExpectedDelay
from memorywam_robot.live.frame_grid import FrameGrid
from memorywam_robot.live.grid_rules import GridRules, grid_shape_from_contract
from memorywam_robot.live.instruction_changes import (
    Changes,
    InstructionChange,
    check_changes,
)
from memorywam_robot.live.live_episode import LiveEpisode
from memorywam_robot.live.live_parts import Listener, Parts
from memorywam_robot.live.live_result import LiveResult, dropped_gists, result_of
from memorywam_robot.live.live_rules import LiveRules
from memorywam_robot.live.load import Load
from memorywam_robot.live.tellers import Teller, hooks_of
from memorywam_robot.live.virtual_worker import Latency, VirtualWorker
from memorywam_robot.live.worker import ActingPolicy, Worker
from memorywam_robot.loop import EpisodeStart
from memorywam_robot.sim.joint_limits import simulated_limits
from memorywam_robot.sim.scene import CAMERA_SIZES
from memorywam_robot.sim.verdict import verdict_from_world
from memorywam_robot.sim.world import World
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import InputError

__all__ = ["VirtualRun", "latency_from_load"]

_REST_NS = 2_000_000_000
_FINISH_NS = 10_000_000_000
"""For the worker to come to the end of an episode."""
Drops = Callable[[str, int, int], bool]
"""Camera, frame number, and nanoseconds since the gate opened (below 0: shut) to: is it lost?"""


def latency_from_load(load: Load, num_denoising_steps: int) -> Latency:
    """Return what simulated time takes for the work that was measured."""
    return Latency(remember_ms=load.remember_ms, step_ms=load.act_ms / num_denoising_steps)


class VirtualRun:
    """A world, its cameras and arms, and one policy."""

    def __init__(
        self,
        policy: ActingPolicy,
        contract: InferenceContract,
        task: str,
        *,
        load: Load,
        latency: Latency,
        rules: LiveRules | None = None,
        grid_rules: GridRules | None = None,
        camera_hz: float = 50.0,
        carriers: Sequence[CameraSpec] = (),
        faults: FaultSchedule | None = None,
        camera_rules: CameraRules = NOISELESS,
        noise_level: int = 0,
        tellers: Sequence[Teller] = (),
        drops: Drops = lambda camera, number, since_ns: False,
    ) -> None:
        """Build the world.

        Args:
            policy: Nobody else calls it meanwhile.
            contract: Of the policy.
            task: Of the simulator.
            load: The cycle to keep.
            latency: What work costs in simulated time.
            rules: Of the loop.
            grid_rules: Of the memory clock.
            camera_hz: Of each camera.
            carriers: Cameras of the kind `realsense-sim`, whose images librealsense carries.
            faults: Of those.
            camera_rules: What is made of their images.
            noise_level: Of 255: what their sensors add, so that no two images are the same.
            tellers: Told of everything.
            drops: Frames of other cameras that are lost on their way.

        Raises:
            InputError: a camera of another kind or too slow, or faults of one without a carrier.
        """
        shape = grid_shape_from_contract(contract)
        check_rates(shape, asked_rates(shape.cameras, carriers, camera_hz))
        self.world = World(task)
        self._policy, self._contract, self._load = policy, contract, load
        self._latency, self._rules = latency, rules or LiveRules()
        self._period_ns = round(1e9 / self._rules.tick_hz)
        self._limits = simulated_limits()
        self.arm = VirtualArm(self.world, self._limits, self._period_ns)
        self._grid = FrameGrid(shape, grid_rules or GridRules(camera_hz=camera_hz))
        self._gate_ns: int | None = None
        self._drops = drops
        self._tellers, self._camera_rules = tellers, camera_rules
        self._noise, self._noise_level = np.random.default_rng(0), noise_level
        carried = _carried_names(carriers, faults)
        self._cameras: list[Stepped] = [
            self._carried(name, camera_hz, faults)
            if name in carried
            else self._camera(name, camera_hz)
            for name in CAMERA_SIZES
        ]
        self._now_ns = self._begun_ns = 0

    def close(self) -> None:
        """Free the renderers and the cameras."""
        for camera in self._cameras:
            camera.close()
        self.world.close()

    def episode(
        self,
        seed: int,
        *,
        instruction: str | None = None,
        num_steps: int | None = None,
        listeners: Sequence[Listener] = (),
        changes: Sequence[InstructionChange] = (),
    ) -> LiveResult:
        """Run an episode to its end.

        Args:
            seed: Of the world and of the policy's noise.
            instruction: Another one than the task's.
            num_steps: Another length than the task's.
            listeners: Told of observations and steps.
            changes: Other instructions on its way, in their order.

        Raises:
            InputError: a change after the episode's end.
        """
        world = self.world
        world.restart(seed)
        text = instruction or world.instruction
        start = EpisodeStart(
            seed=seed, instruction=text, num_steps=num_steps or world.script.num_steps
        )
        check_changes(changes, start.num_steps)
        worker = Worker(self._policy, now_ns=lambda: self._now_ns, **hooks_of(self._tellers))
        virtual = VirtualWorker(worker, self._latency)
        self._gate_ns = None
        self._now_ns += self._period_ns
        self._grid = FrameGrid(self._grid.shape, self._grid.rules, self._grid.epoch)
        self.arm.start(self._now_ns)
        for camera in self._cameras:
            camera.close()
            camera.start()
        self._begun_ns = self._now_ns
        episode = LiveEpisode(
            self._parts(virtual, [*listeners, *self._tellers]), start, self._now_ns
        )
        coming = Changes(changes)
        while self._turn(episode, virtual, coming):
            pass
        self._finish(episode, virtual)
        seconds = (self._now_ns - self._begun_ns) / 1e9
        rest_ms = self._come_to_rest()
        result = result_of(
            episode,
            verdict_from_world(world),
            seconds,
            rest_ms,
            num_dropped_gists=dropped_gists(self._policy),
        )
        for teller in self._tellers:
            teller.end(result)
        return result

    def _turn(self, episode: LiveEpisode, virtual: VirtualWorker, coming: Changes) -> bool:
        """Make one turn of world and loop; return whether the episode goes on."""
        self._now_ns += self._period_ns
        self.arm.move(self._now_ns)
        for camera in self._cameras:
            camera.advance(self._now_ns)
        virtual.advance(self._now_ns)
        going = episode.tick(self._now_ns)
        if going:
            coming.make(episode)
        self.arm.guard(self._now_ns)
        return going

    def _finish(self, episode: LiveEpisode, virtual: VirtualWorker) -> None:
        """Let the worker come to the end of the episode; the arms wait."""
        done_ns = self._now_ns
        while not episode.has_finished():
            if done_ns - self._now_ns > _FINISH_NS:
                episode.counts.reasons.append("hang: the policy did not come to an end")
                break
            done_ns += self._period_ns
            virtual.advance(done_ns)

    def _come_to_rest(self) -> float:
        """Let the guard brake the arms; return how long that took, ms."""
        since_ns = self._now_ns
        while self.arm.mode == "braking" and self._now_ns - since_ns < _REST_NS:
            self._now_ns += self._period_ns
            self.arm.move(self._now_ns)
            self.arm.guard(self._now_ns)
        return (self._now_ns - since_ns) / 1e6

    def _parts(self, worker: VirtualWorker, listeners: Sequence[Listener]) -> Parts:
        contract, rules = self._contract, self._rules
        return Parts(
            contract=contract,
            cameras=self._cameras,
            body=self.arm,
            worker=worker,
            grid=self._grid,
            gate=ChunkGate(self._limits, contract.actions.horizon),
            queue=ActionQueue(
                contract.actions.action_dim, seam=rules.seam, num_blended=rules.num_blended
            ),
            load=self._load,
            delay=ExpectedDelay(self._load),  # a seed is the same episode, whatever was before
            rules=rules,
            listeners=listeners,
            begun=self._begin,
        )

    @property
    def gate_after_ms(self) -> float:
        """How long after its start the last episode's gate opened; 0 if it never did."""
        return 0.0 if self._gate_ns is None else (self._gate_ns - self._begun_ns) / 1e6

    def _begin(self) -> None:
        self._gate_ns = self._now_ns
        self.arm.is_script_running = True

    def _carried(self, name: str, hz: float, faults: FaultSchedule | None) -> VirtualRealSense:
        def view() -> NDArray[np.uint8]:
            image = self.world.image(name)
            if not self._noise_level:
                return image
            grain = self._noise.integers(0, self._noise_level, image.shape, np.uint8)
            return np.where(image > 255 - grain, 255, image + grain).astype(np.uint8)

        return VirtualRealSense(
            name, view, hz, size=CAMERA_SIZES[name], faults=faults, rules=self._camera_rules
        )

    def _camera(self, name: str, hz: float) -> VirtualCamera:
        def wants(captured_ns: int) -> bool:
            due_ns = self._grid.due_ns()
            return due_ns is not None and captured_ns >= due_ns

        def drops(number: int, captured_ns: int) -> bool:
            since_ns = -1 if self._gate_ns is None else captured_ns - self._gate_ns
            return self._drops(name, number, since_ns)

        def view() -> NDArray[np.uint8]:
            return self.world.image(name)

        return VirtualCamera(name, view, hz, wants=wants, drops=drops)


def _carried_names(carriers: Sequence[CameraSpec], faults: FaultSchedule | None) -> set[str]:
    """Return the cameras whose images librealsense carries; refuse others, and faults of others."""
    carried = {spec.name for spec in carriers if spec.kind == "realsense-sim"}
    if len(carried) != len(carriers) or not carried <= CAMERA_SIZES.keys():
        named = ", ".join(f"{spec.name}={spec.kind}" for spec in carriers)
        raise InputError(
            f"found cameras {named}; expected NAME=realsense-sim of "
            f"{', '.join(CAMERA_SIZES)} in simulated time"
        )
    if faults is not None and faults.faults and not carried:
        raise InputError("found faults of cameras; expected --cameras NAME=realsense-sim")
    return carried
