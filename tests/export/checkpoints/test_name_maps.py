"""Name maps: each is a bijection on the whole model, and reads back what upstream writes."""

import json
from importlib import resources
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.fakes.checkpoints import FASTWAM, TINY, tensors_of, write_stats
from tests.fakes.upstream import DECLARED, parts_of, vae_tensors

from memorywam_export.checkpoints.checkpoint import (
    Companions,
    checkpoint_from_argument,
    model_shapes,
)
from memorywam_export.checkpoints.checkpoint_files import tensor_file_from_path
from memorywam_export.checkpoints.name_map_format import map_file_from_json
from memorywam_export.checkpoints.name_maps import (
    NameMap,
    chosen_map,
    recognised_maps,
    shipped_maps,
)
from memorywam_export.checkpoints.name_patterns import NamePattern
from memorywam_export.checkpoints.presets import PRESETS, contract_from_preset
from memorywam_runtime.errors import CheckpointError, InputError

CHECKPOINTS = [name for name, each in shipped_maps().items() if each.file.holds == "checkpoint"]
WITH_GIST = ["fastwam", "lerobot", "mem-wam-per-frame", "memorywam", "memorywam-robomme"]
UPSTREAM = {
    "fastwam": "mot.mixtures.video.blocks.2.self_attn.q.weight",
    "lerobot": "mot.layers.2.blocks.video.self_attn.q.weight",
    "mem-wam": "mot.mixtures.video.blocks.2.self_attn.q.weight",
    "mem-wam-per-frame": "mot.mixtures.video.blocks.2.self_attn.q.weight",
    "memorywam": "mixtures.video.blocks.2.self_attn.q.weight",
    "memorywam-robomme": "mot.layers.2.video_block.self_attn.q.weight",
}


def map_of(**changes: Any):
    """Return FastWAM's map with other entries."""
    path = resources.files("memorywam_export.checkpoints") / "upstream_names" / "fastwam.json"
    text = json.dumps(json.loads(path.read_text()) | changes)
    return NameMap(map_file_from_json(text.encode(), "test"))


@pytest.fixture
def folder(tmp_path):
    """A folder with the encoder and the statistics of `tiny`, for weights to be put beside."""
    torch.save(vae_tensors(TINY, tensors_of(TINY)), tmp_path / "Wan2.2_VAE.pth")
    write_stats(tmp_path, TINY)
    return tmp_path


