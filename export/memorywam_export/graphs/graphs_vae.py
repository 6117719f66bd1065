"""The video encoder's graphs: the first image, a whole group, or an image, a pair and a group.

Every convolution in time looks back only, so the parts that need one image, two images or the
group of four can run as soon as these are there. The cuts lie where time is halved: before them
every image, or every pair, is computed by itself.
"""

import torch
from torch import nn

from memorywam_export.reference.model import MemoryWam
from memorywam_export.reference.vae import unshuffled
from memorywam_export.reference.vae_blocks import Stage, Stream, run

__all__ = ["VaeFirst", "VaeGroup", "VaeImage", "VaePair", "VaeStep"]

Tensors = list[torch.Tensor]


class VaeFirst(nn.Module):
    """vae_first: the first image of an episode to latent frame 0 and fresh feature caches."""

    def __init__(self, model: MemoryWam) -> None:
        super().__init__()
        self.vae = model.vae

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return latent [1, C, 1, h, w], then the caches."""
        latent, caches = self.vae.first(image.to(self.vae.conv1.weight.dtype))
        return (latent, *caches)


class VaeStep(nn.Module):
    """vae_step: the next group of images to the next latent frame, over the feature caches."""

    def __init__(self, model: MemoryWam) -> None:
        super().__init__()
        self.vae = model.vae

    def forward(self, images: torch.Tensor, caches: Tensors) -> tuple[torch.Tensor, ...]:
        """Return latent [1, C, 1, h, w], then the caches."""
        latent, new = self.vae.step(images.to(self.vae.conv1.weight.dtype), tuple(caches))
        return (latent, *new)


class _Part(nn.Module):
    """One of three parts of vae_step; its caches are those of its own layers."""

    def __init__(self, model: MemoryWam) -> None:
        super().__init__()
        self.vae = model.vae
        halves = (*model.vae.sizes.temporal_downsample, False)
        self.cuts = [index for index, halves_time in enumerate(halves) if halves_time]

    def stages(self, first: int, last: int | None) -> list[Stage]:
        """Return stages of the encoder's trunk."""
        found = list(self.vae.encoder.downsamples)[first:last]
        return [stage for stage in found if isinstance(stage, Stage)]

    def until(self, cut: int, x: torch.Tensor, stream: Stream) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features before a stage halves time, and what that stage got."""
        (stage,) = self.stages(cut, cut + 1)
        return stage.until_time(x, stream), x

    def behind(
        self, cut: int, firsts: tuple[torch.Tensor, ...], seconds: tuple[torch.Tensor, ...],
        stream: Stream,
    ) -> torch.Tensor:  # fmt: skip
        """Return what a stage makes of two units' features and inputs, one behind the other."""
        (stage,) = self.stages(cut, cut + 1)
        features, inputs = (torch.cat(both, 2) for both in zip(firsts, seconds, strict=True))
        return stage.from_time(features, inputs, stream)


class VaeImage(_Part):
    """vae_image: one image, up to where two images become one."""

    def forward(self, image: torch.Tensor, caches: Tensors) -> tuple[torch.Tensor, ...]:
        """Return features [1, C, 1, h, w] and the stage's input, then the caches."""
        stream, trunk, cut = Stream(caches), self.vae.encoder, self.cuts[0]
        pixels = unshuffled(image.to(self.vae.conv1.weight.dtype))
        x = run(self.stages(0, cut), trunk.conv1(pixels, stream), stream)
        return (*self.until(cut, x, stream), *stream.kept)


class VaePair(_Part):
    """vae_pair: two images' features, up to where two pairs become one."""

    def forward(
        self,
        features_0: torch.Tensor,
        shortcut_0: torch.Tensor,
        features_1: torch.Tensor,
        shortcut_1: torch.Tensor,
        caches: Tensors,
    ) -> tuple[torch.Tensor, ...]:
        """Return features [1, C, 1, h, w] and the stage's input, then the caches."""
        stream, (before, cut) = Stream(caches), self.cuts
        x = self.behind(before, (features_0, shortcut_0), (features_1, shortcut_1), stream)
        x = run(self.stages(before + 1, cut), x, stream)
        return (*self.until(cut, x, stream), *stream.kept)


class VaeGroup(_Part):
    """vae_group: two pairs' features to the latent frame."""

    def forward(
        self,
        features_0: torch.Tensor,
        shortcut_0: torch.Tensor,
        features_1: torch.Tensor,
        shortcut_1: torch.Tensor,
        caches: Tensors,
    ) -> tuple[torch.Tensor, ...]:
        """Return latent [1, C, 1, h, w], then the caches."""
        stream, cut = Stream(caches), self.cuts[-1]
        x = self.behind(cut, (features_0, shortcut_0), (features_1, shortcut_1), stream)
        x = run(self.stages(cut + 1, None), x, stream)
        features = self.vae.encoder.finish(x, stream)
        return (self.vae.latents_from_features(features), *stream.kept)
