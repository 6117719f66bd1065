"""The causal video encoder in plain torch: images to normalized latent frames.

Parameter names are those of the published Wan2.2 weights, less the decoder, which no graph needs.
A *feature cache* is the tail of a layer's input that the next images need: two frames for every
3x3x3 convolution, one for every temporal downsampling.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from torch import Tensor, nn

from memorywam_runtime.contract import VaeSizes
from memorywam_runtime.errors import ContractError, InputError

__all__ = ["CausalEncoder"]

_UNSHUFFLE = 2
"""Pixels along an axis that become channels before the first convolution."""
_PIXEL_CHANNELS = 3 * _UNSHUFFLE**2
_CONV_TAIL = 2
"""Frames of the past that a convolution with three taps in time sees."""


class _Stream:
    """What one pass reads from the past, and what it leaves for the next.

    Layers call it in the order of the data flow; that is the order of the caches.
    """

    def __init__(self, past: Sequence[Tensor] | None, *, keeps: bool = True) -> None:
        self.at_start = past is None
        self.kept: list[Tensor] = []
        self._past = iter(past or ())
        self._keeps = keeps

    def extend(self, x: Tensor, num_frames: int) -> Tensor:
        """Return x [B, C, T, H, W] with its past, zeros at the start, in front."""
        if self.at_start:
            x = F.pad(x, (0, 0, 0, 0, num_frames, 0))
        else:
            x = torch.cat((next(self._past), x), 2)
        self.keep(x, num_frames)
        return x

    def keep(self, x: Tensor, num_frames: int) -> None:
        """Leave the tail of x for the next pass; cloned, as a view would hold all of x."""
        if self._keeps:
            self.kept.append(x[:, :, -num_frames:].clone())


class _RmsNorm(nn.Module):
    """Unit length over channels, times sqrt(C), times a learned factor."""

    def __init__(self, channels: int, *, num_axes: int) -> None:
        super().__init__()
        self.scale = channels**0.5
        self.gamma = nn.Parameter(torch.ones(channels, *(1,) * num_axes))

    def forward(self, x: Tensor) -> Tensor:
        """Return x [B, C, ...] normalized, in its own dtype."""
        scale: Tensor = self.scale * self.gamma  # folded: one pass less over x
        return scale * F.normalize(x, dim=1, eps=1e-12)


class _CausalConv(nn.Conv3d):
    """A 3x3x3 convolution that sees a frame and the two before it."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=(0, 1, 1))

    def forward(self, x: Tensor, stream: _Stream) -> Tensor:  # type: ignore[override]
        """Map x [B, C_in, T, H, W] to [B, C_out, T, H, W]."""
        return super().forward(stream.extend(x, _CONV_TAIL))


