"""Record expert episodes of the simulated robot as arrays to train on."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from memorywam_robot.sim.expert import Expert
from memorywam_robot.sim.tasks import TASKS
from memorywam_robot.sim.world import World
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.transforms import mosaic_from_images

__all__ = ["MAX_FRAMES", "record_all"]

MAX_FRAMES = 16
"""Latent frames an episode is padded to."""


def record_all(
    contract: InferenceContract, path: Path, *, episodes_per_task: int, first_seed: int
) -> None:
    """Write arrays of all tasks' episodes to one .npz file, two processes at a time.

    Arrays: images [N, 1 + 4 * (MAX_FRAMES - 1), H, W, 3] uint8 mosaics, states
    [N, MAX_FRAMES, 14], chunks [N, MAX_FRAMES, 16, 14], task [N], target [N], go [N], length [N].
    """
    jobs = []
    for task in TASKS:
        seeds = list(range(first_seed, first_seed + episodes_per_task))
        jobs += [(contract, task, seeds[i::8]) for i in range(8)]
    with ProcessPoolExecutor(2) as pool:
        parts = list(pool.map(_record, *zip(*jobs, strict=True)))
    arrays = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    np.savez(path, **arrays)  # type: ignore[arg-type]


def _record(contract: InferenceContract, task: str, seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Return the arrays of these seeds of one task."""
    rows: dict[str, list[np.ndarray]] = {
        key: [] for key in ("images", "states", "chunks", "task", "target", "go", "length")
    }
    with World(task, seeds[0]) as world:
        for seed in seeds:
            images, states, chunks = _episode(contract, world, seed)
            length = len(states)
            pad = MAX_FRAMES - length
            rows["length"].append(np.array(length))
            rows["images"].append(np.concatenate([images, images[-1:].repeat(4 * pad, 0)]))
            rows["states"].append(np.concatenate([states, states[-1:].repeat(pad, 0)]))
            rows["chunks"].append(np.concatenate([chunks, chunks[-1:].repeat(pad, 0)]))
            rows["task"].append(np.array(TASKS.index(task)))
            rows["target"].append(np.array(world.script.target))
            rows["go"].append(np.array(world.script.go_frame))
    return {key: np.stack(values) for key, values in rows.items()}


def _episode(
    contract: InferenceContract, world: World, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mosaics [1 + 4 (n - 1), H, W, 3], states [n, 14], chunks [n, 16, 14] of n frames."""
    observation = world.reset(seed)
    expert = Expert(world)
    images = [mosaic_from_images(observation.images, contract.observations)]
    states, chunks = [], []
    frame = 0
    while True:
        states.append(world.state)
        chunk = expert.chunk(frame)
        chunks.append(chunk)
        if world.is_done or frame == MAX_FRAMES - 1:
            break
        for index, action in enumerate(chunk):
            world.step(action)
            if (index + 1) % contract.observations.steps_per_image == 0:
                observation = world.observe()
                images.append(mosaic_from_images(observation.images, contract.observations))
        frame += 1
    return np.stack(images), np.stack(states), np.stack(chunks)
