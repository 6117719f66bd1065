"""The doctor: what it finds here, and what it would find elsewhere."""

import base64
import ctypes
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from memorywam_runtime import versions
from memorywam_runtime.doctor import doctor, doctor_machine, doctor_parts
from memorywam_runtime.doctor.doctor import Asked, Finding, findings
from memorywam_runtime.doctor.doctor_finding import GROUP
from memorywam_runtime.errors import MissingPartError

ABSENT = None


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend that distributions are installed in some version, or absent."""

    def pretend(**faked: str | None) -> None:
        def version_of(name: str) -> str | None:
            key = name.replace("-", "_")
            return faked[key] if key in faked else versions.version_of(name)

        monkeypatch.setattr(doctor_parts, "version_of", version_of)

    return pretend


def _by_part(found: list[Finding]) -> dict[str, Finding]:
    return {finding.part: finding for finding in found}


def test_as_a_program() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "memorywam_runtime.cli", "doctor", "--json", "-"],
        capture_output=True,
        text=True,
        check=True,
    )
    document = json.loads(told.stdout)
    statuses = {one["part"]: one["status"] for one in document["data"]["findings"]}
    assert document["ok"] is True
    assert statuses["python"] == "ok"
    assert statuses["onnxruntime"] == "ok"


def test_it_imports_no_device_library() -> None:
    code = (
        "import sys; from memorywam_runtime.doctor.doctor import findings; findings();"
        "print(sorted({'mujoco', 'onnxruntime', 'torch', 'pyrealsense2', 'cuda', 'tensorrt_rtx'}"
        " & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def _gpu_told(monkeypatch: pytest.MonkeyPatch, **told: object) -> dict[str, Finding]:
    answer = {"devices": [], "error": "", "driver": 0, "tensorrt": "", "tensorrt_rtx": "", **told}
    monkeypatch.setattr(doctor_parts, "_GPU_PROBE", f"print({json.dumps(answer)!r})")
    return _by_part(findings())


def test_a_gpu_and_both_flavours_of_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _gpu_told(
        monkeypatch,
        devices=[("NVIDIA L4", "sm_89", 24 << 30)],
        driver=13010,
        tensorrt="10.3.0",
        tensorrt_rtx="1.7.1.116",
    )
    assert found["GPU"].found == "NVIDIA L4, sm_89, 24 GiB, driver for CUDA 13.1"
    assert found["tensorrt"].found == "10.3.0"
    assert found["tensorrt-rtx"].found == "1.7.1.116"
    assert {found[part].status for part in ("GPU", "tensorrt", "tensorrt-rtx")} == {"ok"}


def test_without_a_gpu_nothing_that_was_asked_for_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = _gpu_told(monkeypatch, error="cudaErrorInsufficientDriver", tensorrt="does not load: x")
    assert found["GPU"].found == "none to use: cudaErrorInsufficientDriver, driver absent"
    assert found["tensorrt"].found == "does not load: x"
    assert found["tensorrt-rtx"].found == "not installed"
    assert {found[part].status for part in ("GPU", "tensorrt", "tensorrt-rtx")} == {"warn"}


def test_a_gpu_library_that_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_parts, "_GPU_PROBE", "import os; os.abort()")
    assert _by_part(findings())["GPU"].found.startswith("cannot be asked for: ")


def test_the_gpu_probe_tells_of_this_environment() -> None:
    """Whose extras bring TensorRT for RTX, where it exists."""
    found = _by_part(findings())
    assert found["tensorrt-rtx"].found == (
        versions.version_of("tensorrt-rtx-cu13") or "not installed"
    )
    assert found["GPU"].status in {"ok", "warn"}


def test_every_finding_that_is_not_ok_has_a_fix_of_one_line() -> None:
    for finding in findings(Asked(robot="sim:buttons", cameras=("head=realsense:123",))):
        if finding.status != "ok":
            assert finding.fix, finding
        assert "\n" not in finding.fix
        assert "\n" not in finding.found


def test_the_opset_24_model_is_what_it_says() -> None:
    model = onnx.load_from_string(base64.b64decode(doctor_parts.OPSET_24_MODEL))
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["TensorScatter"]
    assert model.opset_import[0].version == 24


def test_two_onnxruntimes_are_refused(installed: Callable[..., None]) -> None:
    installed(onnxruntime="1.31.1", onnxruntime_gpu="1.31.1")
    finding = _by_part(findings())["onnxruntime"]
    assert finding.status == "missing"
    assert "onnxruntime 1.31.1 and onnxruntime-gpu 1.31.1" in finding.found
    assert finding.fix.startswith("pip uninstall -y onnxruntime onnxruntime-gpu && pip install ")


def test_no_onnxruntime_names_the_extra(installed: Callable[..., None]) -> None:
    installed(onnxruntime=ABSENT)
    finding = _by_part(findings())["onnxruntime"]
    assert (finding.status, finding.fix) == ("missing", "pip install 'memorywam[cpu]'")


def test_an_onnxruntime_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_parts, "_ORT_PROBE", "raise ImportError('libthat.so: not found')")
    finding = _by_part(findings())["onnxruntime"]
    assert finding.status == "missing"
    assert finding.found.endswith("cannot be imported: ImportError: libthat.so: not found")


def test_an_onnxruntime_that_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_parts, "_ORT_PROBE", "import os; os.abort()")
    assert _by_part(findings())["onnxruntime"].status == "missing"


def test_an_onnxruntime_too_old_for_opset_24(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = doctor_parts.OPSET_24_MODEL[:-4] + base64.b64encode(b"\x00\x10\x63").decode()
    monkeypatch.setattr(doctor_parts, "OPSET_24_MODEL", newer)
    found = _by_part(findings())
    assert found["onnxruntime"].status == "ok"
    assert found["opset 24"].status == "warn"


@pytest.mark.parametrize(("robot", "status"), [("", "warn"), ("sim:buttons", "missing")])
def test_the_simulator_counts_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, robot: str, status: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(ctypes, "CDLL", _refuse_to_load)
    found = _by_part(findings(Asked(robot=robot)))
    assert (found["mujoco"].status, found["EGL"].status) == (status, status)
    assert found["EGL"].fix == "apt-get install libegl1 libgl1-mesa-dri libgles2"


@pytest.mark.parametrize(("cameras", "status"), [([], "warn"), (["h=realsense:1"], "missing")])
def test_the_camera_counts_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, cameras: list[str], status: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(ctypes, "CDLL", _refuse_to_load)
    found = _by_part(findings(Asked(cameras=tuple(cameras))))
    assert (found["pyrealsense2"].status, found["libusb"].status) == (status, status)


def _refuse_to_load(name: str) -> None:
    raise OSError(name)


def test_a_base_package_that_is_gone(installed: Callable[..., None]) -> None:
    installed(msgspec=ABSENT)
    assert _by_part(findings())["msgspec"].status == "missing"


def test_an_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_parts, "_PYTHON_FLOOR", (99, 0))
    finding = _by_part(findings())["python"]
    assert (finding.status, finding.fix) == ("missing", "use Python 99.0 or newer")


def test_a_full_disk_and_a_small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "_LOW_DISK_BYTES", 1 << 70)
    monkeypatch.setattr(doctor_machine, "_LOW_MEMORY_BYTES", 1 << 70)
    found = _by_part(findings())
    assert (found["disk"].status, found["memory"].status) == ("warn", "warn")


def test_a_bundle_that_is_not_there_is_never_a_traceback(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "memorywam_runtime.cli", "doctor", str(tmp_path / "none")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode in {1, 2}
    assert "Traceback" not in told.stderr


def _entry(monkeypatch: pytest.MonkeyPatch, value: str) -> list[Finding]:
    entry = importlib.metadata.EntryPoint("other", f"{__name__}:{value}", GROUP)
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda _: globals()[value])
    groups = {"memorywam.findings": [entry]}
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: groups[group])
    return list(doctor._findings_of_others(Asked(robot="x")))


def _tells(asked: Asked) -> list[Finding]:
    return [Finding(part="arms", status="ok", found=asked.robot)]


def _lacks(_: Asked) -> list[Finding]:
    raise MissingPartError("no such thing;\n plug it in")


def _does_not_load(_: Asked) -> list[Finding]:
    raise ImportError("no libthat", name="that")


def test_other_packages_add_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _entry(monkeypatch, "_tells") == [Finding(part="arms", status="ok", found="x")]


def test_a_package_that_refuses_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = _entry(monkeypatch, "_lacks")
    assert (found.status, found.found) == ("missing", "no such thing; plug it in")


def test_a_package_that_does_not_load_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = _entry(monkeypatch, "_does_not_load")
    assert (found.status, found.found) == ("warn", "cannot be asked for: no libthat")


def test_a_budget_needs_a_bundle() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "memorywam_runtime.cli", "doctor", "--budget"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 2
    assert "expected the one that is to be run" in told.stderr
