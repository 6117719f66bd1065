"""The causal video encoder in plain torch: images to normalized latent frames.

Parameter names are those of the published Wan2.2 weights, less the decoder, which no graph needs.
A *feature cache* is the tail of a layer's input that the next images need: two frames for every
3x3x3 convolution, one for every temporal downsampling.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from memorywam_export.reference.vae_blocks import (
    CONV_TAIL,
    CausalConv,
    FrameAttention,
    ResidualBlock,
    RmsNorm,
    Stage,
    Stream,
    run,
)
from memorywam_runtime.contract import VaeSizes
from memorywam_runtime.errors import InputError

__all__ = ["CausalEncoder", "Trunk", "unshuffled"]

_UNSHUFFLE = 2
"""Pixels along an axis that become channels before the first convolution."""
_PIXEL_CHANNELS = 3 * _UNSHUFFLE**2


class Trunk(nn.Module):
    """Everything between the unshuffled pixels and the moments of the latents."""

    def __init__(self, sizes: VaeSizes) -> None:
        super().__init__()
        stages = _stages(sizes)
        first, last = stages[0][0], stages[-1][1]
        self.conv1 = CausalConv(_PIXEL_CHANNELS, first)
        self.downsamples = nn.Sequential(*(Stage(each, sizes.num_res_blocks) for each in stages))
        self.middle = nn.Sequential(
            ResidualBlock(last, last), FrameAttention(last), ResidualBlock(last, last)
        )
        self.head = nn.Sequential(
            RmsNorm(last, num_axes=3), nn.SiLU(), CausalConv(last, 2 * sizes.latent_channels)
        )

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Map x [B, 12, T, H/2, W/2] to moments [B, 2*C, T', h, w]."""
        x = run(self.downsamples, self.conv1(x, stream), stream)
        return self.finish(x, stream)

    def finish(self, x: Tensor, stream: Stream) -> Tensor:
        """Map what the last stage gives to moments, at the same size."""
        return run(self.head, run(self.middle, x, stream), stream)


