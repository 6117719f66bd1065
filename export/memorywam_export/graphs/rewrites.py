"""Exact rewrites: which there are, which fit a contract, and the model's form under them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import get_args

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn

from memorywam_export.reference.attention import CrossAttention, SelfAttention
from memorywam_export.reference.blocks import Attend, Block
from memorywam_export.reference.model import MemoryWam
from memorywam_export.reference.rope import rotate
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest, Rewrite

__all__ = [
    "DEFAULT_TEXT_ROWS",
    "NO_REWRITES",
    "REWRITES",
    "FoldedBlock",
    "FoldedLastBlock",
    "HalvesAttention",
    "Rewrites",
    "RewrittenModel",
    "halves_order",
    "last_keys_values",
    "rewrites_for",
    "rewrites_of",
    "rewrites_of_manifest",
]

REWRITES: tuple[Rewrite, ...] = get_args(Rewrite)
"""All there are, in the order in which they are told."""
DEFAULT_TEXT_ROWS = 64
"""Prompt rows under collapse-padding: a RoboTwin instruction in FastWAM's template has 20 to 45."""

_EPS = 1e-6
Tables = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrites:
    """The rewrites that are in effect, and the one size that they choose."""

    names: tuple[Rewrite, ...] = ()
    text_rows: int | None = None
    """Rows of the prompt's keys under collapse-padding; else None: the contract's text length."""

    def __contains__(self, name: Rewrite) -> bool:
        """Is this rewrite in effect?"""
        return name in self.names

    @property
    def changes_weights(self) -> bool:
        """Do the weights differ from the checkpoint's?"""
        return bool({"fold-modulation", "rope-halves"} & set(self.names))


NO_REWRITES = Rewrites()


def rewrites_for(
    contract: InferenceContract,
    *,
    wanted: Iterable[str] = (),
    unwanted: Iterable[str] = (),
    text_rows: int = DEFAULT_TEXT_ROWS,
) -> Rewrites:
    """Return the rewrites of an export: all that fit the contract, less those not wanted.

    `fold-modulation` needs one modulation for all tokens of a frame, not gist tokens with a
    timestep of their own; `early-frames` needs groups of four images. What does not fit is left
    out, and refused if it was asked for by name.

    Args:
        contract: Sizes and conventions.
        wanted: Names that must be in effect.
        unwanted: Names that must not.
        text_rows: Prompt rows under collapse-padding, the zero row among them.

    Raises:
        InputError: an unknown name, a name both wanted and not, or one that does not fit.
    """
    wanted, unwanted = set(wanted), set(unwanted)
    if unknown := sorted((wanted | unwanted) - set(REWRITES)):
        raise InputError(f"unknown rewrite '{unknown[0]}'; expected one of {', '.join(REWRITES)}")
    if both := sorted(wanted & unwanted):
        raise InputError(f"found rewrite '{both[0]}' both on and off; leave one of the two out")
    if text_rows < 2:
        raise InputError(
            f"found {text_rows} text rows; expected at least 2: one of the prompt, one of zeros"
        )
    conventions = contract.conventions
    unfit = _unfit(contract)
    for name in sorted(wanted & set(unfit)):
        raise InputError(f"rewrite '{name}': {unfit[name]}: leave --rewrite {name} out")
    names: tuple[Rewrite, ...] = tuple(
        name for name in REWRITES if name not in unwanted | set(unfit)
    )
    rows = min(text_rows, conventions.text_len) if "collapse-padding" in names else None
    return Rewrites(names=names, text_rows=rows)


def _unfit(contract: InferenceContract) -> dict[str, str]:
    """Return the rewrites that a contract cannot have, and why."""
    found = dict[str, str]()
    conventions = contract.conventions
    if conventions.gist_timestep != conventions.clean_timestep and contract.memory.num_gists:
        found["fold-modulation"] = (
            "found gist tokens with a timestep of their own "
            f"({conventions.gist_timestep}; visual tokens: {conventions.clean_timestep}); expected "
            "one modulation for all tokens of a frame"
        )
    if conventions.vae_history == "single_frame":
        found["early-frames"] = "found frames of a single image; expected groups of four images"
    elif contract.images_per_frame != 4:
        found["early-frames"] = (
            f"found groups of {contract.images_per_frame} images; expected groups of four images"
        )
    return found


def rewrites_of_manifest(manifest: Manifest) -> Rewrites:
    """Return the rewrites that a bundle was exported with."""
    (context,) = manifest.graphs["prompt_kv"].inputs
    collapsed = "collapse-padding" in manifest.rewrites
    return Rewrites(
        names=manifest.rewrites, text_rows=context.fixed_shape[1] if collapsed else None
    )


def rewrites_of(model: MemoryWam) -> Rewrites:
    """Return the rewrites that a model's form is made for; a reference model has none."""
    return model.rewrites if isinstance(model, RewrittenModel) else NO_REWRITES


