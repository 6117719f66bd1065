"""SupervisorProcess: starts the process of the arms, hears what it answers, and sees it end."""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from dataclasses import replace

from memorywam_robot.arms.arm_link import ArmLink
from memorywam_robot.arms.supervisor_config import SupervisorConfig
from memorywam_runtime import errors
from memorywam_runtime.errors import DeviceError, MemorywamError

__all__ = ["SupervisorProcess"]


class SupervisorProcess:
    """One running supervisor: in a session of its own, so that a terminal's Ctrl-C misses it."""

    def __init__(self, config: SupervisorConfig, link: ArmLink, *, ready_s: float) -> None:
        """Start it and wait until it has the arms.

        Raises:
            MemorywamError: what it could not do, as it says itself.
            DeviceError: it ended without a word, or is not ready in time.
        """
        whole = replace(config, descriptor=link.descriptor, parent_pid=os.getpid())
        self._process = subprocess.Popen(
            [sys.executable, "-m", "memorywam_robot.arms.supervisor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            pass_fds=(link.descriptor,),
        )
        try:
            self._hear(whole, ready_s)
        except BaseException:
            self.end(0.0)
            raise

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; None if it has not."""
        return self._process.poll()

    def end(self, within_s: float) -> bool:
        """Wait for its end, then ask for it, then force it; return whether it was not forced."""
        process = self._process
        if process.stdin is not None and not process.stdin.closed:
            # What one that died has not read is written once more; it is closed all the same.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.terminate()
        try:
            process.wait(max(within_s, 1.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        return process.returncode >= 0

    def _hear(self, config: SupervisorConfig, ready_s: float) -> None:
        """Send the configuration; raise what comes back, if it is an error."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(BrokenPipeError):  # why, is read below
            stdin.write((config.to_json() + "\n").encode())
            stdin.flush()
        deadline_s = time.monotonic() + ready_s
        answer = b""
        while not answer.endswith(b"\n"):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([stdout], [], [], left_s)[0]:
                raise DeviceError(
                    f"the supervisor of the arms '{config.driver}' was not ready within "
                    f"{ready_s:g} s; expected the driver to open by then: see what it waits for"
                )
            read = os.read(stdout.fileno(), 4096)
            if not read:
                raise DeviceError(
                    f"the supervisor of the arms '{config.driver}' ended with code "
                    f"{self._process.wait()} before it was ready; see its error output"
                )
            answer += read
        said = json.loads(answer)
        if "error" in said:
            kind = getattr(errors, said["error"], DeviceError)
            is_ours = isinstance(kind, type) and issubclass(kind, MemorywamError)
            raise (kind if is_ours else DeviceError)(said["text"])
