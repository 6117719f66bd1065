"""The machine as its kernel tells of it, under another root."""

import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from memorywam_runtime.doctor.doctor_finding import Finding
from memorywam_runtime.doctor.doctor_machine import machine_findings

LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max locked memory         {memlock:<20} 8388608              bytes
Max realtime priority     {rtprio:<20} 0
Max realtime timeout      unlimited            unlimited            us
"""
MEMINFO = """MemTotal:       65813920 kB
MemFree:        40000000 kB
MemAvailable:   52428800 kB
SwapTotal:       8388608 kB
SwapFree:        {swap_free} kB
"""


def write(root: Path, **files: str) -> None:
    """Write files under a root; `/` in their names is `__`."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def workstation(tmp_path: Path) -> Path:
    cpu = tmp_path / "sys/devices/system/cpu/cpufreq"
    for number in range(2):
        write(
            cpu / f"policy{number}",
            scaling_governor="powersave\n",
            scaling_min_freq="800000\n",
            scaling_max_freq="5700000\n",
        )
    zone = tmp_path / "sys/class/thermal"
    write(zone / "thermal_zone0", type="acpitz\n", temp="27800\n", trip_point_0_type="critical\n",
          trip_point_0_temp="119000\n")  # fmt: skip
    write(zone / "thermal_zone1", type="x86_pkg_temp\n", temp="52000\n",
          trip_point_0_type="passive\n", trip_point_0_temp="0\n", trip_point_1_type="critical\n",
          trip_point_1_temp="100000\n")  # fmt: skip
    write(zone / "thermal_zone3", type="pch_cannonlake\n", temp="45000\n",
          trip_point_0_type="critical\n", trip_point_0_temp="115000\n")  # fmt: skip
    write(zone / "thermal_zone2", type="iwlwifi_1\n", trip_point_0_type="active\n",
          trip_point_0_temp="10000\n", temp="40000\n")  # fmt: skip
    write(
        tmp_path,
        proc__meminfo=MEMINFO.format(swap_free=8388608),
        proc__self__limits=LIMITS.format(memlock="8388608", rtprio="0"),
        proc__self__status="Name:\tpython\nCapEff:\t0000000000000000\n",
    )
    return tmp_path


def found_in(root: Path, *, moves: bool = True) -> dict[str, Finding]:
    return {one.part: one for one in machine_findings(root, root, moves=moves)}


def test_memory_and_swap(workstation: Path) -> None:
    found = found_in(workstation)
    assert (found["memory"].status, found["memory"].found) == ("ok", "50.0 of 62.8 GiB available")
    assert (found["swap"].status, found["swap"].found) == ("ok", "0.0 of 8.0 GiB in use")


def test_swap_in_use_is_a_stall_to_come(workstation: Path) -> None:
    write(workstation, proc__meminfo=MEMINFO.format(swap_free=8388608 * 8 // 10))
    swap = found_in(workstation)["swap"]
    assert (swap.status, swap.found) == ("warn", "1.6 of 8.0 GiB in use")


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    found = found_in(tmp_path)
    assert set(found) == {"disk", "memory", "clock"}
    assert (found["memory"].status, found["memory"].found) == ("warn", "unknown on this system")


def test_a_governor_that_saves_power(workstation: Path) -> None:
    governor = found_in(workstation)["CPU governor"]
    assert (governor.status, governor.found) == ("warn", "powersave")
    assert "performance" in governor.fix


@pytest.mark.parametrize(
    "files",
    [{"scaling_governor": "performance\n"}, {"scaling_min_freq": "5700000\n"}],
    ids=["governor", "pinned"],
)
def test_clocks_that_stay_up(workstation: Path, files: dict[str, str]) -> None:
    for policy in (workstation / "sys/devices/system/cpu/cpufreq").iterdir():
        write(policy, **files)
    assert found_in(workstation)["CPU governor"].status == "ok"


def test_one_core_that_may_slow_down_is_enough(workstation: Path) -> None:
    policy = workstation / "sys/devices/system/cpu/cpufreq/policy0"
    write(policy, scaling_governor="performance\n")
    found = found_in(workstation)["CPU governor"]
    assert (found.status, found.found) == ("warn", "performance and powersave")


def test_heat_is_that_of_the_zone_nearest_its_limit(workstation: Path) -> None:
    heat = found_in(workstation)["heat"]
    assert (heat.status, heat.found) == ("ok", "x86_pkg_temp 52 degrees C, slows down at 100")
    write(workstation / "sys/class/thermal/thermal_zone1", temp="93000\n")
    heat = found_in(workstation)["heat"]
    assert (heat.status, heat.found) == ("warn", "x86_pkg_temp 93 degrees C, slows down at 100")


def test_no_leave_to_run_in_real_time(workstation: Path) -> None:
    found = found_in(workstation)
    priority, locked = found["real-time priority"], found["locked memory"]
    assert (priority.status, priority.found) == ("warn", "up to 0")
    assert "'@realtime - rtprio 50' into /etc/security/limits.d/realtime.conf" in priority.fix
    assert (locked.status, locked.found) == ("warn", "up to 8388608")
    assert "memlock unlimited" in locked.fix


def test_limits_that_are_set_and_not_yet_in_force(workstation: Path) -> None:
    limits = "# rtprio memlock\n@realtime - rtprio 50\n"
    write(workstation / "etc/security/limits.d", **{"realtime.conf": limits})
    found = found_in(workstation)
    assert found["real-time priority"].fix.startswith("log in again")
    assert found["locked memory"].fix.startswith("put '")


@pytest.mark.parametrize(("rtprio", "status"), [("49", "warn"), ("50", "ok"), ("unlimited", "ok")])
def test_the_priority_that_the_arms_ask_for(workstation: Path, rtprio: str, status: str) -> None:
    limits = LIMITS.format(memlock="unlimited", rtprio=rtprio)
    write(workstation, proc__self__limits=limits)
    found = found_in(workstation)
    assert found["real-time priority"].status == status
    assert found["locked memory"].status == "ok"


@pytest.mark.parametrize(
    ("capabilities", "parts"),
    [("0000000000800000", {"real-time priority"}), ("0000000000004000", {"locked memory"})],
)
def test_capabilities_need_no_limits(workstation: Path, capabilities: str, parts: set[str]) -> None:
    write(workstation, proc__self__status=f"CapEff:\t{capabilities}\n")
    found = found_in(workstation)
    both = ("real-time priority", "locked memory")
    assert {part for part in both if found[part].status == "ok"} == parts


def test_real_time_is_of_no_concern_without_a_robot(workstation: Path) -> None:
    assert "real-time priority" not in found_in(workstation, moves=False)


def test_too_little_disk_for_images(monkeypatch: pytest.MonkeyPatch, workstation: Path) -> None:
    for free, status, word in (
        (1 << 30, "warn", "images"), (4 << 30, "warn", "free"), (6 << 30, "ok", "free"),
    ):  # fmt: skip
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
        disk = found_in(workstation)["disk"]
        assert disk.status == status
        assert word in disk.found


def test_a_coarse_clock(monkeypatch: pytest.MonkeyPatch, workstation: Path) -> None:
    assert found_in(workstation)["clock"].status == "ok"
    coarse = SimpleNamespace(resolution=0.004)
    monkeypatch.setattr(time, "get_clock_info", lambda _: coarse)
    assert found_in(workstation)["clock"].status == "warn"


def test_every_warning_has_a_fix_of_one_line(workstation: Path) -> None:
    for one in found_in(workstation).values():
        assert bool(one.fix) == (one.status != "ok")
        assert "\n" not in one.fix
