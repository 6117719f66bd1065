"""Folders of packages that the shared environment cannot hold, made by name, once."""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["GYM_ALOHA", "LEROBOT", "packages", "program"]

GYM_ALOHA = (
    "gym-aloha==0.1.5", "dm-control==1.0.41", "mujoco==3.8.1", "dm-env==1.6", "dm-tree==0.1.10",
    "labmaze==1.0.6", "absl-py==2.5.1", "etils==1.15.0", "lxml==6.1.3", "wrapt==2.5.2",
    "imageio==2.38.1", "glfw", "gymnasium==1.4.0", "Farama-Notifications==0.0.6",
    "cloudpickle==3.1.2",
)  # fmt: skip
"""It wants a MuJoCo below 3.9, and dm-control one that is as old."""

LEROBOT = (
    "lerobot==0.4.4", "draccus==0.10.0", "mergedeep==1.3.4", "pyyaml-include==1.4.1",
    "toml==0.10.2", "typing-inspect==0.9.0", "einops==0.8.2", "termcolor==3.3.0",
    "jsonlines==4.0.0", "deepdiff==8.6.2", "orderly-set==5.5.0", "pyserial==3.5",
    "feetech-servo-sdk==1.0.0",
    "accelerate==1.15.0", "datasets==4.8.5", "pandas==3.1.1", "python-dateutil==4.0.0", "tzdata",
    "dill==0.4.1",
    "multiprocess==0.70.19", "xxhash==4.1.0", "opencv-python-headless==4.12.0.88",
    "torchvision==0.28.0", "httpx==0.28.1", "httpcore==1.0.9", "imageio==2.38.1",
    "gymnasium==1.4.0", "Farama-Notifications==0.0.6", "cloudpickle==3.1.2",
)  # fmt: skip
"""The newest for Python 3.11, on the torch that is here: its own needs would bring another one."""


def packages(names: tuple[str, ...], folder: Path) -> Path:
    """Return a folder with these packages and none that they ask for.

    Args:
        names: With their versions.
        folder: To make it in, unless MEMORYWAM_PACKAGES names one that is kept between runs.
    """
    root = Path(os.environ.get("MEMORYWAM_PACKAGES", folder)) / names[0].replace("==", "-")
    if not (root / ".whole").exists():
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--target",
                root,
                *names,
            ],
            check=True,
            timeout=500,
        )
        (root / ".whole").touch()
    return root


def program(text: str, root: Path, *words: str | Path) -> str:
    """Run a program that finds the packages of a folder before all others; return what it said."""
    paths = [str(root), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", text, *map(str, words)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
