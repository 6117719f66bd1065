"""The script for a machine with a GPU, as far as it goes without one."""

import pytest
from tests.gpu.measure import REAL, Result, Step, main, measured, steps

from memorywam_runtime.cli import VERBS


def test_every_step_is_a_command_of_the_program(tmp_path):
    found = steps(tmp_path, "sm_90", is_quick=False)
    assert {step.words[0] for step in found} <= set(VERBS)
    assert len({step.name for step in found}) == len(found)
    quick = steps(tmp_path, "sm_90", is_quick=True)
    assert [step.name for step in found[: len(quick)]] == [step.name for step in quick]
    assert not any(REAL in step.name for step in quick)


def test_a_step_leaves_its_figures(tmp_path):
    result = measured(Step("presets", ("export", "--list-presets")), tmp_path)
    assert result.status == 0
    assert result.data["verb"] == "export"


def test_a_step_that_fails_is_told_and_not_the_end(tmp_path):
    result = measured(Step("none", ("inspect", str(tmp_path / "none"))), tmp_path)
    assert result.status == 2
    assert "no bundle at" in result.said
    assert result.data is None


def test_without_a_gpu_nothing_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tests.gpu.measure._device", lambda: None)
    assert main(["--out", str(tmp_path / "out")]) == 2
    assert "expected one: run this on a machine with a GPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("only", ["verify tiny fp16", "bench"])
def test_steps_are_chosen_by_how_their_names_begin(tmp_path, monkeypatch, only):
    ran = []

    def noted(step, out):
        ran.append(step.name)
        return Result(step.name, "", 0, 0.0, "", None)

    monkeypatch.setattr("tests.gpu.measure._device", lambda: {"target": "sm_90"})
    monkeypatch.setattr("tests.gpu.measure.measured", noted)
    assert main(["--out", str(tmp_path), "--only", only]) == 0
    assert ran
    assert all(name.startswith(only) for name in ran)
    assert (tmp_path / "results.json").is_file()
