"""The inference contract: what it refuses, and that its hash stands for all of it."""

import json
from typing import Any

import msgspec
import pytest

from memorywam_export.checkpoints.presets import PRESETS, contract_from_preset
from memorywam_runtime.contract import (
    Conventions,
    InferenceContract,
    VaeSizes,
    contract_from_json,
    contract_to_json,
)
from memorywam_runtime.errors import ContractError

# A bundle and its checkpoint know each other by these: a change breaks every bundle ever made.
GOLDEN = {
    "robotwin-384x320": "507913206933135e71cdb0f4777adb80136ba37cfa2296a13763d34ded2e118c",
    "d455-256x352": "aa2364ffe36b947ae9d468ad9be00bfac30b1d3dbfe560ab9228002a0794deb4",
    "fastwam": "eb9a99a9ecf5335c15643c6123c3035841eb62766a68026e0ea6aa851c751a98",
}
# Beside each leaf, another legal value where "one more" or "the other" is not one.
OTHER_VALUES = {
    ("head_dim",): 14,
    ("time_dim",): 10,
    ("patch",): [1, 1],
    ("vae", "channel_multipliers"): [1, 2, 3],
    ("vae", "temporal_downsample"): [True, False],
    ("vae", "latent_mean"): [0.5] * 6,
    ("vae", "latent_std"): [0.5] * 6,
    ("observations", "cameras"): ["a", "b", "c"],
    ("observations", "mosaic"): "head_top_wrists_bottom",
    ("observations", "height"): 96,
    ("observations", "width"): 64,
    ("actions", "action_dim"): None,
    ("actions", "names"): [],
    ("actions", "units"): [],
    ("actions", "normalization"): "quantile",
    ("conventions", "gist_hw_marker"): [0.0, 0.0],
    ("conventions", "action_position"): "row_below",
    ("conventions", "vae_history"): "windowed",
    ("conventions", "modulation_dtype"): "float32",
}
ONLY_ONE_VALUE = {("observations", "resize"), ("observations", "channel_order")}


