"""What the video encoder is made of: layers that look back in time, and what they keep for it."""

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from torch import Tensor, nn

from memorywam_runtime.errors import ContractError

__all__ = [
    "CONV_TAIL",
    "CausalConv",
    "FrameAttention",
    "ResidualBlock",
    "RmsNorm",
    "Stage",
    "Stream",
    "run",
]

CONV_TAIL = 2
"""Frames of the past that a convolution with three taps in time sees."""


class Stream:
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


class RmsNorm(nn.Module):
    """Unit length over channels, times sqrt(C), times a learned factor."""

    def __init__(self, channels: int, *, num_axes: int) -> None:
        super().__init__()
        self.scale = channels**0.5
        self.gamma = nn.Parameter(torch.ones(channels, *(1,) * num_axes))

    def forward(self, x: Tensor) -> Tensor:
        """Return x [B, C, ...] normalized, in its own dtype.

        Half precision is left for float32 inside: float16 rounds eps to 0, and a sum of squares
        overflows it at 256 channels of 16.
        """
        exact = torch.promote_types(x.dtype, torch.float32)
        scale: Tensor = self.scale * self.gamma.to(exact)  # folded: one pass less over x
        return (scale * F.normalize(x.to(exact), dim=1, eps=1e-12)).to(x.dtype)


class CausalConv(nn.Conv3d):
    """A 3x3x3 convolution that sees a frame and the two before it."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=(0, 1, 1))

    def forward(self, x: Tensor, stream: Stream) -> Tensor:  # type: ignore[override]
        """Map x [B, C_in, T, H, W] to [B, C_out, T, H, W]."""
        return super().forward(stream.extend(x, CONV_TAIL))


class ResidualBlock(nn.Module):
    """Twice norm, SiLU and causal convolution, beside a 1x1x1 shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            RmsNorm(in_channels, num_axes=3),
            nn.SiLU(),
            CausalConv(in_channels, out_channels),
            RmsNorm(out_channels, num_axes=3),
            nn.SiLU(),
            nn.Identity(),  # upstream's dropout: holds the index that the weights are named by
            CausalConv(out_channels, out_channels),
        )
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv3d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Map x [B, C_in, T, H, W] to [B, C_out, T, H, W]."""
        shortcut: Tensor = self.shortcut(x)
        return shortcut + run(self.residual, x, stream)


class Downsample(nn.Module):
    """Halve height and width with a strided convolution; then, if temporal, halve time."""

    def __init__(self, channels: int, *, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2)
        )
        self.time_conv = (
            nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1)) if temporal else None
        )

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Map x [B, C, T, H, W] to [B, C, T', H/2, W/2]; an episode's first frame stays."""
        return self.halve_time(self.halve_space(x), stream)

    def halve_space(self, x: Tensor) -> Tensor:
        """Map x [B, C, T, H, W] to [B, C, T, H/2, W/2], each frame by itself."""
        return _per_frame(self.resample, x)

    def halve_time(self, x: Tensor, stream: Stream) -> Tensor:
        """Map x [B, C, T, H, W] to [B, C, T', H, W], if temporal."""
        if self.time_conv is None:
            return x
        if stream.at_start:
            stream.keep(x, 1)
            return x if x.shape[2] == 1 else torch.cat((x[:, :, :1], self.time_conv(x)), 2)
        halved: Tensor = self.time_conv(stream.extend(x, 1))
        return halved


class Stage(nn.Module):
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
        layers: list[nn.Module] = [ResidualBlock(width, widened) for width in inputs]
        if space > 1:
            layers.append(Downsample(widened, temporal=time > 1))
        self.downsamples = nn.Sequential(*layers)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Map x [B, C_in, T, H, W] to [B, C_out, T', H', W']."""
        return run(self.downsamples, x, stream) + _average_down(x, *self.sizes[1:])

    def until_time(self, x: Tensor, stream: Stream) -> Tensor:
        """Map x [B, C_in, T, H, W] to [B, C_out, T, H/2, W/2]: all before time is halved.

        Raises:
            TypeError: the last stage, which has no downsampling.
        """
        *blocks, downsample = self.downsamples
        if not isinstance(downsample, Downsample):
            raise TypeError("the last stage has no downsampling to stop at")
        return downsample.halve_space(run(blocks, x, stream))

    def from_time(self, halfway: Tensor, x: Tensor, stream: Stream) -> Tensor:
        """Map what `until_time` made of x, and x itself, to the stage's output.

        Raises:
            TypeError: the last stage, which has no downsampling.
        """
        downsample = self.downsamples[-1]
        if not isinstance(downsample, Downsample):
            raise TypeError("the last stage has no downsampling to go on from")
        return downsample.halve_time(halfway, stream) + _average_down(x, *self.sizes[1:])


class FrameAttention(nn.Module):
    """Self-attention with one head over the cells of each frame alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RmsNorm(channels, num_axes=2)
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


def run(layers: Iterable[nn.Module], x: Tensor, stream: Stream) -> Tensor:
    """Apply layers in order; those that look back in time get the stream."""
    for layer in layers:
        looks_back = isinstance(layer, (CausalConv, ResidualBlock, Downsample, Stage))
        x = layer(x, stream) if looks_back else layer(x)
    return x


def _per_frame(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer of images, [N, C, H, W] to [N, C', H', W'], to each frame of a video."""
    out = layer(x.transpose(1, 2).flatten(0, 1))
    return out.view(x.shape[0], x.shape[2], *out.shape[1:]).transpose(1, 2)


def _average_down(x: Tensor, out_channels: int, time: int, space: int) -> Tensor:
    """Average x [B, C, T, H, W] over blocks of time and space, and over neighbouring channels."""
    if x.shape[2] % time:  # the first frame of an episode: average it with zeros before it
        x = F.pad(x, (0, 0, 0, 0, time - 1, 0))
    batch, channels, frames, height, width = x.shape
    t, h, w = frames // time, height // space, width // space
    x = x.reshape(batch, channels, t, time, h, space, w, space).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(batch, out_channels, -1, t, h, w).mean(2)
