"""The inference contract: every size and every open convention of one trained model."""

import hashlib
import math
from typing import Any, Literal

import msgspec

from memorywam_runtime.errors import ContractError

__all__ = [
    "ActionSpace",
    "Conventions",
    "ExpertSizes",
    "InferenceContract",
    "MemorySizes",
    "Observations",
    "VaeSizes",
    "contract_from_json",
    "contract_to_json",
]


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts: immutable, keyword-only, and strict about unknown fields."""


class ExpertSizes(_Part, frozen=True):
    """Widths of one transformer; heads and depth are shared by both experts."""

    hidden: int
    ffn: int


class VaeSizes(_Part, frozen=True):
    """The causal video encoder (Wan2.2 "38": pixel unshuffle 2, residual down blocks)."""

    base_channels: int = 160
    channel_multipliers: tuple[int, ...] = (1, 2, 4, 4)
    """One stage each; all but the last halve height and width."""
    num_res_blocks: int = 2
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    latent_channels: int = 48
    latent_mean: tuple[float, ...] = ()
    """Per latent channel; empty means zeros."""
    latent_std: tuple[float, ...] = ()
    """Per latent channel; empty means ones."""

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent cell along an axis."""
        return 1 << len(self.channel_multipliers)

    @property
    def temporal_factor(self) -> int:
        """Images per latent frame after the first."""
        return 1 << sum(self.temporal_downsample)


class MemorySizes(_Part, frozen=True):
    """The hybrid memory; frames here are latent frames."""

    num_anchors: int = 2
    num_recent: int = 4
    num_gists: int = 8
    """Gist tokens per frame; 0 for a model without gist."""


class Observations(_Part, frozen=True):
    """Cameras, their places in the mosaic, and the cadence at which frames enter memory."""

    cameras: tuple[str, ...] = ("left_wrist", "right_wrist", "head")
    """In mosaic order: for three cameras the two wrists, then the head."""
    mosaic: Literal["wrists_top_head_bottom", "head_top_wrists_bottom", "single"] = (
        "wrists_top_head_bottom"
    )
    height: int = 384
    """Rows of the whole mosaic, pixels."""
    width: int = 320
    """Columns of the whole mosaic, pixels."""
    resize: Literal["pillow_bilinear"] = "pillow_bilinear"
    channel_order: Literal["rgb"] = "rgb"
    steps_per_image: int = 4
    """Environment steps between two images that enter memory."""
    control_hz: float = 10.0


class ActionSpace(_Part, frozen=True):
    """State and action vectors, in the robot's order and units."""

    horizon: int = 16
    """Actions in a chunk."""
    action_dim: int = 14
    state_dim: int = 14
    names: tuple[str, ...] = ()
    """One name per action; empty means joint_0, joint_1, ..."""
    units: tuple[str, ...] = ()
    """One unit per action; empty means rad."""
    normalization: Literal["zscore", "minmax", "quantile"] = "zscore"
    clamp: float = 5.0
    """Normalized state and action are clamped to +- this on the way in."""


class Conventions(_Part, frozen=True):
    """What the paper leaves open; each is a fact about a checkpoint, not a preference."""

    recent_includes_current: bool = True
    visual_sees_own_gist: bool = False
    gist_hw_marker: tuple[float, float] = (-1.0, -1.0)
    action_position: Literal["fraction", "row_below", "sequence"] = "fraction"
    """fraction: (t + k/(H+1), -1, -1); row_below: (t, rows + 1, k); sequence: 1-D, 0..H-1."""
    clean_timestep: float = 0.0
    gist_timestep: float = 0.0
    proprio_in_video_context: bool = False
    text_len: int = 128
    action_shift: float = 1.0
    num_steps: int = 10
    vae_history: Literal["continuous", "windowed", "single_frame"] = "continuous"
    """single_frame: every observation is a first frame at position 0 and memory holds only it."""
    modulation_dtype: Literal["model", "float32"] = "model"
    action_history: bool = False
    """Executed actions stay in the slot of their frame as keys and values."""


