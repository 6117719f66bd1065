"""The reference computes today what it computed when its figures were written down.

Regenerate after an intended change: `python -m tests.export.test_golden`, and say why in the
commit message.
"""

import json
from pathlib import Path

import numpy as np
import torch
from tests.fakes.episodes import random_episode

from memorywam_export.checkpoints.checkpoint import checkpoint_from_argument
from memorywam_export.reference.model import MemoryWam
from memorywam_export.reference.oracle import Episode, episode_velocities

GOLDEN = Path(__file__).parents[1] / "assets" / "golden_tiny.json"
NUM_FRAMES = 8


def velocities() -> np.ndarray:
    """Return [frames, 3, action_dim]: the first, middle and last action's velocity a frame."""
    checkpoint = checkpoint_from_argument("random:tiny:7", dtype=torch.float64)
    model = MemoryWam(checkpoint.contract).double()
    model.load_state_dict({w.name: w.load() for w in checkpoint.weights})
    episode = random_episode(checkpoint.contract, NUM_FRAMES, seed=7)
    video = torch.from_numpy(np.concatenate(episode.pixels, axis=2))
    with torch.no_grad():
        found = episode_velocities(
            model,
            Episode(
                latents=model.vae.encode(video),
                states=torch.from_numpy(episode.states)[None],
                context=torch.from_numpy(episode.context),
                noisy_actions=torch.from_numpy(episode.noise)[None],
                timesteps=torch.full((1, NUM_FRAMES), 500.0, dtype=torch.float64),
            ),
        )
    return found[0][:, [0, 8, 15]].numpy()


def test_the_reference_is_what_it_was():
    golden = np.array(json.loads(GOLDEN.read_text())["velocities"])
    found = velocities()
    assert found.shape == golden.shape
    assert np.abs(golden).max() > 0.1
    assert np.abs(found - golden).max() <= 1e-9


if __name__ == "__main__":
    rounded = np.round(velocities(), 12).tolist()
    GOLDEN.write_text(json.dumps({"velocities": rounded}) + "\n")
