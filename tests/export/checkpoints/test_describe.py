"""--describe: what a file is, what is used, what is missing, and what must be told."""

import json
import time

import pytest
import torch
from safetensors.torch import save_file
from tests.fakes.checkpoints import FASTWAM, TINY, tensors_of, write_stats
from tests.fakes.upstream import (
    DECLARED,
    parts_of,
    vae_tensors,
    write_cache_entry,
    write_fastwam,
)

from memorywam_export.checkpoints.checkpoint import Companions, model_shapes
from memorywam_export.checkpoints.describe import description_of
from memorywam_export.checkpoints.describe_report import described_outcome
from memorywam_export.checkpoints.describe_sizes import ATTENTION_WIDTH, misfits, sizes_from_weights
from memorywam_export.checkpoints.presets import PRESETS, contract_from_preset
from memorywam_export.checkpoints.torch_files import weight_of_tensor
from memorywam_runtime.contract import contract_to_json
from memorywam_runtime.errors import CheckpointError, InputError
from memorywam_runtime.report import json_from_data


@pytest.fixture
def folder(tmp_path):
    write_fastwam(tmp_path, FASTWAM)
    return tmp_path


def rows_of(told, about):
    """Return the table's lines on a matter, as {what: (found, note)}."""
    outcome = described_outcome(told)
    assert outcome.ok
    json_from_data(outcome.data)
    assert all(len(row) == len(outcome.headers) for row in outcome.rows)
    return {str(row[1]): (str(row[2]), str(row[3])) for row in outcome.rows if row[0] == about}


def as_is(shape):
    """Return a tensor of any shape that takes four bytes."""
    return torch.zeros(1).expand(shape) if shape else torch.zeros(())


def test_a_fastwam_checkpoint_is_told_part_by_part(folder):
    told = description_of(str(folder / "step_010000.pt"))
    assert told.is_checkpoint
    assert (told.kind, told.name_map, told.container) == ("FastWAM checkpoint", "fastwam", "torch")
    assert told.declared == {"step": 10_000, "torch_dtype": "torch.bfloat16"}
    counts = {part.name: part.num_tensors for part in told.parts}
    assert counts == {"video expert": 93, "action expert": 95, "state encoder": 2, "left out": 3}
    shapes = [s for n, s in model_shapes(FASTWAM).items() if n.startswith("mixtures.video.")]
    video = told.parts[0]
    assert video.num_parameters == sum(torch.Size(s).numel() for s in shapes)
    assert video.num_bytes == 4 * video.num_parameters
    assert video.dtypes == ("float32",)
    assert told.missing_tensors == told.odd_shapes == ()
    assert [need.what for need in told.needs if not need.found] == [
        "contract",
        "video encoder",
        "instructions",
    ]
    assert told.sizes["num_layers"] == 3
    assert told.sizes["memory.num_gists"] == 0
    assert [name for name, reasons in told.presets.items() if not reasons] == ["tiny-fastwam"]
    assert told.presets["tiny"] == ("memory.num_gists is 2, found 0",)
    note = described_outcome(told).note
    assert "45,028 parameters that would be used; missing: contract, video encoder; " in note
    assert note.endswith(
        "\nto export it: --preset tiny-fastwam --vae FILE --out BUNDLE in place of --describe"
    )
    left_out = rows_of(told, "part")["left out"]
    assert left_out[1].startswith("not used: predicts video, which inference never does [mot.mix")
    assert rows_of(told, "needs")["statistics"][0].endswith(
        "dataset_stats.json, for zscore, minmax, quantile"
    )


def test_with_all_that_lies_apart_nothing_is_missing(folder):
    write_cache_entry(folder / "cache", "stack", torch.ones(2, 10), 5)
    beside = Companions(vae_path=folder / "Wan2.2_VAE.pth", text_cache=folder / "cache")
    told = description_of(str(folder / "step_010000.pt"), beside, FASTWAM)
    assert all(need.found for need in told.needs)
    assert told.misfit == ""
    assert told.sizes["vae.channel_multipliers"] == (1, 2, 2)
    assert told.sizes["vae.temporal_downsample"] == (True, True)
    note = described_outcome(told).note
    assert "nothing is missing" in note
    assert "35 fields are the contract's word alone: compare them with the training" in note
    assert note.endswith(
        "\nto export it: the same command, with --out BUNDLE in place of --describe"
    )
    assert rows_of(told, "contract says")["conventions.action_position"] == ("sequence", "")
    assert rows_of(told, "to be told") == {}
    misfit = description_of(str(folder / "step_010000.pt"), beside, TINY).misfit
    assert "missing [gist_tokens]" in misfit
    # Without the encoder the sizes are compared, and its absence is told once.
    assert description_of(str(folder / "step_010000.pt"), None, FASTWAM).misfit == ""
    told = description_of(str(folder / "step_010000.pt"), None, TINY)
    assert told.misfit == "memory.num_gists is 2, found 0"
    assert "the weights do not fit the contract" in described_outcome(told).note
    assert "to export it" not in described_outcome(told).note


