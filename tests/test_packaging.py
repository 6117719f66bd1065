"""What ships, and that the robot's installation needs neither torch nor onnx."""

import datetime
import importlib.metadata
import itertools
import json
import re
import sys
import zipfile
from pathlib import Path

import pytest

from memorywam_runtime.cli import GROUP, VERBS
from tests.distribution import FOLDERS, PACKAGES, ROOT, built, called, environment, install

FORBIDDEN_ON_THE_ROBOT = ("torch", "onnx", "onnxscript", "onnx_ir", "transformers", "mujoco")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this working tree."""
    (path,) = built(ROOT, tmp_path_factory.mktemp("wheel"), "--wheel").glob("*.whl")
    return path


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
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    for name in ("model.safetensors", "contract.json", "prompts.safetensors"):
        assert f"memorywam_robot/checkpoint/{name}" in names
    for name in ("deploy_policy.py", "deploy_policy.yml", "eval.sh"):
        assert f"memorywam_robot/adapters/robotwin_policy/{name}" in names


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


def project_text() -> str:
    return (ROOT / "pyproject.toml").read_text()


def version_of_project() -> str:
    (version,) = re.findall(r'^version = "(.+)"$', project_text(), re.MULTILINE)
    return str(version)


def test_changelog_project_and_program_name_one_version() -> None:
    """The newest number of the changelog is the project's, and what is installed says it too."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[(.+?)\](?: - (.+))?$", changelog, re.MULTILINE)
    assert headings
    if headings[0][0] == "Unreleased":
        del headings[0]
    assert headings[0][0] == version_of_project()
    dates = [datetime.date.fromisoformat(day) for _, day in headings]
    assert all(newer > older for newer, older in itertools.pairwise(dates))
    assert importlib.metadata.version("memorywam") == version_of_project()
    program = (sys.executable, "-m", "memorywam_runtime.cli", "--version")
    assert called(*program) == f"memorywam {version_of_project()}\n"


def test_a_verb_names_extras_that_exist() -> None:
    """What a refusal tells to install can be installed, and every verb can tell it."""
    known = set(importlib.metadata.metadata("memorywam").get_all("Provides-Extra") or ())
    named = {extra for _, extras in VERBS.values() for extra in extras.split(",")}
    assert {"cpu", "export"} <= named <= known
    ours = {entry.name for entry in importlib.metadata.entry_points(group=GROUP)}
    assert set(VERBS) == ours


@pytest.mark.timeout(900)
def test_the_robots_installation(wheel: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    """One environment for all that is asked of it: making it takes most of the time."""
    python = environment(Path(sys.executable), tmp_path / "robot")
    install(python, wheel, "cpu")
    called(python, "-m", "pip", "check")
    _nothing_of_the_workshop_is_there(python)
    _the_program_answers(python)
    _a_bundle_runs(python, tiny_bundle)


def _nothing_of_the_workshop_is_there(python: Path) -> None:
    code = (
        "import importlib.util, sys;"
        "print([name for name in sys.argv[1:] if importlib.util.find_spec(name)])"
    )
    assert called(python, "-c", code, *FORBIDDEN_ON_THE_ROBOT) == "[]\n"


def _the_program_answers(python: Path) -> None:
    program = python.with_name("memorywam")
    assert "usage: memorywam VERB" in called(program, "--help")
    told = json.loads(called(program, "doctor", "--json", "-"))
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
    assert called(python, "-c", code, bundle) == "2\n"
