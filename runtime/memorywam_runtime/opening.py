"""How a verb opens a bundle: on which backend, with how many threads and which engines."""

import argparse
from pathlib import Path

import msgspec

from memorywam_runtime.backends import ON_CPU, Backend, backend_from_name
from memorywam_runtime.bundle import open_bundle
from memorywam_runtime.engines import BUILT_BACKENDS
from memorywam_runtime.errors import InputError
from memorywam_runtime.memory import Visible
from memorywam_runtime.session import Session

__all__ = [
    "Opening",
    "backend_from_opening",
    "num_steps_from_args",
    "opened",
    "opening_from_args",
]

_MOST_THREADS = 1024
"""More than any machine that runs a policy has cores; each takes a stack."""
_MOST_STEPS = 10_000
"""Of denoising: a thousand times as many as any policy takes."""


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """What runs a bundle's graphs."""

    backend: str = "ort"
    num_threads: int = 0
    """Inside one operator, on the CPU; 0 lets the backend choose."""
    engines: str | None = None
    """Directory of the backend's engines; beside the bundle by default."""
    allow_unverified: bool = False
    """Run a bundle that failed its verification, and engines that no report vouches for."""


def opening_from_args(args: argparse.Namespace) -> Opening:
    """Return what the options --backend, --threads, --engine and --allow-unverified ask for.

    Raises:
        InputError: an option that the backend has no use for, or a number of threads that is none.
    """
    if not 0 <= (args.threads or 0) <= _MOST_THREADS:
        raise InputError(
            f"found --threads {args.threads}; expected 0, which lets the backend choose, to "
            f"{_MOST_THREADS}"
        )
    if args.backend not in BUILT_BACKENDS and args.engine:
        raise InputError(
            f"found --engine with --backend {args.backend}, which runs the bundle's graphs as they "
            f"are; expected one of {', '.join(BUILT_BACKENDS)}"
        )
    return Opening(
        backend=args.backend,
        num_threads=args.threads or 0,
        engines=args.engine,
        allow_unverified=args.allow_unverified,
    )


def num_steps_from_args(args: argparse.Namespace) -> int | None:
    """Return the denoising steps that --steps asks for; None leaves them to the contract.

    Raises:
        InputError: fewer than one, or more than any policy takes.
    """
    found: int | None = args.steps
    if found is not None and not 1 <= found <= _MOST_STEPS:
        raise InputError(f"found --steps {found}; expected 1 to {_MOST_STEPS} denoising steps")
    return found


def backend_from_opening(opening: Opening, profile: Path | None = None) -> Backend:
    """Return the backend.

    Args:
        opening: Which.
        profile: A directory where `ort` writes what its operators take.

    Raises:
        MissingPartError: it is unknown, or what it needs is not installed.
    """
    options: dict[str, object] = {}
    if opening.num_threads and opening.backend in ON_CPU:
        options["num_threads"] = opening.num_threads
    if opening.backend in BUILT_BACKENDS:
        options["allow_unverified"] = opening.allow_unverified
    if profile is not None:
        options["profile"] = profile
    return backend_from_name(opening.backend, **options)


def opened(
    root: str | Path,
    opening: Opening,
    visible: Visible | None = None,
    *,
    profile: Path | None = None,
) -> Session:
    """Return a session.

    Args:
        root: The bundle.
        opening: What runs its graphs.
        visible: Parts of memory to hide, for ablations.
        profile: A directory where `ort` writes what its operators take.

    Raises:
        BundleError: a bundle or engines that do not pass their checks.
        MissingPartError: the backend is unknown, or what it needs is not installed.
    """
    backend = backend_from_opening(opening, profile)
    return open_bundle(
        root,
        backend=backend,
        engines=opening.engines,
        visible=visible,
        allow_unverified=opening.allow_unverified,
    )