class CausalEncoder(nn.Module):
    """Images to normalized latent frames: a whole episode at once, or streamed.

    Both forms are the same function: `encode` convolves over all of time at once; `first` and
    `step` hand feature caches from call to call. Pixels are RGB in -1..1 and latents normalized,
    all in the dtype of the weights; f is the temporal factor, C the number of latent channels.

    Args:
        sizes: widths, factors and the statistics of the latents.

    Raises:
        ContractError: widths between which the averaging shortcut of a stage cannot map.
    """

    def __init__(self, sizes: VaeSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder = Trunk(sizes)
        self.conv1 = nn.Conv3d(2 * sizes.latent_channels, 2 * sizes.latent_channels, 1)

    def encode(self, video: Tensor) -> Tensor:
        """Encode an episode from its first image on, [B, 3, 1 + f*n, H, W] to [B, C, 1 + n, h, w].

        Raises:
            InputError: a shape that does not fit.
        """
        _check_images(video, self.sizes)
        pixels = unshuffled(video)
        if pixels.device.type == "cpu":  # training with channels innermost takes 0.35 s, not 0.63 s
            pixels = pixels.contiguous(memory_format=torch.channels_last_3d)
        return self._latents(pixels, Stream(None, keeps=False))

    def first(self, image: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Encode the first image of an episode.

        Args:
            image: [B, 3, 1, H, W].

        Returns:
            The latent frame [B, C, 1, h, w], and caches of `cache_shapes`.

        Raises:
            InputError: a shape that does not fit.
        """
        _check_images(image, self.sizes, num_images=1)
        stream = Stream(None)
        return self._latents(unshuffled(image), stream), tuple(stream.kept)

    def step(self, frames: Tensor, caches: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Encode the next images of an episode.

        Args:
            frames: [B, 3, f, H, W].
            caches: as the call before returned them.

        Returns:
            The latent frame [B, C, 1, h, w], and the caches for the next call.

        Raises:
            InputError: a shape, or a number of caches, that does not fit.
        """
        _check_images(frames, self.sizes, num_images=self.sizes.temporal_factor)
        expected = [shape[1:] for shape in self.cache_shapes(*frames.shape[-2:])]
        found = [tuple(cache.shape[1:]) for cache in caches]
        if found != expected:
            raise InputError(
                f"found {len(found)} feature caches of shapes {found}; expected {len(expected)} of "
                f"{expected}, the batch aside: pass what `first` or the last `step` returned"
            )
        stream = Stream(caches)
        return self._latents(unshuffled(frames), stream), tuple(stream.kept)

    def cache_shapes(self, height: int, width: int) -> list[tuple[int, ...]]:
        """Return the shapes [1, C, T, H, W] of the caches, in order, for images of this size."""
        stages = _stages(self.sizes)
        rows, columns = height // _UNSHUFFLE, width // _UNSHUFFLE
        shapes: list[tuple[int, ...]] = [(1, _PIXEL_CHANNELS, CONV_TAIL, rows, columns)]
        for channels, widened, time, space in stages:
            inputs = (channels, *(widened,) * (2 * self.sizes.num_res_blocks - 1))
            shapes += [(1, width, CONV_TAIL, rows, columns) for width in inputs]
            rows, columns = rows // space, columns // space
            shapes += [(1, widened, 1, rows, columns)] * (time - 1)
        in_middle_and_head = 5
        return shapes + [(1, stages[-1][1], CONV_TAIL, rows, columns)] * in_middle_and_head

    def _latents(self, pixels: Tensor, stream: Stream) -> Tensor:
        """Map unshuffled pixels to the normalized means of the latents."""
        return self.latents_from_features(self.encoder(pixels, stream))

    def latents_from_features(self, features: Tensor) -> Tensor:
        """Map what the trunk gives [B, 2*C, T, h, w] to latents [B, C, T, h, w]."""
        moments: Tensor = self.conv1(features)
        mu = moments[:, : self.sizes.latent_channels]
        # Made here, not buffers: exact in any dtype, and not lost when built on "meta".
        if self.sizes.latent_mean:
            mu = mu - mu.new_tensor(self.sizes.latent_mean).view(-1, 1, 1, 1)
        if self.sizes.latent_std:
            mu = mu / mu.new_tensor(self.sizes.latent_std).view(-1, 1, 1, 1)
        return mu


def unshuffled(images: Tensor) -> Tensor:
    """Move 2 x 2 pixels into channels: [B, 3, T, H, W] to [B, 12, T, H/2, W/2].

    Channels run colour, column, row; torch's pixel_unshuffle has colour, row, column.
    """
    batch, colours, frames, height, width = images.shape
    side, rows, columns = _UNSHUFFLE, height // _UNSHUFFLE, width // _UNSHUFFLE
    x = images.reshape(batch, colours, frames, rows, side, columns, side)
    return x.permute(0, 1, 6, 4, 2, 3, 5).reshape(batch, _PIXEL_CHANNELS, frames, rows, columns)


def _stages(sizes: VaeSizes) -> list[tuple[int, int, int, int]]:
    """Return for each stage the channels before and after, and its factors in time and space."""
    widths = [sizes.base_channels * multiplier for multiplier in (1, *sizes.channel_multipliers)]
    times = [1 + halves for halves in (*sizes.temporal_downsample, False)]
    spaces = [*(2 for _ in sizes.temporal_downsample), 1]
    return list(zip(widths[:-1], widths[1:], times, spaces, strict=True))


def _check_images(images: Tensor, sizes: VaeSizes, num_images: int | None = None) -> None:
    """Refuse what is not [B, 3, T, H, W] of legal sizes; None stands for a whole episode."""
    side, period = sizes.spatial_factor, sizes.temporal_factor
    _, channels, frames, height, width = images.shape if images.ndim == 5 else (0,) * 5
    in_time = (frames - 1) % period == 0 if num_images is None else frames == num_images
    if (
        not (in_time and frames and height and width)
        or height % side
        or width % side
        or channels != 3
    ):
        raise InputError(
            f"found images of shape {list(images.shape)}; expected [B, 3, "
            f"{num_images or f'1 + {period}*n'}, H, W] with H and W multiples of {side}: the first "
            f"image of an episode makes a latent frame alone, every {period} after it another"
        )