def save(folder, name_map, tensors, prefix="", **changes):
    """Write weights as upstream does; return the file."""
    content = parts_of(name_map, tensors) | changes
    if shipped_maps()[name_map].file.containers[0] == "torch":
        torch.save(content, folder / "weights.pt")
        return folder / "weights.pt"
    flat = {f"mot.{name}": t for name, t in content.get("mot", {}).items()}
    flat |= {f"proprio_encoder.{name}": t for name, t in content["proprio_encoder"].items()}
    flat |= {name: t for name, t in content.items() if isinstance(t, torch.Tensor)}
    save_file({f"{prefix}{name}": t for name, t in flat.items()}, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def read(path, name_map=None, contract=TINY):
    beside = Companions(vae_path=path.parent / "Wan2.2_VAE.pth", name_map=name_map)
    return checkpoint_from_argument(str(path), contract=contract, companions=beside)


def test_what_ships():
    assert set(shipped_maps()) == {*UPSTREAM, "wan22-vae"}
    for name, each in shipped_maps().items():
        assert name == each.name
        assert each.file.source
        assert each.file.certain == (name not in ("memorywam-robomme", "mem-wam-per-frame"))


@pytest.mark.parametrize("preset", ["tiny", "tiny-fastwam", "demo", "fastwam", "robotwin-384x320"])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_each_map_is_a_bijection_on_every_name(name, preset):
    shapes = model_shapes(contract_from_preset(preset))
    name_map = shipped_maps()[name]
    name_map.check_bijective(shapes)
    lacks = {ours for ours in shapes if name_map.upstream_of(ours) is None}
    assert lacks <= {n for n in shapes if n.startswith("vae.") or n == "gist_tokens"}


@pytest.mark.parametrize(("name", "upstream"), UPSTREAM.items())
def test_a_layer_is_called_what_upstream_calls_it(name, upstream):
    assert shipped_maps()[name].upstream_of("mixtures.video.blocks.2.self_attn.q.weight") == (
        upstream
    )


def test_a_gist_bank_is_called_what_upstream_calls_it():
    def name_of(each):
        return shipped_maps()[each].upstream_of("gist_tokens")

    assert name_of("memorywam-robomme") == "mot.shared_gist_tokens.weight"
    assert name_of("mem-wam-per-frame") == "layerwise_block_memory.slots"
    assert name_of("mem-wam") is None


@pytest.mark.parametrize("name", WITH_GIST)
def test_weights_come_back_under_our_names(folder, name):
    tensors = tensors_of(TINY)
    automatic = shipped_maps()[name].file.automatic
    path = save(folder, name, tensors, prefix="model." if name == "lerobot" else "")
    checkpoint = read(path, None if automatic else name)
    assert checkpoint.name_map == name
    found = {weight.name: weight.checked() for weight in checkpoint.weights}
    assert set(found) == set(tensors)
    for ours, tensor in tensors.items():
        assert torch.equal(found[ours], tensor), ours


@pytest.mark.parametrize("prefix", ["model.", "policy.model.", ""])
def test_prefixes_of_lerobot(folder, prefix):
    path = save(folder, "lerobot", tensors_of(TINY), prefix)
    assert recognised_maps(tensor_file_from_path(path)) == [shipped_maps()["lerobot"]]
    assert read(path).name_map == "lerobot"


def test_lerobots_names_from_before_its_layers(folder):
    flat = {
        f"model.{'' if name.startswith('proprio') else 'mot.'}{name}": tensor
        for name, tensor in tensors_of(FASTWAM).items()
        if not name.startswith(("vae.", "gist"))
    }
    save_file(flat, folder / "model.safetensors")
    checkpoint = read(folder / "model.safetensors", contract=FASTWAM)
    assert checkpoint.name_map == "fastwam"
    assert len(checkpoint.weights) == len(tensors_of(FASTWAM))


def test_the_core_of_robomme_alone_has_other_names(folder):
    """Its core's own state dict has no `mot.`; a state dict of the whole has every name twice."""
    tensors = tensors_of(TINY)
    content = parts_of("memorywam-robomme", tensors)
    core = content.pop("mot")
    torch.save({**content, **core}, folder / "weights.pt")
    assert read(folder / "weights.pt").name_map == "memorywam-robomme"
    torch.save({**content, "mot": core, "dit": core}, folder / "weights.pt")
    assert len(read(folder / "weights.pt").weights) == len(tensors)
    # Not the same tensor under another name: refused, not dropped.
    other = {**core, "layers.0.video_block.extra": torch.ones(2)}
    torch.save({**content, "mot": core, "dit": other}, folder / "weights.pt")
    with pytest.raises(CheckpointError, match=r"left over \[dit.layers.0.video_block.extra\]"):
        read(folder / "weights.pt")
    torch.save({**content, **core, "mot": core}, folder / "weights.pt")
    with pytest.raises(
        CheckpointError, match=r"' and '.*' both stand for '.* \(name map 'memorywam-robomme'\)"
    ):
        read(folder / "weights.pt")


def test_slots_of_groups_are_refused_with_what_to_do(folder):
    path = save(folder, "mem-wam-per-frame", tensors_of(TINY))
    with pytest.raises(
        CheckpointError,
        match=r"'layerwise_block_memory.slots' is refused: slots that compress a group of frames "
        r".*--name-map mem-wam-per-frame",
    ):
        read(path)
    assert read(path, "mem-wam-per-frame").name_map == "mem-wam-per-frame"


@pytest.mark.parametrize("name", ["level_embedding.weight", "other"])
def test_other_memory_of_mem_wam_is_refused_too(folder, name):
    content = parts_of("mem-wam-per-frame", tensors_of(TINY))
    content["layerwise_block_memory"][name] = torch.ones(9, 24)
    torch.save(content, folder / "weights.pt")
    with pytest.raises(CheckpointError, match=f"layerwise_block_memory.{name}"):
        read(folder / "weights.pt", "mem-wam-per-frame")


def test_slots_of_another_number_or_form_are_refused(folder):
    tensors = tensors_of(TINY)
    content = parts_of("mem-wam-per-frame", tensors)
    for shape in ((1, 3, 24), (2, 2, 24), (2, 24)):
        content["layerwise_block_memory"] = {"slots": torch.ones(shape)}
        torch.save(content, folder / "weights.pt")
        if shape == (2, 24):
            assert len(read(folder / "weights.pt", "mem-wam-per-frame").weights) == len(tensors)
            continue
        with pytest.raises(CheckpointError, match=r"of another shape or type \[layerwise_block_me"):
            read(folder / "weights.pt", "mem-wam-per-frame")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anchor_frames": 3}, "anchor_frames is 3 and memory.num_anchors is 2"),
        ({"recent_frames": 4}, "recent_frames is 4 and memory.num_recent is 3"),
        ({"memory_tokens": 8}, "memory_tokens is 8 and memory.num_gists is 2"),
        ({"action_scheduler_shift": 5.0}, "shift is 5.0 and conventions.action_shift is 1.0"),
        ({"action_num_train_timesteps": 500}, "timesteps is 500; expected 1000: timesteps run"),
        ({"dynamic_tokens_per_frame": 8}, "dynamic_tokens_per_frame is 8; expected None: every"),
        ({"reader_use_memory": False}, "reader_use_memory is False; expected True: gists are"),
        ({"memory_segmentation_mode": "fixed_length"}, "memory is not cut into segments here"),
    ],
)
def test_what_a_checkpoint_declares_must_agree(folder, change, message):
    path = save(folder, "mem-wam-per-frame", tensors_of(TINY), inference_contract=DECLARED | change)
    with pytest.raises(CheckpointError, match=message):
        read(path, "mem-wam-per-frame")


