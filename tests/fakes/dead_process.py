"""A process that is over before anybody can write to it."""

import subprocess
from typing import Any

__all__ = ["DeadProcess"]


class DeadProcess(subprocess.Popen[bytes]):
    """In place of `subprocess.Popen`: whatever is to be run, `false` has been by now."""

    def __init__(self, words: Any, **options: Any) -> None:
        super().__init__(["false"], **options)
        self.wait()