def test_every_field_of_a_contract_is_read_declared_or_asked_for(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(parts_of("mem-wam-per-frame", tensors_of(TINY)), path)
    told = description_of(str(path), Companions(name_map="mem-wam-per-frame"))
    fields = {field.path: field for field in told.fields}
    parsed = json.loads(contract_to_json(TINY))

    def leaves(part, prefix=""):
        for name, value in part.items():
            if isinstance(value, dict):
                yield from leaves(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}"

    assert set(fields) == set(leaves(parsed))
    by_source = {
        source: {path for path, field in fields.items() if field.source == source}
        for source in ("weights", "declared", "told")
    }
    assert by_source["declared"] == {
        "conventions.action_shift",
        "memory.num_anchors",
        "memory.num_recent",
    }
    assert {"num_layers", "video.ffn", "actions.state_dim", "patch"} <= by_source["weights"]
    assert {"num_heads", "head_dim", "conventions.gist_hw_marker"} <= by_source["told"]
    assert fields["memory.num_recent"].value == 3
    assert fields["conventions.text_len"].default == 128
    assert fields["observations.cameras"].default == ("left_wrist", "right_wrist", "head")
    assert fields["video.ffn"].default is None
    asked = rows_of(told, "to be told")
    assert set(asked) == by_source["told"]
    assert asked["num_heads"] == ("no default", f"weights tell {ATTENTION_WIDTH} alone")
    assert asked["observations.cameras"][0] == "default left_wrist, right_wrist, head"


def test_what_a_checkpoint_declares_is_listed_compared_or_not(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(parts_of("mem-wam-per-frame", tensors_of(TINY)), path)
    told = description_of(str(path))
    assert told.name_map == "mem-wam"
    declared = rows_of(told, "declared")
    assert len(declared) == len(DECLARED) + 2
    assert declared["inference_contract.anchor_frames"] == ("2", "compared")
    assert declared["inference_contract.full_kv_cache"] == ("True", "compared with nothing here")
    (refused,) = (part for part in told.parts if part.name == "in the way")
    assert refused.names == ("layerwise_block_memory.slots",)
    assert "1 names are refused" in described_outcome(told).note
    assert not told.sizes["memory.num_gists"]


def test_missing_odd_and_unknown_tensors_are_told(folder):
    parts = torch.load(folder / "step_010000.pt", weights_only=True)
    del parts["mot"]["mixtures.video.blocks.1.ffn.2.bias"]
    parts["mot"]["mixtures.action.blocks.2.norm3.bias"] = torch.zeros(17)
    parts["mot"]["mixtures.sound.blocks.0.modulation"] = torch.zeros(1)
    parts["optimizer"] = {"param_groups": [{"lr": 1}], "state": {0: {"step": torch.ones(1)}}}
    torch.save(parts, folder / "step_010000.pt")
    told = description_of(str(folder / "step_010000.pt"))
    assert told.missing_tensors == ("mixtures.video.blocks.1.ffn.2.bias",)
    assert told.odd_shapes == ("mixtures.action.blocks.2.norm3.bias [17] (the others make [16])",)
    unknown = next(part for part in told.parts if part.name == "in the way")
    assert unknown.names == ("mot.mixtures.sound.blocks.0.modulation",)
    uses = [part.use for part in told.parts]
    assert "not used: state of the training, no weight of the model" in uses
    assert set(told.declared) == {"step", "torch_dtype"}


@pytest.mark.parametrize("preset", PRESETS)
def test_sizes_of_every_preset_are_read_off_its_weights(preset):
    contract = contract_from_preset(preset)
    with torch.device("meta"):
        weights = {
            name: weight_of_tensor(name, torch.empty(shape))
            for name, shape in model_shapes(contract).items()
        }
    sizes = sizes_from_weights(weights)
    assert misfits(sizes, contract) == []
    assert sizes[ATTENTION_WIDTH] == contract.attention_width
    assert sizes["vae.temporal_downsample"] == contract.vae.temporal_downsample
    assert len(sizes) == 17


@pytest.mark.parametrize("form", ["torch", "safetensors"])
def test_the_real_size_is_described_fast(tmp_path, form):
    """The names and shapes of the real size; 12 GB of weights that are holes."""
    contract = contract_from_preset("fastwam")
    shapes = {n: s for n, s in model_shapes(contract).items() if not n.startswith("vae.")}
    if form == "torch":
        path = tmp_path / "libero.pt"
        content = parts_of("fastwam", {n: as_is(s) for n, s in shapes.items() if s[0]}, 3072)
        assert len(content["mot"]) == 1649
        torch.save(content, path)
    else:
        path = tmp_path / "model.safetensors"
        header, offset = {}, 0
        for name, shape in shapes.items():
            size = 2 * torch.Size(shape).numel()
            spans = [offset, offset + size]
            header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": spans}
            offset += size
        text = json.dumps(header).encode()
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + offset)
    started_s = time.process_time()
    told = description_of(str(path))
    assert time.process_time() - started_s < 20
    used = [part for part in told.parts if part.use == "used" and part.num_tensors]
    assert sum(part.num_parameters for part in used) == pytest.approx(6.02e9, rel=0.01)
    assert (told.sizes["num_layers"], told.sizes["video.hidden"]) == (30, 3072)
    assert told.presets["fastwam"] == ()
    assert told.missing_tensors == ()


def test_what_is_no_checkpoint_is_named(folder, tiny_bundle):
    tensors = tensors_of(TINY)
    torch.save(vae_tensors(TINY, tensors), folder / "vae.pth")
    torch.save({"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{}]}, folder / "opt.pt")
    torch.save({"dit": {"blocks.0.modulation": torch.ones(1)}}, folder / "dit.pt")
    torch.save({"odd": torch.ones(1)}, folder / "odd.pt")
    torch.save({"step": 3}, folder / "empty.pt")
    lora = {"base.q.lora_A.weight": torch.ones(1), "base.q.lora_B.weight": torch.ones(1)}
    save_file(lora, folder / "lora.safetensors")
    entry = write_cache_entry(folder / "cache", "stack", torch.ones(2, 10), 5)
    index = folder / "sharded"
    index.mkdir()
    (index / "model.safetensors.index.json").write_text("{}")
    (folder / "nothing").mkdir()
    expected = {
        folder / "vae.pth": "Wan2.2 video encoder and decoder",
        folder / "opt.pt": "optimizer state",
        folder / "dit.pt": "video expert alone",
        folder / "odd.pt": "unknown",
        folder / "empty.pt": "unknown",
        folder / "lora.safetensors": "LoRA",
        entry: "text embedding",
        folder / "cache": "text cache",
        index: "weights in several files",
        folder / "nothing": "folder without weights",
        folder: "folder",
        tiny_bundle: "bundle",
        tiny_bundle / "weights.safetensors": "part of a bundle",
    }
    for path, kind in expected.items():
        told = description_of(str(path))
        assert told.kind.startswith(kind), path
        assert not told.is_checkpoint
        assert told.hint
        assert rows_of(told, "file")["kind"][0] == told.kind
        assert f"is no checkpoint: {kind}" in described_outcome(told).note


def test_what_cannot_be_read_is_refused(folder):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        description_of(str(folder / "nowhere"))
    (folder / "bad.pt").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="cannot be read as plain tensors"):
        description_of(str(folder / "bad.pt"))
    with pytest.raises(InputError, match="no name map 'x'"):
        description_of(str(folder / "step_010000.pt"), Companions(name_map="x"))


def test_random_weights_are_described_too():
    told = description_of("random:tiny:3")
    assert told.is_checkpoint
    assert told.presets["tiny"] == ()
    assert [part.name for part in told.parts] == [
        "video expert",
        "action expert",
        "gist bank",
        "state encoder",
        "video encoder",
    ]
    assert "they lack nothing" in described_outcome(told).note


def test_a_folder_of_ones_own_brings_its_contract(tmp_path):
    save_file(tensors_of(TINY), tmp_path / "model.safetensors")
    (tmp_path / "contract.json").write_bytes(contract_to_json(TINY))
    write_stats(tmp_path, TINY)
    told = description_of(str(tmp_path))
    assert told.misfit == ""
    assert [need.what for need in told.needs if not need.found] == ["instructions"]
    assert rows_of(told, "needs")["contract"][0].startswith("'tiny' ")
    (tmp_path / "dataset_stats.json").write_text("[")
    assert "unreadable" in rows_of(description_of(str(tmp_path)), "needs")["statistics"][0]
    (tmp_path / "dataset_stats.json").write_text("{}")
    assert "no group 'state'" in rows_of(description_of(str(tmp_path)), "needs")["statistics"][0]
