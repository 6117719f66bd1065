"""Training computes what the oracle computes, on episodes that could have happened."""

import torch

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_export.reference.model import MemoryWam
from memorywam_export.reference.oracle import Episode, episode_velocities
from tests.demo_training.policy import Batches, chunk_velocities, shortened

BATCH, NUM_FRAMES, NUM_CHUNKS = 3, 7, 2


@torch.no_grad()
def test_a_few_chunks_equal_the_oracles():
    torch.manual_seed(0)
    contract = contract_from_preset("demo")
    model = MemoryWam(contract).double()
    double = torch.float64
    latents = torch.randn(BATCH, 16, NUM_FRAMES, *contract.latent_shape, dtype=double)
    states = torch.randn(BATCH, NUM_FRAMES, 14, dtype=double)
    context = torch.randn(BATCH, 16, contract.text_dim, dtype=double)
    noisy = torch.randn(BATCH, NUM_FRAMES, 16, 14, dtype=double)
    timesteps = 1000 * torch.rand(BATCH, NUM_FRAMES, dtype=double)
    frames = torch.tensor([[0, 6], [3, 1], [5, 5]])
    row = torch.arange(BATCH)[:, None]
    wanted = episode_velocities(
        model,
        Episode(
            latents=latents,
            states=states,
            context=context,
            noisy_actions=noisy,
            timesteps=timesteps,
        ),
    )[row, frames]
    found = chunk_velocities(
        model,
        latents,
        context,
        states[row, frames],
        frames,
        noisy[row, frames],
        timesteps[row, frames],
    )
    assert wanted.abs().max() > 0.1
    assert (found - wanted).abs().max() <= 1e-10


def test_shortening_cuts_only_dark_frames_between_cue_and_go():
    frame = torch.arange(12).expand(2, -1)
    episodes = Batches(
        latents=frame[:, None, :, None, None].float(),
        states=frame[..., None].float(),
        chunks=frame[..., None, None].float(),
        contexts=torch.zeros(3, 1, 1),
        task=torch.tensor([0, 1]),
        target=torch.tensor([2, 0]),
        go=torch.tensor([8, 9]),
        cue_end=torch.tensor([1, 4]),
        length=torch.tensor([11, 12]),
    )
    short = shortened(episodes, 0.0)
    assert short.go.tolist() == [2, 5]
    assert short.states[0, :5, 0].tolist() == [0, 1, 8, 9, 10]
    assert short.states[1, :8, 0].tolist() == [0, 1, 2, 3, 4, 9, 10, 11]
    assert torch.equal(short.latents[:, 0, :, 0, 0], short.states[..., 0])
    assert shortened(episodes, 1.0) is episodes
