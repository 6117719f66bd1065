"""A wall clock that is set while a program runs; the monotonic clock goes on as it does."""

import os
import shutil
import struct
import subprocess
import time
from datetime import datetime, timezone
from pathlib import Path

__all__ = ["WAYS", "WallClock"]

_LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *file;

static int64_t offset(void) {
    if (!file) {
        const char *name = getenv("WALL_CLOCK_FILE");
        int descriptor = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
        if (descriptor < 0) return 0;
        void *found = mmap(0, 8, PROT_READ, MAP_SHARED, descriptor, 0);
        close(descriptor);
        if (found == MAP_FAILED) abort();
        file = found;
    }
    return *file;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int status = syscall(SYS_clock_gettime, clock, at);
    if (!status && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        at->tv_sec += offset();
    return status;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *at, int base) {
    return clock_gettime(CLOCK_REALTIME, at) ? 0 : base;
}

/* The kernel waits by the true clock. Python 3.10 has its locks wait with this. */
int sem_timedwait(sem_t *restrict one, const struct timespec *restrict until) {
    static int (*real)(sem_t *, const struct timespec *);
    struct timespec at = *until;
    if (!real) real = dlsym(RTLD_NEXT, "sem_timedwait");
    at.tv_sec -= offset();
    return real(one, &at);
}
"""
"""Native code and Python alike, wherever there is a compiler."""

_MODULE = """
import datetime, mmap, os, struct, time

_file = open(os.environ["WALL_CLOCK_FILE"], "rb")
_map = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)
_true_ns, _true_clock_ns = time.time_ns, time.clock_gettime_ns
_local, _utc, _format, _text = time.localtime, time.gmtime, time.strftime, time.ctime


def _now_ns():
    return _true_ns() + struct.unpack("=q", _map)[0] * 1_000_000_000


def _clock_ns(clock):
    return _now_ns() if clock == time.CLOCK_REALTIME else _true_clock_ns(clock)


time.time_ns = _now_ns
time.time = lambda: _now_ns() / 1e9
time.clock_gettime_ns = _clock_ns
time.clock_gettime = lambda clock: _clock_ns(clock) / 1e9
time.localtime = lambda at=None: _local(time.time() if at is None else at)
time.gmtime = lambda at=None: _utc(time.time() if at is None else at)
time.ctime = lambda at=None: _text(time.time() if at is None else at)
time.strftime = lambda form, at=None: _format(form, time.localtime() if at is None else at)


class _Datetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls):
        return cls.now(datetime.timezone.utc).replace(tzinfo=None)


class _Date(datetime.date):
    @classmethod
    def today(cls):
        return cls.fromtimestamp(time.time())


datetime.datetime, datetime.date = _Datetime, _Date
"""
"""Python alone, anywhere."""

WAYS = ("native", "python") if shutil.which("cc") else ("python",)
"""The ways that this machine has, the one that reaches furthest first."""


class WallClock:
    """The wall clock of all programs that are started with `variables`."""

    def __init__(self, folder: Path, way: str = WAYS[0]) -> None:
        """Begin at the true time.

        Args:
            folder: Empty, for what this needs.
            way: One of `WAYS`.
        """
        self._file = folder / "offset"
        self.step(0)
        self.variables = {"WALL_CLOCK_FILE": str(self._file)}
        if way == "native":
            source, library = folder / "wall_clock.c", folder / "wall_clock.so"
            source.write_text(_LIBRARY)
            subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
            self.variables["LD_PRELOAD"] = str(library)
        else:
            (folder / "sitecustomize.py").write_text(_MODULE)
            paths = (str(folder), os.environ.get("PYTHONPATH", ""))
            self.variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))

    def step(self, offset_s: int) -> None:
        """Set the clock to the true time and so many seconds more."""
        # In place, because the programs have it mapped.
        with self._file.open("r+b" if self._file.exists() else "wb") as stream:
            stream.write(struct.pack("=q", offset_s))

    def show(self, year: int) -> None:
        """Set the clock to noon of a first of June."""
        wanted = datetime(year, 6, 1, 12, tzinfo=timezone.utc).timestamp()
        self.step(round(wanted - time.time()))
