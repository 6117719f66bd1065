"""The distribution as it is released: built from what is tracked, installed in a bare place."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "FOLDERS",
    "MINORS",
    "PACKAGES",
    "ROOT",
    "Distribution",
    "built",
    "called",
    "committed_s",
    "demo_bundle_for",
    "distribution_in",
    "environment",
    "install",
    "interpreters",
    "released",
    "tracked",
    "version_in",
]

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("export", "runtime", "calibration", "robot")
PACKAGES = {f"memorywam_{folder}" for folder in FOLDERS}
MINORS = (10, 11, 12, 13)
"""Of Python 3: those that the metadata names."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """The two files of a release."""

    wheel: Path
    sdist: Path


def called(
    *words: object, cwd: Path | None = None, variables: Mapping[str, str] | None = None
) -> str:
    """Run a program, which must end well; return what it printed.

    It runs outside the repository and without its path: only what is installed may be found.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd or Path(sys.prefix),
        env=environment | dict(variables or {}),
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, f"{words}:\n{done.stdout}{done.stderr}"
    return done.stdout


def tracked(folder: Path) -> Path:
    """Copy what git tracks, as it is now, into a new folder; return it."""
    for name in called("git", "ls-files", "-z", cwd=ROOT).split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def built(source: Path, out: Path, *kinds: str, **variables: str) -> Path:
    """Build into `out`: the sdist and from it the wheel, or what `kinds` asks for; return `out`."""
    words = (sys.executable, "-m", "build", "--no-isolation", "--outdir", out, *kinds, source)
    called(*words, variables=variables)
    return out


def released(out: Path, work: Path) -> Distribution:
    """Build what is tracked into `out`; its files carry the time of the last commit."""
    built(tracked(work), out, SOURCE_DATE_EPOCH=committed_s())
    return distribution_in(out)


def committed_s() -> str:
    """Return the time of the last commit, in seconds as builds take it."""
    return called("git", "log", "-1", "--format=%ct", cwd=ROOT).strip()


def distribution_in(folder: Path) -> Distribution:
    """Return the one wheel and the one sdist of a folder."""
    (wheel,) = folder.glob("memorywam-*.whl")
    (sdist,) = folder.glob("memorywam-*.tar.gz")
    return Distribution(wheel=wheel.resolve(), sdist=sdist.resolve())


def interpreters() -> list[Path]:
    """List the Pythons that are supported and found by their names, and this one, once each."""
    found = {sys.version_info.minor: Path(sys.executable)}
    for minor in MINORS:
        program = shutil.which(f"python3.{minor}")
        if program is not None and minor not in found and _answers(program):
            found[minor] = Path(program)
    return [found[minor] for minor in sorted(found)]


def _answers(program: str) -> bool:
    # A version manager leaves programs of that name that only say what to install.
    done = subprocess.run([program, "-c", "import ensurepip"], capture_output=True, check=False)
    return done.returncode == 0


def environment(python: Path, folder: Path) -> Path:
    """Make an environment that holds pip alone; return its interpreter."""
    called(python, "-m", "venv", folder)
    return folder / "bin" / "python"


def install(python: Path, wheel: Path, extras: str) -> None:
    """Install the wheel with extras, in the versions that are pinned."""
    words = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    constraints = ROOT / ".ci" / "constraints.txt"
    called(*words, "-c", constraints, f"memorywam[{extras}] @ {wheel.resolve().as_uri()}")


def version_in(python: Path, package: str) -> str:
    """Return the version of a package that an environment holds."""
    code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    return called(python, "-c", code, package).strip()


def demo_bundle_for(python: Path, folder: Path) -> Path:
    """Export the demo's checkpoint in the newest form that an environment runs, once each."""
    # Imported here: it loads torch, and most that is done with a distribution needs none.
    from memorywam_export.bundles.bundle import ExportOptions, export_bundle
    from memorywam_export.checkpoints.checkpoint import checkpoint_from_argument
    from memorywam_export.graphs.opsets import default_opset

    opset = default_opset(version_in(python, "onnxruntime"))
    path = folder / f"opset{opset}"
    if not path.exists():
        checkpoint = ROOT / "robot" / "memorywam_robot" / "checkpoint"
        export_bundle(checkpoint_from_argument(str(checkpoint)), path, ExportOptions(opset=opset))
    return path
