"""Inference contracts that ship with the package, by name."""

import msgspec

from memorywam_runtime.contract import (
    ActionSpace,
    Conventions,
    ExpertSizes,
    InferenceContract,
    MemorySizes,
    Observations,
    VaeSizes,
)
from memorywam_runtime.errors import ContractError

__all__ = ["PRESETS", "contract_from_preset"]

# Per-channel statistics of the Wan2.2 latent space, as the published encoder applies them.
_WAN22_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542,
    0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109,
    0.2665, -0.2108, -0.2158, 0.2502, -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899,
    -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748,
    0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)  # fmt: skip
_WAN22_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344,
    0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804,
    0.5833, 1.4146, 0.8986, 0.5659, 0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999,
    0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887,
    0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)  # fmt: skip

_ARM = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
_TWO_ARMS = ActionSpace(
    names=tuple(f"{side}_{joint}" for side in ("left", "right") for joint in _ARM),
    units=(*("rad",) * 6, "fraction") * 2,
)
_WAN22_VAE = VaeSizes(latent_mean=_WAN22_MEAN, latent_std=_WAN22_STD)

_ROBOTWIN = InferenceContract(
    name="robotwin-384x320",
    video=ExpertSizes(hidden=3072, ffn=14336),
    action=ExpertSizes(hidden=1024, ffn=4096),
    num_layers=30,
    num_heads=24,
    head_dim=128,
    vae=_WAN22_VAE,
    actions=_TWO_ARMS,
)

_TINY_VAE = VaeSizes(
    base_channels=4, channel_multipliers=(1, 2, 2), num_res_blocks=1,
    temporal_downsample=(True, True), latent_channels=6,
)  # fmt: skip

_TINY = InferenceContract(
    name="tiny",
    video=ExpertSizes(hidden=24, ffn=48),
    action=ExpertSizes(hidden=16, ffn=32),
    num_layers=3,
    num_heads=2,
    head_dim=12,
    text_dim=10,
    time_dim=8,
    vae=_TINY_VAE,
    memory=MemorySizes(num_anchors=2, num_recent=3, num_gists=2),
    observations=Observations(height=48, width=32),
    actions=ActionSpace(horizon=16, names=_TWO_ARMS.names, units=_TWO_ARMS.units),
    conventions=Conventions(text_len=5, num_steps=4),
)


_BENCH = InferenceContract(
    name="bench-100m",
    video=ExpertSizes(hidden=512, ffn=2048),
    action=ExpertSizes(hidden=192, ffn=768),
    num_layers=18,
    num_heads=8,
    head_dim=64,
    text_dim=512,
    # The real encoder's stages at a tenth of its width: three parts of a frame's arithmetic to
    # the video transformer's two, as at the real size.
    vae=msgspec.structs.replace(_WAN22_VAE, base_channels=16),
    observations=Observations(cameras=("head",), mosaic="single", height=256, width=352),
    actions=_TWO_ARMS,
)


def _replace(base: InferenceContract, **changes: object) -> InferenceContract:
    """Return the contract with fields exchanged, validated again."""
    return msgspec.structs.replace(base, **changes)


PRESETS: dict[str, InferenceContract] = {
    contract.name: contract
    for contract in (
        _ROBOTWIN,
        _replace(
            _ROBOTWIN,
            name="d455-256x352",
            observations=Observations(cameras=("head",), mosaic="single", height=256, width=352),
        ),
        _replace(
            _ROBOTWIN,
            name="fastwam",
            memory=MemorySizes(num_anchors=0, num_recent=1, num_gists=0),
            observations=Observations(mosaic="head_top_wrists_bottom"),
            actions=msgspec.structs.replace(_TWO_ARMS, horizon=32),
            conventions=Conventions(
                action_position="sequence",
                proprio_in_video_context=True,
                action_shift=5.0,
                vae_history="single_frame",
            ),
        ),
        _BENCH,
        _TINY,
        _replace(
            _TINY,
            name="tiny-fastwam",
            memory=MemorySizes(num_anchors=0, num_recent=1, num_gists=0),
            observations=Observations(mosaic="head_top_wrists_bottom", height=48, width=32),
            conventions=Conventions(
                text_len=5,
                num_steps=4,
                action_position="sequence",
                proprio_in_video_context=True,
                action_shift=5.0,
                vae_history="single_frame",
            ),
        ),
        _replace(
            _TINY,
            name="demo",
            video=ExpertSizes(hidden=96, ffn=256),
            action=ExpertSizes(hidden=64, ffn=192),
            num_heads=4,
            head_dim=24,
            text_dim=32,
            time_dim=64,
            vae=msgspec.structs.replace(_TINY_VAE, base_channels=12, latent_channels=16),
            memory=MemorySizes(num_anchors=2, num_recent=4, num_gists=4),
            actions=msgspec.structs.replace(_TWO_ARMS, normalization="minmax"),
            conventions=Conventions(text_len=16, num_steps=10),
        ),
    )
}
"""`robotwin-384x320` and `d455-256x352` are MemoryWAM at its real size, `fastwam` is FastWAM as
published, `bench-100m` has their proportions at a size that two CPU cores run in about a second,
`demo` is the small checkpoint that ships, `tiny*` are for tests."""


def contract_from_preset(name: str) -> InferenceContract:
    """Return the contract that ships under this name.

    Raises:
        ContractError: no such preset; the message lists the names.
    """
    if name not in PRESETS:
        raise ContractError(f"unknown preset '{name}'; available presets: {', '.join(PRESETS)}")
    return PRESETS[name]
