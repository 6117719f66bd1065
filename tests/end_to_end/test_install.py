"""The release: its files are what they should be, and bare environments that get them run bundles.

MEMORYWAM_DIST names a folder whose wheel and sdist are judged in place of those built here.
"""

import base64
import csv
import email.message
import email.parser
import hashlib
import json
import os
import re
import signal
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from tests import release_numbers
from tests.distribution import (
    FOLDERS,
    MINORS,
    PACKAGES,
    ROOT,
    Distribution,
    built,
    called,
    committed_s,
    demo_bundle_for,
    distribution_in,
    environment,
    install,
    interpreters,
    released,
    tracked,
)

pytestmark = [
    pytest.mark.proof,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the repository"),
]

WORKSHOP = ("torch", "onnx", "onnxscript", "onnx_ir", "safetensors", "transformers")


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    given = os.environ.get("MEMORYWAM_DIST")
    if given:
        return distribution_in(ROOT / given)
    return released(tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


def names_tracked() -> set[str]:
    names = called("git", "ls-files", "-z", cwd=ROOT).split("\0")
    return {name for name in names if name and (ROOT / name).is_file()}


def metadata_of(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.parser.Parser().parsestr(archive.read(name).decode())


def test_the_metadata(distribution):
    told = metadata_of(distribution.wheel)
    text = (ROOT / "pyproject.toml").read_text()
    assert told["Name"] == "memorywam"
    assert f'version = "{told["Version"]}"' in text
    assert told["License-Expression"] == "Apache-2.0"
    assert told["Requires-Python"] == ">=3.10"
    pythons = {f"Programming Language :: Python :: 3.{minor}" for minor in MINORS}
    assert pythons <= set(told.get_all("Classifier") or ())
    assert told["Description-Content-Type"] == "text/markdown"
    assert told.get_payload() == (ROOT / "README.md").read_text()
    bare = {line for line in told.get_all("Requires-Dist") or () if "extra ==" not in line}
    assert {re.split(r"\W", line)[0] for line in bare} == {"numpy", "msgspec", "pillow"}
    for name in (distribution.wheel.name, distribution.sdist.name):
        assert name.startswith(f"memorywam-{told['Version']}")


def test_the_changelog_of_a_release_is_closed():
    """What is not released yet is not listed above the number that is."""
    assert "[Unreleased]" not in (ROOT / "CHANGELOG.md").read_text()


def test_the_wheel_holds_the_packages_and_the_licence(distribution):
    version = metadata_of(distribution.wheel)["Version"]
    files = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    expected = {f"memorywam-{version}.dist-info/{file}" for file in files}
    for name in names_tracked():
        folder, _, path = name.partition("/")
        if folder in FOLDERS and path.split("/")[0] in PACKAGES:
            expected.add(path)
    with zipfile.ZipFile(distribution.wheel) as archive:
        assert set(archive.namelist()) == expected


def test_the_wheel_is_what_its_record_says(distribution):
    with zipfile.ZipFile(distribution.wheel) as archive:
        (record,) = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD")]
        rows = list(csv.reader(archive.read(record).decode().splitlines()))
        assert {name for name, _, _ in rows} == set(archive.namelist())
        for name, digest, size in rows:
            if name != record:
                held = archive.read(name)
                sha256 = base64.urlsafe_b64encode(hashlib.sha256(held).digest()).rstrip(b"=")
                assert (digest, size) == (f"sha256={sha256.decode()}", str(len(held)))


def test_the_sdist_holds_what_is_tracked(distribution):
    with tarfile.open(distribution.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names == names_tracked() | {"PKG-INFO"}


def test_the_sdist_makes_the_same_wheel(distribution, tmp_path):
    with tarfile.open(distribution.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    out = built(source, tmp_path / "out", "--wheel", SOURCE_DATE_EPOCH=committed_s())
    (wheel,) = out.iterdir()
    assert wheel.read_bytes() == distribution.wheel.read_bytes()


def test_the_same_bytes_again_from_another_place(distribution, tmp_path):
    """Elsewhere, later, and with files that only their owner may read."""
    source = tracked(tmp_path / "source")
    for path in source.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
        os.utime(path, (1e9, 1e9))
    again = distribution_in(
        built(source, tmp_path / "out", SOURCE_DATE_EPOCH=committed_s(), PYTHONHASHSEED="7")
    )
    assert again.wheel.read_bytes() == distribution.wheel.read_bytes()
    assert again.sdist.read_bytes() == distribution.sdist.read_bytes()
    words = (tmp_path / "wheel", "--wheel")
    (direct,) = built(source, *words, SOURCE_DATE_EPOCH=committed_s()).iterdir()
    assert direct.read_bytes() == distribution.wheel.read_bytes()


@pytest.fixture(scope="module", params=interpreters(), ids=lambda path: path.name)
def bare(request, distribution, tmp_path_factory):
    """An environment of one interpreter with the wheel and one backend."""
    python = environment(request.param, tmp_path_factory.mktemp("bare") / "environment")
    install(python, distribution.wheel, "cpu")
    return python


@pytest.fixture(scope="module")
def bundle(bare, bundles):
    return demo_bundle_for(bare, bundles)


@pytest.fixture(scope="module")
def program(bare):
    return bare.with_name("memorywam")


def test_a_bare_environment_has_no_workshop(bare, program, distribution):
    called(bare, "-m", "pip", "check")
    code = (
        "import importlib.util, sys;"
        "print([name for name in sys.argv[1:] if importlib.util.find_spec(name)])"
    )
    assert called(bare, "-c", code, *WORKSHOP, "mujoco", "websockets", "mcap") == "[]\n"
    version = metadata_of(distribution.wheel)["Version"]
    assert called(program, "--version") == f"memorywam {version}\n"
    assert "usage: memorywam VERB" in called(program, "--help")


def test_a_bare_environment_looks_at_a_bundle(program, bundle):
    for verb in ("doctor", "inspect"):
        told = json.loads(called(program, verb, bundle, "--json", "-"))
        assert told["ok"] is True
        assert not {"torch", "onnx"} & set(told["versions"])
    times = json.loads(called(program, "bench", bundle, "--frames", "1,5", "--json", "-"))
    assert times["ok"] is True


def test_a_folder_of_wheels_is_enough(bare, bundle, distribution, tmp_path):
    """For a robot without a network: what one machine has fetched, another installs."""
    wheels = tmp_path / "wheels"
    wanted = f"memorywam[cpu] @ {distribution.wheel.as_uri()}"
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check")
    constraints = ROOT / ".ci" / "constraints.txt"
    called(bare, *pip, "download", "-c", constraints, "--dest", wheels, wanted)
    offline = environment(bare, tmp_path / "offline")
    settings = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    called(offline, *pip, "install", "memorywam[cpu]", variables=settings)
    told = json.loads(called(offline.with_name("memorywam"), "inspect", bundle, "--json", "-"))
    assert told["ok"] is True


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("run", "BUNDLE", "--robot", "sim:recall"), "sim"),
        (("serve", "BUNDLE", "--port", "0"), "serve"),
        (("export", "random:tiny", "--out", "x"), "export"),
        (("prompt", "BUNDLE", "--list"), "cpu,export,text"),
        (("calibrate", "BUNDLE", "--recordings", ".", "--out", "x"), "cpu,export,record"),
    ],
)
def test_what_a_bare_environment_lacks_it_names(program, bundle, tmp_path, words, extra):
    command = [str(program), *(str(bundle) if word == "BUNDLE" else word for word in words)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"pip install 'memorywam[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_numbers_of_a_release(bare, bundle, distribution, monkeypatch):
    """The script that measures a release finds every number, and none is out of bounds."""
    monkeypatch.setattr(release_numbers, "NUM_STARTS", 1)
    row = release_numbers.row_of(bare, bundle)
    lines = release_numbers.table(distribution, [row]).splitlines()
    assert [line.count("|") for line in lines[2:]] == [len(release_numbers.HEADERS) + 1] * 3
    installed_mb, all_mb = map(float, row[2:4])
    assert 5 < installed_mb < 20 < all_mb < 300


@pytest.fixture(scope="module")
def furnished(bare, distribution):
    """The same environment, with the extras of a robot that is simulated, records and serves."""
    install(bare, distribution.wheel, "cpu,sim,record,serve")
    return bare


def test_the_robot_presses_the_button_and_the_recording_replays(
    furnished, program, bundle, tmp_path
):
    drawn = {"MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl")}
    for extra in ((), ("--async", "--simulated-time", "--threads", "1", "--latency", "60,30")):
        out = tmp_path / f"recordings-{len(extra)}"
        run = ("run", bundle, "--robot", "sim:recall", "--record", out, "--json", "-", *extra)
        told = json.loads(called(program, *run, variables=drawn))
        assert told["ok"] is True
        (recording,) = out.glob("*.mcap")
        called(program, "replay", recording, "--bundle", bundle, "--assert-equal")


def test_a_client_is_answered(furnished, program, bundle):
    client = """
import sys
import numpy as np
from websockets.sync.client import connect
from memorywam_robot.adapters.wire import data_from_wire, wire_from_data

with connect(f"ws://127.0.0.1:{sys.argv[1]}", compression=None, proxy=None) as link:
    metadata = data_from_wire(link.recv(decode=False))
    names = ("left_wrist", "right_wrist", "head")
    images = {name: np.zeros((64, 64, 3), np.uint8) for name in names}
    asked = {"images": images, "state": np.zeros(14), "prompt": metadata["instructions"][0]}
    link.send(wire_from_data(asked))
    print(data_from_wire(link.recv(decode=False))["actions"].shape)
"""
    process = subprocess.Popen(
        [str(program), "serve", str(bundle), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = ""
        while not (port := re.search(r"ws://127.0.0.1:(\d+)", said)):
            line = process.stderr.readline()
            assert line, said
            said += line
        assert called(furnished, "-c", client, port[1]) == "(4, 14)\n"
        process.send_signal(signal.SIGINT)
        told, said = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said
    assert "stopped as asked" in told