class _ResidualBlock(nn.Module):
    """Twice norm, SiLU and causal convolution, beside a 1x1x1 shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _RmsNorm(in_channels, num_axes=3),
            nn.SiLU(),
            _CausalConv(in_channels, out_channels),
            _RmsNorm(out_channels, num_axes=3),
            nn.SiLU(),
            nn.Identity(),  # upstream's dropout: holds the index that the weights are named by
            _CausalConv(out_channels, out_channels),
        )
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv3d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, stream: _Stream) -> Tensor:
        """Map x [B, C_in, T, H, W] to [B, C_out, T, H, W]."""
        shortcut: Tensor = self.shortcut(x)
        return shortcut + _run(self.residual, x, stream)


class _Downsample(nn.Module):
    """Halve height and width with a strided convolution; then, if temporal, halve time."""

    def __init__(self, channels: int, *, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2)
        )
        self.time_conv = (
            nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1)) if temporal else None
        )

    def forward(self, x: Tensor, stream: _Stream) -> Tensor:
        """Map x [B, C, T, H, W] to [B, C, T', H/2, W/2]; an episode's first frame stays."""
        x = _per_frame(self.resample, x)
        if self.time_conv is None:
            return x
        if stream.at_start:
            stream.keep(x, 1)
            return x if x.shape[2] == 1 else torch.cat((x[:, :, :1], self.time_conv(x)), 2)
        halved: Tensor = self.time_conv(stream.extend(x, 1))
        return halved


class _Stage(nn.Module):
    """Residual blocks and, but in the last stage, a downsampling, beside an averaging shortcut."""

    def __init__(self, sizes: tuple[int, int, int, int], num_blocks: int) -> None:
        super().__init__()
        channels, widened, time, space = self.sizes = sizes
        if channels * time * space**2 % widened:
            raise ContractError(
                f"a stage maps {channels} to {widened} channels; expected a divisor of "
                f"{channels * time * space**2}: change vae.channel_multipliers"
            )
        inputs = (channels, *(widened,) * (num_blocks - 1))
        layers: list[nn.Module] = [_ResidualBlock(width, widened) for width in inputs]
        if space > 1:
            layers.append(_Downsample(widened, temporal=time > 1))
        self.downsamples = nn.Sequential(*layers)

    def forward(self, x: Tensor, stream: _Stream) -> Tensor:
        """Map x [B, C_in, T, H, W] to [B, C_out, T', H', W']."""
        return _run(self.downsamples, x, stream) + _average_down(x, *self.sizes[1:])


class _FrameAttention(nn.Module):
    """Self-attention with one head over the cells of each frame alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _RmsNorm(channels, num_axes=2)
        self.to_qkv = nn.Conv2d(channels, channels * 3, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x [B, C, T, H, W] plus what each cell gathered from its frame."""
        return x + _per_frame(self._gather, x)

    def _gather(self, x: Tensor) -> Tensor:
        """Attend over the cells of x [B*T, C, H, W]."""
        qkv: Tensor = self.to_qkv(self.norm(x))
        query, key, value = qkv.flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, dim=-1)
        seen = F.scaled_dot_product_attention(query, key, value)  # [B*T, 1, H*W, C]
        out: Tensor = self.proj(seen.squeeze(1).transpose(1, 2).reshape(x.shape))
        return out


class _Trunk(nn.Module):
    """Everything between the unshuffled pixels and the moments of the latents."""

    def __init__(self, sizes: VaeSizes) -> None:
        super().__init__()
        stages = _stages(sizes)
        first, last = stages[0][0], stages[-1][1]
        self.conv1 = _CausalConv(_PIXEL_CHANNELS, first)
        self.downsamples = nn.Sequential(*(_Stage(each, sizes.num_res_blocks) for each in stages))
        self.middle = nn.Sequential(
            _ResidualBlock(last, last), _FrameAttention(last), _ResidualBlock(last, last)
        )
        self.head = nn.Sequential(
            _RmsNorm(last, num_axes=3), nn.SiLU(), _CausalConv(last, 2 * sizes.latent_channels)
        )

    def forward(self, x: Tensor, stream: _Stream) -> Tensor:
        """Map x [B, 12, T, H/2, W/2] to moments [B, 2*C, T', h, w]."""
        x = _run(self.downsamples, self.conv1(x, stream), stream)
        return _run(self.head, _run(self.middle, x, stream), stream)


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
        self.encoder = _Trunk(sizes)
        self.conv1 = nn.Conv3d(2 * sizes.latent_channels, 2 * sizes.latent_channels, 1)

    def encode(self, video: Tensor) -> Tensor:
        """Encode an episode from its first image on, [B, 3, 1 + f*n, H, W] to [B, C, 1 + n, h, w].

        Raises:
            InputError: a shape that does not fit.
        """
        _check_images(video, self.sizes)
        pixels = _unshuffle(video)
        if pixels.device.type == "cpu":  # training with channels innermost takes 0.35 s, not 0.63 s
            pixels = pixels.contiguous(memory_format=torch.channels_last_3d)
        return self._latents(pixels, _Stream(None, keeps=False))

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
        stream = _Stream(None)
        return self._latents(_unshuffle(image), stream), tuple(stream.kept)

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
        stream = _Stream(caches)
        return self._latents(_unshuffle(frames), stream), tuple(stream.kept)

    def cache_shapes(self, height: int, width: int) -> list[tuple[int, ...]]:
        """Return the shapes [1, C, T, H, W] of the caches, in order, for images of this size."""
        stages = _stages(self.sizes)
        rows, columns = height // _UNSHUFFLE, width // _UNSHUFFLE
        shapes: list[tuple[int, ...]] = [(1, _PIXEL_CHANNELS, _CONV_TAIL, rows, columns)]
        for channels, widened, time, space in stages:
            inputs = (channels, *(widened,) * (2 * self.sizes.num_res_blocks - 1))
            shapes += [(1, width, _CONV_TAIL, rows, columns) for width in inputs]
            rows, columns = rows // space, columns // space
            shapes += [(1, widened, 1, rows, columns)] * (time - 1)
        in_middle_and_head = 5
        return shapes + [(1, stages[-1][1], _CONV_TAIL, rows, columns)] * in_middle_and_head

    def _latents(self, pixels: Tensor, stream: _Stream) -> Tensor:
        """Map unshuffled pixels to the normalized means of the latents."""
        moments: Tensor = self.conv1(self.encoder(pixels, stream))
        mu = moments[:, : self.sizes.latent_channels]
        # Made here, not buffers: exact in any dtype, and not lost when built on "meta".
        if self.sizes.latent_mean:
            mu = mu - mu.new_tensor(self.sizes.latent_mean).view(-1, 1, 1, 1)
        if self.sizes.latent_std:
            mu = mu / mu.new_tensor(self.sizes.latent_std).view(-1, 1, 1, 1)
        return mu


def _run(layers: nn.Sequential, x: Tensor, stream: _Stream) -> Tensor:
    """Apply layers in order; those that look back in time get the stream."""
    for layer in layers:
        looks_back = isinstance(layer, (_CausalConv, _ResidualBlock, _Downsample, _Stage))
        x = layer(x, stream) if looks_back else layer(x)
    return x


def _per_frame(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer of images, [N, C, H, W] to [N, C', H', W'], to each frame of a video."""
    out = layer(x.transpose(1, 2).flatten(0, 1))
    return out.view(x.shape[0], x.shape[2], *out.shape[1:]).transpose(1, 2)


def _unshuffle(images: Tensor) -> Tensor:
    """Move 2 x 2 pixels into channels: [B, 3, T, H, W] to [B, 12, T, H/2, W/2].

    Channels run colour, column, row; torch's pixel_unshuffle has colour, row, column.
    """
    batch, colours, frames, height, width = images.shape
    side, rows, columns = _UNSHUFFLE, height // _UNSHUFFLE, width // _UNSHUFFLE
    x = images.reshape(batch, colours, frames, rows, side, columns, side)
    return x.permute(0, 1, 6, 4, 2, 3, 5).reshape(batch, _PIXEL_CHANNELS, frames, rows, columns)


def _average_down(x: Tensor, out_channels: int, time: int, space: int) -> Tensor:
    """Average x [B, C, T, H, W] over blocks of time and space, and over neighbouring channels."""
    if x.shape[2] % time:  # the first frame of an episode: average it with zeros before it
        x = F.pad(x, (0, 0, 0, 0, time - 1, 0))
    batch, channels, frames, height, width = x.shape
    t, h, w = frames // time, height // space, width // space
    x = x.reshape(batch, channels, t, time, h, space, w, space).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(batch, out_channels, -1, t, h, w).mean(2)


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