class InferenceContract(_Part, frozen=True):
    """All that a runtime must know to run a checkpoint as it was trained.

    Raises:
        ContractError: a size or a convention that contradicts another.
    """

    name: str
    video: ExpertSizes
    action: ExpertSizes
    num_layers: int
    num_heads: int
    head_dim: int
    text_dim: int = 4096
    time_dim: int = 256
    rope_theta: float = 10000.0
    patch: tuple[int, int] = (2, 2)
    trained_frames: int = 1024
    """Longest episode, in latent frames, whose positions the model may have seen."""
    vae: VaeSizes = VaeSizes()
    memory: MemorySizes = MemorySizes()
    observations: Observations = Observations()
    actions: ActionSpace = ActionSpace()
    conventions: Conventions = Conventions()

    def __post_init__(self) -> None:
        """Refuse a contract whose parts contradict each other."""
        for complaint in _complaints(self):
            raise ContractError(f"inference contract '{self.name}': {complaint}")

    @property
    def attention_width(self) -> int:
        """Width of queries, keys and values over all heads."""
        return self.num_heads * self.head_dim

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Rows and columns of a latent frame."""
        factor = self.vae.spatial_factor
        return self.observations.height // factor, self.observations.width // factor

    @property
    def grid_shape(self) -> tuple[int, int]:
        """Rows and columns of visual tokens."""
        rows, columns = self.latent_shape
        return rows // self.patch[0], columns // self.patch[1]

    @property
    def num_visual(self) -> int:
        """Visual tokens per latent frame (L)."""
        return math.prod(self.grid_shape)

    @property
    def num_frame_tokens(self) -> int:
        """Visual and gist tokens of one frame (L + M)."""
        return self.num_visual + self.memory.num_gists

    @property
    def num_ring_slots(self) -> int:
        """Slots for frames that are not anchors; one more if the window leaves out the current."""
        return self.memory.num_recent + (not self.conventions.recent_includes_current)

    @property
    def images_per_frame(self) -> int:
        """Images that make one latent frame after the first."""
        return self.vae.temporal_factor

    @property
    def steps_per_frame(self) -> int:
        """Environment steps from one latent frame to the next."""
        return self.images_per_frame * self.observations.steps_per_image

    @property
    def rope_pairs(self) -> tuple[int, int, int]:
        """Rotary pairs of a head for time, row and column (head_dim 128: 22, 21, 21)."""
        spatial = self.head_dim // 6
        return self.head_dim // 2 - 2 * spatial, spatial, spatial

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON; the name does not count, and 5 is the same as 5.0."""
        canonical = msgspec.convert(msgspec.to_builtins(self), InferenceContract)
        fields: dict[str, Any] = msgspec.to_builtins(canonical)
        del fields["name"]
        return hashlib.sha256(msgspec.json.encode(fields, order="sorted")).hexdigest()


def contract_to_json(contract: InferenceContract) -> bytes:
    """Return the contract as indented JSON with sorted keys."""
    return msgspec.json.format(msgspec.json.encode(contract, order="sorted"), indent=2) + b"\n"


def contract_from_json(text: bytes) -> InferenceContract:
    """Read a contract.

    Raises:
        ContractError: not JSON, an unknown or missing field, a wrong type, or a contradiction.
    """
    try:
        return msgspec.json.decode(text, type=InferenceContract)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(
            f"not an inference contract: {error}; expected the fields of InferenceContract, "
            "as `memorywam export --list-presets --json -` prints them"
        ) from error


