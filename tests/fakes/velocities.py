"""The same episode through the masked oracle and through a session: velocities of both."""

import numpy as np
import torch
from numpy.typing import NDArray
from tests.fakes.episodes import RandomEpisode, identity

from memorywam_export.checkpoints.weights import Weight
from memorywam_export.eager.eager import eager_session, rewritten_model
from memorywam_export.graphs.rewrites import NO_REWRITES, Rewrites
from memorywam_export.reference.model import MemoryWam
from memorywam_export.reference.oracle import Episode, episode_velocities
from memorywam_runtime.manifest import CacheWrite
from memorywam_runtime.memory import Visible
from memorywam_runtime.padding import with_text_bias

__all__ = ["NUM_TOKENS", "TIMESTEP", "oracle_velocities", "slot_velocities", "weights_of"]

TIMESTEP = 700.0
NUM_TOKENS = 3
"""Of the prompt in `random_episode`; the other rows of its context are zero."""


def weights_of(model: MemoryWam) -> list[Weight]:
    """Return a model's weights as a checkpoint has them."""

    def weight(name: str, tensor: torch.Tensor) -> Weight:
        return Weight(name, tuple(tensor.shape), tensor.dtype, lambda: tensor)

    return [weight(name, tensor) for name, tensor in model.state_dict().items()]


def oracle_velocities(
    model: MemoryWam, episode: RandomEpisode, latents: torch.Tensor, visible: Visible
) -> NDArray[np.float64]:
    """Return [frames, horizon, action_dim] of the whole episode under one mask."""
    has_history = model.contract.conventions.action_history
    num_frames = len(episode.pixels)
    with torch.no_grad():
        found: NDArray[np.float64] = episode_velocities(
            model,
            Episode(
                latents=latents,
                states=torch.from_numpy(episode.states)[None],
                context=torch.from_numpy(episode.context),
                noisy_actions=torch.from_numpy(episode.noise)[None],
                timesteps=torch.full((1, num_frames), TIMESTEP, dtype=torch.float64),
                executed=torch.from_numpy(episode.executed)[None] if has_history else None,
            ),
            visible,
        )[0].numpy()
    return found


def slot_velocities(
    model: MemoryWam,
    episode: RandomEpisode,
    cache_write: CacheWrite,
    visible: Visible | None,
    rewrites: Rewrites = NO_REWRITES,
) -> tuple[NDArray[np.float64], torch.Tensor]:
    """Drive the runtime's session frame by frame; return velocities and latents.

    The prompt's keys and values are the reference's, whatever the rewrites.
    """
    contract = model.contract
    with torch.no_grad():
        video, action = model.text_keys_values(torch.from_numpy(episode.context))
        if rewrites.names:
            model = rewritten_model(contract, weights_of(model), torch.float64, rewrites)
    session = eager_session(model, identity(contract), cache_write=cache_write, visible=visible)
    specs = session.manifest.graphs["prompt_kv"].outputs
    tensors = [t.numpy() for pair in (*video[:-1], *action) for t in pair]
    text = {
        spec.name: np.ascontiguousarray(tensor[:, :, : spec.fixed_shape[2]])
        for spec, tensor in zip(specs, tensors, strict=True)
    }
    session.reset(with_text_bias(session.manifest, text, NUM_TOKENS))
    velocities, latents = [], []
    for frame, pixels in enumerate(episode.pixels):
        past = episode.executed[frame - 1]
        has_past = frame > 0 and contract.conventions.action_history
        of_video = contract.conventions.proprio_in_video_context
        session.remember(
            pixels, past if has_past else None, episode.states[frame] if of_video else None
        )
        latents.append(torch.from_numpy(session.calls.tensor("cache_update", "latent").copy()))
        session.set_state(episode.states[frame])
        # One Euler step of length 1 from a fixed timestep: x_next - x is the velocity.
        session._prepare_chunk(session.memory.rows.chunk)
        session.calls.input("action_step", "x").put(episode.noise[frame][None])
        session.calls._step("a test's", TIMESTEP, 1.0, turn=0)()
        x_next = session.calls.tensor("action_step", "x_next")[0]
        velocities.append(x_next - episode.noise[frame])
    return np.stack(velocities), torch.cat(latents, dim=2)
