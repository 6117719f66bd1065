"""The demo from a checkpoint folder to its page, on a tiny untrained model."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file as save_tensors

from memorywam_export.checkpoints.checkpoint import checkpoint_from_argument
from memorywam_robot.sim.tasks import INSTRUCTIONS
from memorywam_runtime.cli import main
from memorywam_runtime.contract import contract_to_json

pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")
pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")
TASKS = ("recall", "count")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder like the one that ships, of random weights."""
    source = checkpoint_from_argument("random:tiny:0")
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_tensors({weight.name: weight.load() for weight in source.weights},
                 folder / "model.safetensors")  # fmt: skip
    (folder / "contract.json").write_bytes(contract_to_json(source.contract))
    unit = {"default": {"global_mean": [0.0] * 14, "global_std": [1.0] * 14}}
    (folder / "dataset_stats.json").write_text(json.dumps({"action": unit, "state": unit}))
    rng = np.random.default_rng(0)
    shape = (3, source.contract.text_dim)
    prompts = {
        text: rng.standard_normal(shape).astype(np.float32) for text in INSTRUCTIONS.values()
    }
    save_arrays(prompts, folder / "prompts.safetensors")
    return folder


def test_the_whole_demo(checkpoint, tmp_path, capsys, monkeypatch):
    # Every verb, on two tasks of three and in a short memory: each call is a process of seconds.
    monkeypatch.setattr("memorywam_robot.demo.TASKS", TASKS)
    monkeypatch.setattr("memorywam_robot.demo._FILLS", "1,8")
    out = tmp_path / "demo"
    status = main(
        ["demo", "--checkpoint", str(checkpoint), "--out", str(out), "--episodes", "1",
         "--json", str(tmp_path / "demo.json")]
    )  # fmt: skip
    said = capsys.readouterr()
    assert status == 0, said
    report = json.loads((out / "report.json").read_bytes())
    assert set(report["tasks"]) == set(TASKS)
    for task in report["tasks"].values():
        assert task["episodes"] == 1
        assert task["success"] == task["success_torch"]
    assert report["parity"]["ok"] is True
    assert report["complaints"] == []
    assert {"vae_first", "vae_image", "cache_update", "chunk"} <= set(report["stages_ms"])
    for times in report["stages_ms"].values():
        assert 0 < times["p50"] <= times["p99"]
    frames = [frame for frame, _ in report["memory_bytes_by_frame"]]
    assert frames == sorted(frames)
    assert "onnxruntime" in report["versions"]
    page = (out / "index.html").read_text()
    assert "every check holds" in page
    assert "data:image/webp;base64," in page
    with Image.open(out / "episode.webp") as film:
        assert sum(1 for _ in ImageSequence.Iterator(film)) > 50
    assert "success, recall" in said.out
    assert "export: " in said.err
    document = json.loads((tmp_path / "demo.json").read_bytes())
    assert document["data"]["tasks"] == report["tasks"]


def test_what_a_verb_refuses_is_told_and_no_report_is_left(checkpoint, tmp_path, capsys):
    out = tmp_path / "demo"
    out.mkdir()
    (out / "report.json").write_text("{}")
    (checkpoint / "contract.json").unlink()
    assert main(["demo", "--checkpoint", str(checkpoint), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "has no contract.json" in said
    assert "from: memorywam export" in said
    assert not (out / "report.json").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [(("--episodes", "0"), "found 0 episodes"), (("--checkpoint", "none"), "no checkpoint in")],
)
def test_refusals(words, expected, tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "demo"), *words]) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