class RewrittenModel(MemoryWam):
    """The model's modules in the form that the rewrites leave; weights as `folding` makes them.

    Names stay the reference's, so that one weights file serves graphs, prompts and tools alike;
    what folding makes superfluous is gone.
    """

    def __init__(self, contract: InferenceContract, rewrites: Rewrites) -> None:
        super().__init__(contract)
        self.rewrites = rewrites
        if "rope-halves" in rewrites:
            for expert, sizes in ((self.video, contract.video), (self.action, contract.action)):
                for block in expert.blocks:
                    block.self_attn = HalvesAttention(
                        sizes.hidden, contract.num_heads, contract.head_dim
                    )
        if "fold-modulation" in rewrites:
            del self.video.time_embedding, self.video.time_projection
            *earlier, last = self.video.blocks
            folded: list[nn.Module] = [FoldedBlock(_block(block)) for block in earlier]
            self.video.blocks = nn.ModuleList([*folded, FoldedLastBlock(_block(last))])


class HalvesAttention(SelfAttention):
    """Self-attention whose rotary pairs are (i, i + D / 2) instead of (2i, 2i + 1)."""

    def project(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return q, k (rotated) and v (raw), each [B, H, n, D]."""
        return (
            _rotate_halves(self.queries(x), cos, sin),
            _rotate_halves(self.keys(x), cos, sin),
            self.values(x),
        )


class FoldedBlock(nn.Module):
    """A block whose constant modulation, and whose affine norm, are in its weights.

    (1 + scale1), shift1 are in q, k, v; gate1 in o; the affine of norm3 in the cross-attention's
    q; (1 + scale2), shift2 in the first map of the feed-forward; gate2 in the second.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.self_attn = block.self_attn
        self.cross_attn = block.cross_attn
        self.ffn = block.ffn

    def forward(
        self,
        x: torch.Tensor,
        e: torch.Tensor | None,
        tables: Tables,
        attend: Attend,
        cross: Callable[[CrossAttention, torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Return the tokens after this block; `e` is in the weights and not looked at.

        Args:
            x: Tokens [B, n, hidden], in the type of the residual stream.
            e: Ignored.
            tables: RoPE cosines and sines [n, D / 2].
            attend: Self-attention over whatever the caller keeps.
            cross: Applies the cross-attention of this block to normalized tokens.
        """
        q, k, v = self.self_attn.project(self._normed(x), *tables)
        x = x + self.self_attn.o(attend(q, k, v)).to(x.dtype)
        x = x + cross(self.cross_attn, self._normed(x)).to(x.dtype)
        return x + self.ffn(self._normed(x)).to(x.dtype)  # type: ignore[no-any-return]

    def _normed(self, x: torch.Tensor) -> torch.Tensor:
        """Return LayerNorm without affine, in the type of the weights."""
        weight: torch.Tensor = self.self_attn.q.weight
        return F.layer_norm(x, x.shape[-1:], eps=_EPS).to(weight.dtype)


class FoldedLastBlock(nn.Module):
    """The last video block: nothing reads its tokens, so it makes only keys and values."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.self_attn = block.self_attn
        del self.self_attn.q, self.self_attn.o, self.self_attn.norm_q


def last_keys_values(
    block: nn.Module, x: torch.Tensor, e: torch.Tensor | None, tables: Tables
) -> Tables:
    """Return the keys and values [B, H, n, D] of the last video block, and nothing else of it.

    Args:
        block: The last block, of the reference or folded.
        x: Tokens [B, n, hidden].
        e: Timestep modulation [B, 1 or n, 6, hidden]; None if folded.
        tables: RoPE cosines and sines [n, D / 2].
    """
    y = F.layer_norm(x, x.shape[-1:], eps=_EPS)
    if isinstance(block, Block):
        assert e is not None
        shift, scale, *_ = (block.modulation.to(e.dtype) + e).unbind(dim=-2)
        y = y * (1 + scale) + shift
    else:
        assert isinstance(block, FoldedLastBlock)
    attention = block.self_attn
    y = y.to(attention.k.weight.dtype)
    turn = _rotate_halves if isinstance(attention, HalvesAttention) else rotate
    return turn(attention.keys(y), *tables), attention.values(y)


def halves_order(head_dim: int) -> torch.Tensor:
    """Return where each element of a rewritten head stood: 0, 2, 4, ..., then 1, 3, 5, ..."""
    return torch.arange(head_dim).reshape(-1, 2).T.flatten()


def _rotate_halves(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the pairs (i, i + D / 2) of x [B, H, n, D] by tables [n, D / 2]; the type stays."""
    first, second = x.to(cos.dtype).chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)
    return turned.to(x.dtype)


def _block(module: nn.Module) -> Block:
    """Return a block of the reference under its type."""
    assert isinstance(module, Block)
    return module