def leaves(part: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, value in part.items():
        here = (*path, name)
        found += leaves(value, here) if isinstance(value, dict) else [here]
    return found


def changed(path: tuple[str, ...]) -> InferenceContract:
    """Return tiny with one leaf changed."""
    fields = msgspec.to_builtins(contract_from_preset("tiny"))
    part = fields
    for name in path[:-1]:
        part = part[name]
    old = part[path[-1]]
    if path == ("actions", "action_dim"):
        part.update(action_dim=13, names=[], units=[])
        return msgspec.convert(fields, InferenceContract)
    if path in OTHER_VALUES:
        part[path[-1]] = OTHER_VALUES[path]
    elif isinstance(old, bool):
        part[path[-1]] = not old
    elif isinstance(old, str):
        part[path[-1]] = old + "x"
    else:
        part[path[-1]] = old + 1
    return msgspec.convert(fields, InferenceContract)


LEAVES = [
    path
    for path in leaves(msgspec.to_builtins(contract_from_preset("tiny")))
    if path not in ONLY_ONE_VALUE
]


@pytest.mark.parametrize("name", PRESETS)
def test_json_both_ways(name):
    contract = contract_from_preset(name)
    text = contract_to_json(contract)
    assert contract_from_json(text) == contract
    assert contract_to_json(contract_from_json(text)) == text
    assert contract_from_json(text).hash == contract.hash


@pytest.mark.parametrize("name", GOLDEN)
def test_hashes_of_the_public_presets_never_change(name):
    assert contract_from_preset(name).hash == GOLDEN[name]


def test_presets_differ():
    assert len({contract.hash for contract in PRESETS.values()}) == len(PRESETS)


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_the_hash_changes_with_every_field_but_the_name(path):
    contract = contract_from_preset("tiny")
    other = changed(path)
    assert other != contract
    assert (other.hash == contract.hash) == (path == ("name",))


def test_the_hash_does_not_depend_on_how_a_number_was_written():
    contract = contract_from_preset("tiny")
    actions = msgspec.structs.replace(contract.actions, clamp=5)
    marker = msgspec.structs.replace(contract.conventions, gist_hw_marker=[-1, -1])
    same = msgspec.structs.replace(contract, actions=actions, conventions=marker)
    assert same.hash == contract.hash == contract_from_json(contract_to_json(same)).hash


def replaced(path: str, value: Any, base: str = "tiny") -> InferenceContract:
    contract = contract_from_preset(base)
    *parts, name = path.split(".")
    if not parts:
        return msgspec.structs.replace(contract, **{name: value})
    part = msgspec.structs.replace(getattr(contract, parts[0]), **{name: value})
    return msgspec.structs.replace(contract, **{parts[0]: part})


NOT_BELOW_ONE = [
    "num_layers", "num_heads", "head_dim", "video.hidden", "video.ffn", "action.hidden",
    "action.ffn", "text_dim", "time_dim", "trained_frames", "vae.base_channels",
    "vae.latent_channels", "vae.num_res_blocks", "memory.num_recent", "observations.height",
    "observations.width", "observations.steps_per_image", "actions.horizon", "actions.action_dim",
    "actions.state_dim", "conventions.text_len", "conventions.num_steps",
]  # fmt: skip


@pytest.mark.parametrize("path", NOT_BELOW_ONE)
@pytest.mark.parametrize("value", [0, -3])
def test_sizes_below_one_are_refused(path, value):
    with pytest.raises(ContractError) as error:
        replaced(path, value)
    assert str(error.value) == (
        f"inference contract 'tiny': {path} is {value}; expected at least 1"
    )


@pytest.mark.parametrize("path", ["memory.num_anchors", "memory.num_gists"])
def test_negative_counts_are_refused(path):
    with pytest.raises(ContractError, match=rf"{path} is -1; expected 0 or more"):
        replaced(path, -1)


@pytest.mark.parametrize(
    "path", ["rope_theta", "actions.clamp", "conventions.action_shift", "observations.control_hz"]
)
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_measures_must_be_finite_and_positive(path, value):
    with pytest.raises(ContractError, match=rf"{path} is {value}; expected a finite number above"):
        replaced(path, value)


COMPLAINTS = [
    ("patch", (2, 0), "patch is 0; expected at least 1"),
    ("head_dim", 13, "head_dim is 13; expected an even number of at least 6 for 3-D RoPE"),
    ("head_dim", 4, "head_dim is 4; expected an even number of at least 6 for 3-D RoPE"),
    ("time_dim", 7, r"time_dim is 7; expected an even number \(cosines, then sines\)"),
    ("observations.height", 50, "the mosaic is 50 x 32; expected multiples of 16 x 16"),
    ("observations.width", 40, "the mosaic is 48 x 40; expected multiples of 16 x 16"),
    ("observations.height", 64, "needs a height divisible by 3 and an even width; found 64 x 32"),
    ("vae.temporal_downsample", (True,), "temporal_downsample has 1 entries; expected 2, one few"),
    ("vae.channel_multipliers", (), "vae.channel_multipliers is 0; expected at least 1"),
    ("vae.channel_multipliers", (1, 0, 2), "vae.channel_multipliers is 0; expected at least 1"),
    ("vae.latent_mean", (0.0,), "vae.latent_mean has 1 entries; expected 6 or none"),
    ("vae.latent_std", (1.0,) * 7, "vae.latent_std has 7 entries; expected 6 or none"),
    ("vae.latent_std", (1.0,) * 5 + (0.0,), "latent_std holds 0.0; expected finite numbers above"),
    ("vae.latent_mean", (float("nan"),) * 6, "latent_mean holds nan; expected finite numbers"),
    ("conventions.gist_hw_marker", (float("inf"), 0.0), "gist_hw_marker holds inf; expected fin"),
    ("conventions.clean_timestep", float("nan"), "clean_timestep holds nan; expected finite"),
    ("conventions.gist_timestep", float("-inf"), "gist_timestep holds -inf; expected finite"),
    ("observations.cameras", ("a", "b"), r"takes 3 different cameras; found \['a', 'b'\]"),
    ("observations.cameras", ("a", "b", "a"), "takes 3 different cameras; found"),
    ("observations.mosaic", "single", "mosaic 'single' takes 1 different cameras; found"),
    ("actions.names", ("a",), "actions.names has 1 entries; expected 14 or none"),
    ("actions.units", ("rad",) * 15, "actions.units has 15 entries; expected 14 or none"),
    ("conventions.vae_history", "single_frame", "'single_frame' keeps one frame: num_anchors and"),
]


@pytest.mark.parametrize(("path", "value", "message"), COMPLAINTS)
def test_contradictions_are_named(path, value, message):
    with pytest.raises(ContractError, match=f"^inference contract 'tiny': .*{message}"):
        replaced(path, value)


def test_an_unknown_preset_lists_the_known():
    with pytest.raises(
        ContractError, match=r"unknown preset 'no'; available presets: robotwin-384"
    ):
        contract_from_preset("no")


@pytest.mark.parametrize("part", ["", "video", "memory", "vae", "observations", "conventions"])
def test_unknown_fields_are_refused_by_name(part):
    fields = json.loads(contract_to_json(contract_from_preset("tiny")))
    (fields[part] if part else fields)["wings"] = 2
    with pytest.raises(ContractError, match=r"unknown field `wings`.*memorywam export --list-pre"):
        contract_from_json(json.dumps(fields).encode())


@pytest.mark.parametrize("field", ["name", "video", "num_layers"])
def test_missing_fields_are_refused_by_name(field):
    fields = json.loads(contract_to_json(contract_from_preset("tiny")))
    del fields[field]
    with pytest.raises(ContractError, match=f"missing required field `{field}`"):
        contract_from_json(json.dumps(fields).encode())


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"name": "\xff"}', b'{"name": 3}', b"[" * 99999],
    ids=lambda text: repr(text[:8]),
)
def test_what_is_no_contract_is_refused(text):
    with pytest.raises(ContractError, match="not an inference contract"):
        contract_from_json(text)


def test_a_contradiction_in_json_is_a_contract_error():
    fields = json.loads(contract_to_json(contract_from_preset("tiny")))
    fields["num_heads"] = 0
    with pytest.raises(ContractError, match="num_heads is 0; expected at least 1"):
        contract_from_json(json.dumps(fields).encode())


def test_a_contract_cannot_be_changed():
    with pytest.raises(AttributeError):
        contract_from_preset("tiny").num_layers = 4  # type: ignore[misc]


def test_derived_sizes_are_those_of_the_paper():
    real = contract_from_preset("robotwin-384x320")
    assert real.num_visual == 120
    assert real.num_frame_tokens == 128
    assert real.latent_shape == (24, 20)
    assert real.rope_pairs == (22, 21, 21)
    assert real.steps_per_frame == 16
    assert real.num_ring_slots == 4
    assert contract_from_preset("d455-256x352").num_visual == 88
    excluded = msgspec.structs.replace(real, conventions=Conventions(recent_includes_current=False))
    assert excluded.num_ring_slots == 5
    assert VaeSizes().spatial_factor == 16
    assert VaeSizes().temporal_factor == 4