def test_a_fork_without_memory_loads_by_itself(folder):
    """Mem-WAM writes FastWAM's parts and a declaration where it has no memory of its own."""
    tensors = {n: t for n, t in tensors_of(FASTWAM).items() if n != "gist_tokens"}
    declared = {"action_scheduler_shift": 5.0, "full_kv_cache": True}
    path = save(folder, "mem-wam", tensors, inference_contract=declared)
    assert read(path, contract=FASTWAM).name_map == "mem-wam"


def test_what_fits_no_map_is_refused_with_the_list(folder):
    save_file({"a": torch.ones(1), "b": torch.ones(1)}, folder / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"names \[a, b\]; no name map fits, of fastwam, ler"):
        read(folder / "weights.safetensors")
    path = save(folder, "fastwam", tensors_of(TINY))
    with pytest.raises(
        CheckpointError, match=r"'lerobot' does not fit: its markers are 'mot.layers.{i}.blocks"
    ):
        read(path, "lerobot")
    with pytest.raises(InputError, match="no name map 'other'; expected a file, or one of fastwam"):
        read(path, "other")
    with pytest.raises(InputError, match="no name map 'wan22-vae'; expected"):
        read(path, "wan22-vae")


def test_a_file_that_two_maps_fit_is_refused_with_their_names(folder, monkeypatch):
    maps = dict(shipped_maps()) | {"twin": map_of(name="twin")}
    monkeypatch.setattr("memorywam_export.checkpoints.name_maps.shipped_maps", lambda: maps)
    path = save(folder, "fastwam", tensors_of(TINY))
    with pytest.raises(CheckpointError, match=r"the name maps fastwam, twin fit; choose one with"):
        read(path)
    assert chosen_map(tensor_file_from_path(path), "twin")[0].name == "twin"


