"""What is installed: Python, packages, backends, GPU, simulator, camera library."""

import ctypes
import importlib.util
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from memorywam_runtime.doctor.doctor_finding import Finding, Status
from memorywam_runtime.versions import version_of

__all__ = ["OPSET_24_MODEL", "installed_parts"]

_GIB = 1 << 30
_PYTHON_FLOOR = (3, 10)
_BASE_PACKAGES = ("numpy", "msgspec", "pillow")
_PROBE_TIMEOUT_S = 60.0

# All of them install the same import package `onnxruntime` and overwrite each other's files.
_ORT_DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-directml",
    "onnxruntime-gpu",
    "onnxruntime-migraphx",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-training",
    "ort-nightly",
    "ort-nightly-gpu",
)

# One TensorScatter node of opset 24, the operator that writes memory in place; 195 bytes, so that
# the question can be asked where the package onnx is not installed.
OPSET_24_MODEL = (
    "CAo6uAEKQQoCa3YKA25ldwoCYXQSA291dCINVGVuc29yU2NhdHRlcioLCgRheGlzGAKgAQIqEQoEbW9kZSIGbGluZWFy"
    "oAEDEgVwcm9iZVocCgJrdhIWChQIARIQCgIIAQoCCAEKAggECgIIAVodCgNuZXcSFgoUCAESEAoCCAEKAggBCgIIAQoC"
    "CAFaEAoCYXQSCgoICAcSBAoCCAFiHQoDb3V0EhYKFAgBEhAKAggBCgIIAQoCCAQKAggBQgQKABAY"
)

# In a process of its own: a broken installation may crash, and only backends/ort.py may import it.
_ORT_PROBE = """
import base64, json, sys
import onnxruntime
told = {"providers": onnxruntime.get_available_providers(), "opset_24": ""}
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
model = base64.b64decode(sys.argv[1])
try:
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
except Exception as error:
    told["opset_24"] = str(error).splitlines()[0]
print(json.dumps(told))
"""

_GPU_PROBE = """
import importlib, json
told = {"devices": [], "error": "", "driver": 0}
try:
    from cuda.bindings import runtime
    error, count = runtime.cudaGetDeviceCount()
    told["error"] = error.name if int(error) else ""
    told["driver"] = int(runtime.cudaDriverGetVersion()[1] or 0)
    for index in range(count or 0):
        one = runtime.cudaGetDeviceProperties(index)[1]
        target = f"sm_{one.major}{one.minor}"
        told["devices"].append((one.name.decode(), target, one.totalGlobalMem))
except ImportError as error:
    told["error"] = f"cuda-bindings: {error}"
for package in ("tensorrt", "tensorrt_rtx"):
    try:
        told[package] = importlib.import_module(package).__version__
    except ModuleNotFoundError:
        told[package] = ""
    except Exception as error:
        told[package] = f"does not load: {error}".splitlines()[0]
print(json.dumps(told))
"""
_TENSORRT_FIXES = {
    "tensorrt": "use JetPack's Python, or install it from NVIDIA's package index",
    "tensorrt-rtx": "pip install 'memorywam[tensorrt-rtx]'",
}


def installed_parts(*, needs_sim: bool, needs_realsense: bool) -> Iterator[Finding]:
    """Look at everything that pip and apt install, in the order of what stands on what."""
    yield _python()
    yield from _base_packages()
    yield from _onnxruntime()
    yield from _gpu()
    yield from _simulator(counts=needs_sim)
    yield from _realsense(counts=needs_realsense)
    yield _torch()


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.machine()}"
    if sys.version_info >= _PYTHON_FLOOR:
        return Finding(part="python", status="ok", found=found)
    floor = ".".join(map(str, _PYTHON_FLOOR))
    return Finding(part="python", status="missing", found=found, fix=f"use Python {floor} or newer")


def _base_packages() -> Iterator[Finding]:
    for package in _BASE_PACKAGES:
        version = version_of(package)
        if version is None:
            fix = "pip install --force-reinstall memorywam"
            yield Finding(part=package, status="missing", found="not installed", fix=fix)
        else:
            yield Finding(part=package, status="ok", found=version)


def _onnxruntime() -> Iterator[Finding]:
    installed = [name for name in _ORT_DISTRIBUTIONS if version_of(name) is not None]
    if not installed:
        fix = "pip install 'memorywam[cpu]'"
        yield Finding(part="onnxruntime", status="missing", found="not installed", fix=fix)
        return
    named = " and ".join(f"{name} {version_of(name)}" for name in installed)
    if len(installed) > 1:
        # Uninstalling either removes files of both, hence all of them and one again.
        fix = f"pip uninstall -y {' '.join(installed)} && pip install {installed[0]}"
        found = f"{named}: they overwrite each other's files"
        yield Finding(part="onnxruntime", status="missing", found=found, fix=fix)
        return
    yield from _onnxruntime_probed(named)