def _complaints(c: InferenceContract) -> list[str]:
    """Return what contradicts what, worst first; empty if the contract is sound."""
    memory, actions, vae, views = c.memory, c.actions, c.vae, c.observations
    sizes = {
        "num_layers": c.num_layers, "num_heads": c.num_heads, "head_dim": c.head_dim,
        "video.hidden": c.video.hidden, "video.ffn": c.video.ffn, "text_dim": c.text_dim,
        "action.hidden": c.action.hidden, "action.ffn": c.action.ffn, "time_dim": c.time_dim,
        "patch": min(c.patch), "trained_frames": c.trained_frames,
        "vae.base_channels": vae.base_channels, "vae.latent_channels": vae.latent_channels,
        "vae.channel_multipliers": min(vae.channel_multipliers, default=0),
        "vae.num_res_blocks": vae.num_res_blocks, "memory.num_recent": memory.num_recent,
        "observations.height": views.height, "observations.width": views.width,
        "observations.steps_per_image": views.steps_per_image, "actions.horizon": actions.horizon,
        "actions.action_dim": actions.action_dim, "actions.state_dim": actions.state_dim,
        "conventions.text_len": c.conventions.text_len,
        "conventions.num_steps": c.conventions.num_steps,
    }  # fmt: skip
    found = [
        f"{name} is {value}; expected at least 1" for name, value in sizes.items() if value < 1
    ]
    # What no model has, and what would be allocated or listed before anything else looked at it.
    most = {"num_layers": 4096}
    found += [
        f"{name} is {value}; expected at most {most.get(name, 1 << 24):,}"
        for name, value in sizes.items()
        if value > most.get(name, 1 << 24)
    ]
    found += [
        f"memory.{name} is {value}; expected 0 or more"
        for name, value in (("num_anchors", memory.num_anchors), ("num_gists", memory.num_gists))
        if value < 0
    ]
    floats = {
        "rope_theta": c.rope_theta, "actions.clamp": actions.clamp,
        "conventions.action_shift": c.conventions.action_shift,
        "observations.control_hz": views.control_hz,
    }  # fmt: skip
    found += [
        f"{name} is {value}; expected a finite number above 0"
        for name, value in floats.items()
        if not (math.isfinite(value) and value > 0)
    ]
    found += [
        f"{name} holds {value}; expected finite numbers{' above 0' if positive else ''}"
        for name, values, positive in (
            ("vae.latent_mean", vae.latent_mean, False),
            ("vae.latent_std", vae.latent_std, True),
            ("conventions.gist_hw_marker", c.conventions.gist_hw_marker, False),
            ("conventions.clean_timestep", (c.conventions.clean_timestep,), False),
            ("conventions.gist_timestep", (c.conventions.gist_timestep,), False),
        )
        for value in values
        if not math.isfinite(value) or (positive and value <= 0)
    ]
    return found or _mismatches(c)


def _mismatches(c: InferenceContract) -> list[str]:
    """Return contradictions between parts whose sizes are each legal alone."""
    actions, vae, views = c.actions, c.vae, c.observations
    found = []
    if c.head_dim % 2 or c.head_dim < 6:
        found.append(
            f"head_dim is {c.head_dim}; expected an even number of at least 6 for 3-D RoPE"
        )
    if c.time_dim % 2:
        found.append(f"time_dim is {c.time_dim}; expected an even number (cosines, then sines)")
    cell = (vae.spatial_factor * c.patch[0], vae.spatial_factor * c.patch[1])
    if views.height % cell[0] or views.width % cell[1]:
        found.append(
            f"the mosaic is {views.height} x {views.width}; expected multiples of "
            f"{cell[0]} x {cell[1]} (encoder factor times patch)"
        )
    if len(vae.temporal_downsample) != len(vae.channel_multipliers) - 1:
        found.append(
            f"vae.temporal_downsample has {len(vae.temporal_downsample)} entries; expected "
            f"{len(vae.channel_multipliers) - 1}, one fewer than channel_multipliers"
        )
    cameras = 1 if views.mosaic == "single" else 3
    if len(views.cameras) != cameras or len(set(views.cameras)) != cameras:
        found.append(
            f"mosaic '{views.mosaic}' takes {cameras} different cameras; "
            f"found {list(views.cameras)}"
        )
    if cameras == 3 and (views.height % 3 or views.width % 2):
        found.append(
            f"mosaic '{views.mosaic}' needs a height divisible by 3 and an even width; "
            f"found {views.height} x {views.width}"
        )
    for name, count, values in (
        ("actions.names", actions.action_dim, actions.names),
        ("actions.units", actions.action_dim, actions.units),
        ("vae.latent_mean", vae.latent_channels, vae.latent_mean),
        ("vae.latent_std", vae.latent_channels, vae.latent_std),
    ):
        if values and len(values) != count:
            found.append(f"{name} has {len(values)} entries; expected {count} or none")
    if c.conventions.vae_history == "single_frame" and (c.memory.num_anchors or c.memory.num_gists):
        found.append(
            "vae_history 'single_frame' keeps one frame: num_anchors and num_gists must be 0"
        )
    return found