def test_a_map_of_ones_own(folder):
    path = resources.files("memorywam_export.checkpoints") / "upstream_names" / "memorywam.json"
    content = json.loads(path.read_text())
    content |= {"name": "mine", "markers": [["net/gist_tokens"]]}
    for entry in (*content["rules"], *content["unused"]):
        entry["upstream"] = f"net/{entry['upstream']}"
    (folder / "mine.json").write_text(json.dumps(content))
    tensors = tensors_of(TINY)
    save_file({f"net/{n}": t for n, t in tensors.items()}, folder / "weights.safetensors")
    checkpoint = checkpoint_from_argument(
        str(folder / "weights.safetensors"),
        contract=TINY,
        companions=Companions(name_map=str(folder / "mine.json")),
    )
    assert checkpoint.name_map == "mine"
    assert {w.name for w in checkpoint.weights} == set(tensors)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no name map"),
        (b"\xff", "is no name map"),
        (b"[]", "is no name map"),
        (b"[" * 99999, "is no name map"),
        (b'{"name": "a"}', "missing required field"),
    ],
)
def test_a_file_that_is_no_map_is_refused(folder, content, message):
    (folder / "mine.json").write_bytes(content)
    path = save(folder, "fastwam", tensors_of(TINY))
    with pytest.raises(InputError, match=message):
        read(path, str(folder / "mine.json"))


RULES = json.loads(
    (
        resources.files("memorywam_export.checkpoints") / "upstream_names" / "fastwam.json"
    ).read_text()
)["rules"]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (RULES[1:], "no rule makes 'mixtures.video.blocks.0.modulation'"),
        ([*RULES, {"upstream": "x.{rest}", "ours": "proprio_encoder.{rest}"}], "both stand for '"),
        (
            [{"upstream": "mot.a.{rest}", "ours": "{rest}"}, *RULES[-1:]],
            "both stand for 'vae.conv1",
        ),
        ([{"upstream": "mot.a", "ours": "mixtures.video.{rest}"}], "differ in their placeholders"),
        ([{"upstream": "mot.{x}", "ours": "{x}"}], r"placeholders \['x'\]; expected each once"),
        ([{"upstream": "{i}.{i}", "ours": "{i}"}], "expected each once"),
    ],
)
def test_a_map_that_is_no_bijection_is_refused(rules, message):
    with pytest.raises(InputError, match=message):
        map_of(rules=rules).check_bijective(model_shapes(TINY))


def test_a_name_that_a_rule_and_a_reason_match_is_refused(folder):
    """Used or left out: the map must say one of them."""
    rules = [{"upstream": "mot.mixtures.{rest}", "ours": "mixtures.{rest}"}, *RULES[5:]]
    name_map = map_of(rules=rules)
    name_map.check_bijective(model_shapes(TINY))
    file = tensor_file_from_path(save(folder, "fastwam", tensors_of(TINY)))
    with pytest.raises(
        InputError, match=r"has the forms 'mot.mixtures.{rest}' and 'mot.mixtures.video.head.{rest}"
    ):
        name_map.applied(file)


def test_two_names_of_ours_never_share_one_upstream():
    shapes = {"a.b", "a.c"}
    rules = [{"upstream": "same", "ours": "a.b"}, {"upstream": "same", "ours": "a.c"}]
    with pytest.raises(InputError, match="has the forms 'same' and 'same'"):
        map_of(rules=rules, unused=[], lacks=[]).check_bijective(sorted(shapes))


def test_patterns():
    pattern = NamePattern("a.{i}.{expert}_block.{rest}", {"expert": ("video", "action")})
    assert pattern.match("a.10.video_block.x.y") == {"i": "10", "expert": "video", "rest": "x.y"}
    for other in ("a.01.video_block.x", "a.1.sound_block.x", "aX1.video_block.x", "a.1.video_bl"):
        assert pattern.match(other) is None
    values = pattern.match("a.0.action_block.x")
    assert values is not None
    assert pattern.fill(values) == "a.0.action_block.x"
    assert NamePattern("a(.*").match("a(.*") == {}


def test_presets_are_all_covered():
    """Every model that ships can be written under every name that the maps certain of have."""
    for preset in PRESETS.values():
        shipped_maps()["fastwam"].check_bijective(model_shapes(preset))
