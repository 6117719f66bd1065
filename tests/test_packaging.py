"""What ships, and that the robot's installation needs neither torch nor onnx."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("export", "runtime", "calibration", "robot")
PACKAGES = {f"memorywam_{folder}" for folder in FOLDERS}
FORBIDDEN_ON_THE_ROBOT = ("torch", "onnx", "onnxscript", "onnx_ir", "transformers", "mujoco")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this working tree."""
    folder = tmp_path_factory.mktemp("wheel")
    _called(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, str(ROOT)
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    information = {name.split("/")[0] for name in names if ".dist-info/" in name}
    assert len(information) == 1
    assert {name.split("/")[0] for name in names} == PACKAGES | information
    assert not [name for name in names if "test" in Path(name).parts or name.endswith(".pyc")]
    (metadata,) = information
    assert f"{metadata}/licenses/LICENSE" in names
    assert "memorywam_runtime/manifest.schema.json" in names
    for name in ("model.safetensors", "contract.json", "prompts.safetensors"):
        assert f"memorywam_robot/checkpoint/{name}" in names


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {
        path.relative_to(ROOT / folder).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder / f"memorywam_{folder}").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources == {name for name in names if name.split("/")[0] in PACKAGES}


@pytest.mark.timeout(900)
def test_the_robots_installation(wheel: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    """One environment for all that is asked of it: making it takes most of the time."""
    python = _robot_python(wheel, tmp_path / "robot")
    _pip_finds_no_conflict(python)
    _nothing_of_the_workshop_is_there(python)
    _the_program_answers(python)
    _a_bundle_runs(python, tiny_bundle)


def _robot_python(wheel: Path, folder: Path) -> Path:
    """Install the wheel as a robot does: with one backend, without torch."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    constraints = ROOT / ".ci" / "constraints.txt"
    install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    _called(*install, "-c", constraints, f"memorywam[cpu] @ {wheel.as_uri()}")
    return python


def _pip_finds_no_conflict(python: Path) -> None:
    _called(python, "-m", "pip", "check")


def _nothing_of_the_workshop_is_there(python: Path) -> None:
    code = (
        "import importlib.util, sys;"
        "print([name for name in sys.argv[1:] if importlib.util.find_spec(name)])"
    )
    assert _called(python, "-c", code, *FORBIDDEN_ON_THE_ROBOT) == "[]\n"


def _the_program_answers(python: Path) -> None:
    program = python.with_name("memorywam")
    assert "usage: memorywam VERB" in _called(program, "--help")
    told = json.loads(_called(program, "doctor", "--json", "-"))
    assert told["ok"] is True
    assert "torch" not in told["versions"]


def _a_bundle_runs(python: Path, bundle: Path) -> None:
    """Open a bundle, remember two frames and make a chunk of actions, in that environment."""
    code = """
import sys
import numpy as np
from memorywam_runtime import Observation, Policy, open_bundle

policy = Policy(open_bundle(sys.argv[1], num_threads=1))
policy.reset("random")
images = {name: np.full((48, 64, 3), 7, np.uint8) for name in policy.contract.observations.cameras}
for _ in range(2):
    steps = policy.expected_steps()
    policy.remember([Observation(images=images, state=np.zeros(14), step=s) for s in steps])
    chunk = policy.act(np.zeros(14))
assert chunk.shape == (16, 14) and np.isfinite(chunk).all() and np.ptp(chunk) > 0
assert not {"torch", "onnx"} & set(sys.modules)
print(policy.num_frames)
"""
    assert _called(python, "-c", code, bundle) == "2\n"


def _called(*words: object) -> str:
    # Outside the repository and without its path: only what is installed may be found.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, words)],
        capture_output=True,
        text=True,
        cwd=Path(sys.prefix),
        env=environment,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, f"{words}:\n{done.stdout}{done.stderr}"
    return done.stdout
