"""Random models, statistics and episodes, the same for the same seed."""

from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_export.reference.model import MemoryWam
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.normalization import Affine, Normalization

__all__ = ["RandomEpisode", "contract_with", "identity", "random_episode", "random_model"]


def contract_with(preset: str = "tiny", **conventions: object) -> InferenceContract:
    """Return a preset with some conventions changed."""
    contract = contract_from_preset(preset)
    changed = msgspec.structs.replace(contract.conventions, **conventions)
    return msgspec.structs.replace(contract, conventions=changed)


def random_model(
    contract: InferenceContract, dtype: torch.dtype = torch.float64, seed: int = 0
) -> MemoryWam:
    """Return a model whose every parameter matters: no zeros, no ones, no dead gist."""
    torch.manual_seed(seed)
    model = MemoryWam(contract).to(dtype).eval().requires_grad_(requires_grad=False)
    for name, parameter in model.named_parameters():
        if name.endswith(("norm_q.weight", "norm_k.weight", "norm3.weight", "norm3.bias", "gamma")):
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.gist_tokens.copy_(torch.randn_like(model.gist_tokens))
    return model


def identity(contract: InferenceContract) -> Normalization:
    """Return a normalization that changes nothing."""

    def unit(size: int) -> Affine:
        return Affine(scale=(1.0,) * size, offset=(0.0,) * size, clamp=1e6)

    return Normalization(
        state=unit(contract.actions.state_dim), action=unit(contract.actions.action_dim)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomEpisode:
    """One episode of random pictures, states, noise and prompt."""

    pixels: list[NDArray[np.float64]]
    states: NDArray[np.float64]
    noise: NDArray[np.float64]
    executed: NDArray[np.float64]
    context: NDArray[np.float64]


def random_episode(contract: InferenceContract, num_frames: int, seed: int = 0) -> RandomEpisode:
    """Return an episode of a contract's sizes."""
    rng = np.random.default_rng(seed)
    views, actions = contract.observations, contract.actions
    single = contract.conventions.vae_history == "single_frame"
    counts = [
        1 if single or frame == 0 else contract.images_per_frame for frame in range(num_frames)
    ]
    context = np.zeros((1, contract.conventions.text_len, contract.text_dim))
    context[:, :3] = rng.standard_normal((1, 3, contract.text_dim))
    chunk = (num_frames, actions.horizon, actions.action_dim)
    return RandomEpisode(
        pixels=[rng.uniform(-1, 1, (1, 3, n, views.height, views.width)) for n in counts],
        states=rng.standard_normal((num_frames, actions.state_dim)),
        noise=rng.standard_normal(chunk),
        executed=rng.standard_normal(chunk),
        context=context,
    )
