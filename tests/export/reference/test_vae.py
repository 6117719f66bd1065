"""The causal encoder equals an independent implementation, and streaming equals the whole."""

import math
import re
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from memorywam_export.checkpoints.presets import PRESETS, contract_from_preset
from memorywam_export.reference.vae import CausalEncoder
from memorywam_runtime.contract import VaeSizes
from memorywam_runtime.errors import ContractError, InputError

# The real structure with narrow layers.
_NARROW = msgspec.structs.replace(contract_from_preset("robotwin-384x320").vae, base_channels=8)
_SIZES = {
    "tiny": contract_from_preset("tiny").vae,
    "demo": contract_from_preset("demo").vae,
    "narrow": _NARROW,
}


def _encoder(sizes: VaeSizes) -> CausalEncoder:
    """Build an encoder whose every parameter, norms and biases too, is random."""
    torch.manual_seed(7)
    encoder = CausalEncoder(sizes)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if name.endswith("gamma"):
                parameter.uniform_(0.5, 1.5)
    return encoder.eval().requires_grad_(requires_grad=False)


def _video(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype) * 2 - 1


def _streamed(encoder: CausalEncoder, video: Tensor) -> Tensor:
    latent, caches = encoder.first(video[:, :, :1])
    latents = [latent]
    for frames in video[:, :, 1:].chunk(video.shape[2] // encoder.sizes.temporal_factor, dim=2):
        latent, caches = encoder.step(frames, caches)
        latents.append(latent)
    return torch.cat(latents, dim=2)


def _diffusers_name(name: str) -> str:
    """Map a name of the published weights to the name that diffusers gives the same tensor."""
    layers = {"0": "norm1", "2": "conv1", "3": "norm2", "6": "conv2"}
    stage = r"downsamples\.(\d)\.downsamples\.(\d)\."
    for pattern, replacement in (
        (r"^conv1\.", "quant_conv."),
        (r"^encoder\.conv1\.", "encoder.conv_in."),
        (r"^encoder\.middle\.0\.", "encoder.mid_block.resnets.0."),
        (r"^encoder\.middle\.1\.", "encoder.mid_block.attentions.0."),
        (r"^encoder\.middle\.2\.", "encoder.mid_block.resnets.1."),
        (r"^encoder\.head\.0\.", "encoder.norm_out."),
        (r"^encoder\.head\.2\.", "encoder.conv_out."),
        (stage + "(resample|time_conv)", r"down_blocks.\1.downsampler.\3"),
        (stage, r"down_blocks.\1.resnets.\2."),
        (r"\.shortcut\.", ".conv_shortcut."),
    ):
        name = re.sub(pattern, replacement, name)
    return re.sub(r"residual\.(\d)", lambda match: layers[match[1]], name)


@pytest.fixture(scope="module")
def diffusers_vae() -> nn.Module:
    wan = pytest.importorskip("diffusers.models.autoencoders.autoencoder_kl_wan")
    vae: nn.Module = wan.AutoencoderKLWan(
        base_dim=_NARROW.base_channels,
        decoder_base_dim=4,
        z_dim=_NARROW.latent_channels,
        dim_mult=list(_NARROW.channel_multipliers),
        num_res_blocks=_NARROW.num_res_blocks,
        temperal_downsample=list(_NARROW.temporal_downsample),
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    )
    return vae.eval()


@torch.no_grad()
def test_equals_diffusers(diffusers_vae: nn.Module) -> None:
    encoder = _encoder(msgspec.structs.replace(_NARROW, latent_mean=(), latent_std=()))
    theirs = diffusers_vae.state_dict()
    ours = {_diffusers_name(name): value for name, value in encoder.state_dict().items()}
    assert ours.keys() == {name for name in theirs if name.startswith(("encoder.", "quant_conv."))}
    diffusers_vae.load_state_dict({**theirs, **ours})
    video = _video(2, 3, 21, 64, 32)
    expected = cast("Any", diffusers_vae).encode(video).latent_dist.mode()
    assert expected.shape == (2, 48, 6, 4, 2)
    assert expected.std() > 0.05
    for found in (encoder.encode(video), _streamed(encoder, video)):
        assert (found - expected).abs().max() <= 1e-5


def test_names_are_those_of_the_published_weights() -> None:
    shapes = {name: tuple(value.shape) for name, value in _encoder(_NARROW).state_dict().items()}
    known = {
        "conv1.weight": (96, 96, 1, 1, 1),
        "encoder.conv1.weight": (8, 12, 3, 3, 3),
        "encoder.downsamples.0.downsamples.2.resample.1.weight": (8, 8, 3, 3),
        "encoder.downsamples.1.downsamples.0.residual.0.gamma": (8, 1, 1, 1),
        "encoder.downsamples.1.downsamples.0.residual.2.weight": (16, 8, 3, 3, 3),
        "encoder.downsamples.1.downsamples.0.residual.3.gamma": (16, 1, 1, 1),
        "encoder.downsamples.1.downsamples.0.residual.6.bias": (16,),
        "encoder.downsamples.1.downsamples.0.shortcut.weight": (16, 8, 1, 1, 1),
        "encoder.downsamples.1.downsamples.2.time_conv.weight": (16, 16, 3, 1, 1),
        "encoder.middle.1.norm.gamma": (32, 1, 1),
        "encoder.middle.1.to_qkv.weight": (96, 32, 1, 1),
        "encoder.middle.1.proj.bias": (32,),
        "encoder.head.0.gamma": (32, 1, 1, 1),
        "encoder.head.2.weight": (96, 32, 3, 3, 3),
    }
    assert known.items() <= shapes.items()
    assert not any("buffer" in name or "mean" in name or "std" in name for name in shapes)


@pytest.mark.parametrize("name", _SIZES)
def test_streamed_equals_whole(name: str) -> None:
    encoder = _encoder(_SIZES[name]).double()
    video = _video(2, 3, 17, 48, 32, dtype=torch.float64)
    whole = encoder.encode(video)
    cell = encoder.sizes.spatial_factor
    assert whole.shape == (2, encoder.sizes.latent_channels, 5, 48 // cell, 32 // cell)
    assert (whole - _streamed(encoder, video)).abs().max() <= 1e-12


def test_later_images_do_not_change_earlier_latents() -> None:
    encoder = _encoder(_SIZES["tiny"]).double()
    video = _video(1, 3, 13, 48, 32, dtype=torch.float64)
    changed = torch.cat((video[:, :, :5], -video[:, :, 5:]), dim=2)
    before, after = encoder.encode(video), encoder.encode(changed)
    assert (before[:, :, :2] - after[:, :, :2]).abs().max() <= 1e-12
    assert (before[:, :, 2:] - after[:, :, 2:]).abs().amin(dim=(0, 1, 3, 4)).max() > 0


def test_latents_are_normalized_with_the_statistics() -> None:
    plain = _encoder(msgspec.structs.replace(_NARROW, latent_mean=(), latent_std=())).double()
    normalizing = _encoder(_NARROW).double()
    video = _video(1, 3, 5, 32, 32, dtype=torch.float64)
    mean = torch.tensor(_NARROW.latent_mean, dtype=torch.float64).view(1, -1, 1, 1, 1)
    std = torch.tensor(_NARROW.latent_std, dtype=torch.float64).view(1, -1, 1, 1, 1)
    expected = (plain.encode(video) - mean) / std
    torch.testing.assert_close(normalizing.encode(video), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", PRESETS)
def test_cache_shapes(name: str) -> None:
    contract = PRESETS[name]
    with torch.device("meta"):
        encoder = CausalEncoder(contract.vae)
        image = torch.empty(1, 3, 1, 64, 32)
        frames = torch.empty(1, 3, contract.images_per_frame, 64, 32)
    latent, caches = encoder.first(image)
    expected = encoder.cache_shapes(64, 32)
    assert [tuple(cache.shape) for cache in caches] == expected
    sizes = contract.vae
    convolutions = 2 * sizes.num_res_blocks * len(sizes.channel_multipliers) + 4
    assert len(expected) == 2 + convolutions + sum(sizes.temporal_downsample)
    later, caches = encoder.step(frames, caches)
    assert [tuple(cache.shape) for cache in caches] == expected
    assert later.shape == latent.shape


def test_published_sizes() -> None:
    contract = contract_from_preset("robotwin-384x320")
    with torch.device("meta"):
        encoder = CausalEncoder(contract.vae)
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(149.6e6, rel=0.005)
    shapes = encoder.cache_shapes(384, 320)
    assert len(shapes) == 24
    assert [i for i, shape in enumerate(shapes) if shape[2] == 1] == [9, 14]
    assert sum(map(math.prod, shapes)) == pytest.approx(72.3e6, rel=0.001)


def test_first_starts_a_new_episode() -> None:
    encoder = _encoder(_NARROW)
    video = _video(1, 3, 9, 32, 32)
    fresh, fresh_caches = encoder.first(video[:, :, :1])
    _streamed(encoder, -video)
    again, again_caches = encoder.first(video[:, :, :1])
    assert torch.equal(fresh, again)
    assert all(map(torch.equal, fresh_caches, again_caches))


def test_step_leaves_its_caches_alone() -> None:
    encoder = _encoder(_SIZES["tiny"])
    video = _video(1, 3, 5, 48, 32)
    _, caches = encoder.first(video[:, :, :1])
    copies = [cache.clone() for cache in caches]
    once, _ = encoder.step(video[:, :, 1:], caches)
    twice, _ = encoder.step(video[:, :, 1:], caches)
    assert torch.equal(once, twice)
    assert all(map(torch.equal, caches, copies))


def test_runs_in_bfloat16() -> None:
    encoder = _encoder(_SIZES["demo"])
    video = _video(1, 3, 9, 48, 32)
    exact = encoder.encode(video)
    encoder.bfloat16()
    for found in (encoder.encode(video.bfloat16()), _streamed(encoder, video.bfloat16())):
        assert found.dtype == torch.bfloat16
        assert (found.float() - exact).norm() / exact.norm() < 0.05


def test_gradients_reach_every_parameter() -> None:
    encoder = _encoder(_SIZES["demo"]).requires_grad_()
    names, parameters = zip(*encoder.named_parameters(), strict=True)
    loss = encoder.encode(_video(1, 3, 9, 48, 32)).square().sum()
    for name, gradient in zip(names, torch.autograd.grad(loss, parameters), strict=True):
        # Of the moments' convolution only the means, its first half, are used.
        used = gradient.chunk(2)[0] if name.startswith("conv1.") else gradient
        assert used.abs().max() > 0, name


class _Step(nn.Module):
    """`step` as a module, as the exporter wants it."""

    def __init__(self, encoder: CausalEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, frames: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        latent, kept = self.encoder.step(frames, caches)
        return (latent, *kept)


@pytest.mark.filterwarnings(
    r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning"
)
def test_step_exports_to_onnx(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    step = _Step(_encoder(_SIZES["tiny"])).eval()
    video = _video(1, 3, 9, 48, 32)
    _, caches = step.encoder.first(video[:, :, :1])
    path = tmp_path / "step.onnx"
    torch.onnx.export(
        step, (video[:, :, 1:5], *caches), path, dynamo=True, opset_version=20, verbose=False
    )
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    found: list[np.ndarray[Any, Any]] = [cache.numpy() for cache in caches]
    expected = (video, *caches)
    for frames in (video[:, :, 1:5], video[:, :, 5:9]):
        expected = step(frames, *expected[1:])
        latent, *found = session.run(None, dict(zip(names, (frames.numpy(), *found), strict=True)))
        for one, other in zip((latent, *found), expected, strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 1, 5, 48, 32), "[B, 3, 1 + 4*n, H, W]"),
        ((3, 5, 48, 32), "[B, 3, 1 + 4*n, H, W]"),
        ((1, 3, 4, 48, 32), "[B, 3, 1 + 4*n, H, W]"),
        ((1, 3, 0, 48, 32), "[B, 3, 1 + 4*n, H, W]"),
        ((1, 3, 5, 44, 32), "multiples of 8"),
        ((1, 3, 5, 48, 0), "multiples of 8"),
    ],
)
def test_encode_refuses(shape: tuple[int, ...], expected: str) -> None:
    encoder = _encoder(_SIZES["tiny"])
    with pytest.raises(InputError, match=re.escape(str(list(shape)))) as refusal:
        encoder.encode(torch.zeros(shape))
    assert expected in str(refusal.value)


def test_first_and_step_refuse() -> None:
    encoder = _encoder(_SIZES["tiny"])
    video = _video(1, 3, 5, 48, 32)
    _, caches = encoder.first(video[:, :, :1])
    with pytest.raises(InputError, match=r"\[1, 3, 5, 48, 32\].*\[B, 3, 1, H, W\]"):
        encoder.first(video)
    with pytest.raises(InputError, match=r"\[1, 3, 5, 48, 32\].*\[B, 3, 4, H, W\]"):
        encoder.step(video, caches)
    with pytest.raises(InputError, match=f"found {len(caches) - 1} .* expected {len(caches)} "):
        encoder.step(video[:, :, 1:], caches[:-1])
    with pytest.raises(InputError, match="feature caches of shapes"):
        encoder.step(video[:, :, 1:, :40], caches)


def test_widths_without_a_shortcut_are_refused() -> None:
    sizes = msgspec.structs.replace(_SIZES["tiny"], channel_multipliers=(1, 2, 4))
    with pytest.raises(ContractError, match="channel_multipliers"):
        CausalEncoder(sizes)