def _onnxruntime_probed(named: str) -> Iterator[Finding]:
    told = _told(_ORT_PROBE, OPSET_24_MODEL)
    if isinstance(told, str):
        fix = f"pip install --force-reinstall {named.split()[0]}"
        found = f"{named} cannot be imported: {told}"
        yield Finding(part="onnxruntime", status="missing", found=found, fix=fix)
        return
    providers = ", ".join(name.removesuffix("ExecutionProvider") for name in told["providers"])
    yield Finding(part="onnxruntime", status="ok", found=f"{named}, providers {providers}")
    if told["opset_24"]:
        # onnxruntime says it at the end of a paragraph about its own sources.
        reason = told["opset_24"].rstrip(".").rsplit(". ", 1)[-1]
        yield Finding(
            part="opset 24",
            status="warn",
            found=f"refused: {reason}",
            fix="use Python 3.11 and onnxruntime 1.24 or newer, or export with --opset 20",
        )
    else:
        yield Finding(part="opset 24", status="ok", found="memory is written in place")


def _gpu() -> Iterator[Finding]:
    told = _told(_GPU_PROBE)
    if isinstance(told, str):
        fix = "pip install --force-reinstall cuda-bindings, and look at `nvidia-smi`"
        yield Finding(part="GPU", status="warn", found=f"cannot be asked for: {told}", fix=fix)
        return
    for name, target, num_bytes in told["devices"]:
        found = f"{name}, {target}, {num_bytes / _GIB:.0f} GiB, driver {_cuda(told['driver'])}"
        yield Finding(part="GPU", status="ok", found=found)
    if not told["devices"]:
        found = f"none to use: {told['error'] or 'CUDA counts 0'}, driver {_cuda(told['driver'])}"
        fix = "for a GPU: pip install 'memorywam[gpu]', and a driver until `nvidia-smi` lists it"
        yield Finding(part="GPU", status="warn", found=found, fix=fix)
    for flavour, fix in _TENSORRT_FIXES.items():
        version = told[flavour.replace("-", "_")]
        if version[:1].isdigit():
            yield Finding(part=flavour, status="ok", found=version)
        else:
            found = version or "not installed"
            yield Finding(part=flavour, status="warn", found=found, fix=fix)


def _cuda(version: int) -> str:
    return f"for CUDA {version // 1000}.{version % 1000 // 10}" if version else "absent"


def _told(code: str, *args: str) -> dict[str, Any] | str:
    """Return what a program prints as JSON in a process of its own, or why it does not."""
    try:
        answer = subprocess.run(
            [sys.executable, "-c", code, *args],
            capture_output=True,
            text=True,
            check=True,
            timeout=_PROBE_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        ).stdout
        told: dict[str, Any] = json.loads(answer.splitlines()[-1])
    except (subprocess.SubprocessError, OSError, IndexError, ValueError) as error:
        stderr = getattr(error, "stderr", None)
        return str((stderr or str(error)).strip().splitlines()[-1])
    return told


def _simulator(*, counts: bool) -> Iterator[Finding]:
    absent: Status = "missing" if counts else "warn"
    if importlib.util.find_spec("mujoco") is None:
        fix = "pip install 'memorywam[sim]'"
        yield Finding(part="mujoco", status=absent, found="not installed", fix=fix)
    else:
        yield Finding(part="mujoco", status="ok", found=version_of("mujoco") or "unknown version")
    yield _library("EGL", "libEGL.so.1", absent, "libegl1 libgl1-mesa-dri libgles2")


def _realsense(*, counts: bool) -> Iterator[Finding]:
    absent: Status = "missing" if counts else "warn"
    if importlib.util.find_spec("pyrealsense2") is None:
        fix = "pip install 'memorywam[realsense]'"
        yield Finding(part="pyrealsense2", status=absent, found="not installed", fix=fix)
    else:
        version = version_of("pyrealsense2") or "unknown version"
        yield Finding(part="pyrealsense2", status="ok", found=version)
    yield _library("libusb", "libusb-1.0.so.0", absent, "libusb-1.0-0")


def _library(part: str, name: str, absent: Status, debian_packages: str) -> Finding:
    try:
        ctypes.CDLL(name)
    except OSError:
        fix = f"apt-get install {debian_packages}"
        return Finding(part=part, status=absent, found=f"{name} does not load", fix=fix)
    return Finding(part=part, status="ok", found=name)


def _torch() -> Finding:
    version = version_of("torch")
    return Finding(part="torch", status="ok", found=version or "absent; only export needs it")
