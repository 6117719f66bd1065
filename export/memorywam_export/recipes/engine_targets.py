"""GPU architectures: which backend builds for which, and which element types each can compute."""

from collections.abc import Collection
from dataclasses import dataclass

from memorywam_runtime.errors import InputError

__all__ = ["ARCHITECTURES", "TARGETS", "check_rewrites", "check_target", "check_types"]

ARCHITECTURES = {
    "sm_75": "RTX 20, T4",
    "sm_80": "A100, A30",
    "sm_86": "RTX 30, A10, A40",
    "sm_87": "Jetson Orin",
    "sm_89": "RTX 40, L4, L40",
    "sm_90": "H100, H200",
    "sm_100": "B200",
    "sm_103": "B300",
    "sm_110": "Jetson Thor",
    "sm_120": "RTX 50, RTX PRO Blackwell",
    "sm_121": "GB10, DGX Spark",
}
"""Target to the GPUs of that architecture."""

TARGETS = {
    # Each was asked for with TensorRT-RTX 1.7.1: set_compute_capability refuses all others.
    "tensorrt-rtx": ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121"),
    "tensorrt": tuple(ARCHITECTURES),
}
"""Backend to the targets that it builds for."""


@dataclass(frozen=True, slots=True)
class _Floor:
    """The first architecture that computes an element type, and what to use below it."""

    number: int
    remedy: str


_ANY = _Floor(75, "")
_FLOORS = {
    "fp16": _ANY,
    "int8": _ANY,
    "int4": _ANY,
    "fp32": _ANY,
    "bf16": _Floor(80, "export with --precision fp16"),
    "fp8": _Floor(89, "quantize to int8"),
    "fp4": _Floor(100, "quantize to fp8, which needs sm_89 or newer, or to int8"),
}
_RTX_FLOORS = {
    **_FLOORS,
    # "FP32 GEMM is not supported" for Turing; TensorRT proper has it.
    "fp32": _Floor(80, "export with --precision fp16"),
}


def check_target(backend: str, target: str) -> None:
    """Refuse an architecture that the backend does not build for.

    Args:
        backend: `tensorrt` or `tensorrt-rtx`.
        target: As `sm_89`.

    Raises:
        InputError: no such architecture, or not with this backend; says what to use instead.
    """
    known = ", ".join(f"{name} ({gpus})" for name, gpus in ARCHITECTURES.items())
    if target not in ARCHITECTURES:
        raise InputError(f"unknown target '{target}'; expected one of {known}")
    if target not in TARGETS[backend]:
        raise InputError(
            f"found target {target} ({ARCHITECTURES[target]}) with {backend}, which builds for "
            f"{', '.join(TARGETS[backend])} alone; expected one of those, or `memorywam build "
            f"BUNDLE --backend tensorrt --target {target}` on the device itself: TensorRT proper "
            f"{_source_of_tensorrt(target)}"
        )


def check_types(backend: str, target: str, types: Collection[str]) -> None:
    """Refuse element types that the architecture has no matrix products for.

    Args:
        backend: `tensorrt` or `tensorrt-rtx`.
        target: A target of the backend.
        types: `fp32`, `fp16`, `bf16`, `fp8`, `fp4`, `int8`, `int4`.

    Raises:
        InputError: the first that does not fit, and what to use instead.
    """
    floors = _RTX_FLOORS if backend == "tensorrt-rtx" else _FLOORS
    number = _number(target)
    for name in sorted(types):
        if name not in floors:
            raise InputError(f"unknown element type '{name}'; expected one of {', '.join(floors)}")
        floor = floors[name]
        if number < floor.number:
            able = [t for t in TARGETS[backend] if _number(t) >= floor.number]
            raise InputError(
                f"found {name} for {target} ({ARCHITECTURES[target]}); {backend} computes matrix "
                f"products in {name} on {', '.join(able)}: {floor.remedy}, or choose such a target"
            )


def check_rewrites(backend: str, target: str, rewrites: Collection[str]) -> None:
    """Refuse graphs whose own products are in float32 where the architecture has none.

    Raises:
        InputError: says how to export graphs without.
    """
    floor = (_RTX_FLOORS if backend == "tensorrt-rtx" else _FLOORS)["fp32"].number
    if "collapse-padding" in rewrites and _number(target) < floor:
        raise InputError(
            f"found a bundle with the rewrite collapse-padding for {target} "
            f"({ARCHITECTURES[target]}), where {backend} has no float32 products, which the scores "
            "of the prompt then are; expected one without: export with --precision fp16 "
            "--no-rewrite collapse-padding"
        )


def _number(target: str) -> int:
    """Return 89 for `sm_89`."""
    return int(target.removeprefix("sm_"))


def _source_of_tensorrt(target: str) -> str:
    """Return where TensorRT proper comes from for a device."""
    if target in ("sm_87", "sm_110"):
        return "comes with JetPack"
    return "is installed with `pip install tensorrt`, from the vendor's own index"
