"""Jetsons by their own files, as JetPack 5, 6 and 7 write them."""

from pathlib import Path

import pytest
from tests.runtime.doctor.test_doctor_machine import write

from memorywam_runtime.doctor.doctor_finding import Finding
from memorywam_runtime.doctor.doctor_jetson import jetson_findings

RELEASE = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
    "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n"
    "TARGET_USERSPACE_LIB_DIR=nvidia\n"
)
NANO_MODES = """###########################
# POWER_MODEL DEFINITIONS #
###########################
< PARAM TYPE=CLOCK NAME=GPU >
MAX_FREQ /sys/devices/platform/17000000.gpu/devfreq_dev/max_freq

< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
GPU MAX_FREQ 612000000

< POWER_MODEL ID=1 NAME=25W >
GPU MAX_FREQ 918000000

< POWER_MODEL ID=2 NAME=MAXN_SUPER >
GPU MAX_FREQ -1

< POWER_MODEL ID=3 NAME=7W >
GPU MAX_FREQ 408000000

< PM_CONFIG DEFAULT=1 >
"""
AGX_MODES = "".join(
    f"< POWER_MODEL ID={number} NAME={name} >\nCPU_ONLINE CORE_0 1\n"
    for number, name in enumerate(("MAXN", "MODE_15W", "MODE_30W", "MODE_50W"))
)


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    """An Orin Nano on JetPack 6 as it comes: 15 W, clocks free."""
    model = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0"
    write(
        tmp_path,
        etc__nv_tegra_release=RELEASE,
        sys__firmware__devicetree__base__model=model,
        var__lib__nvpmodel__status="pmode:0000\n",
    )
    write(tmp_path / "etc", **{"nvpmodel.conf": NANO_MODES})
    gpu = tmp_path / "sys/class/devfreq/17000000.gpu"
    write(gpu, min_freq="306000000\n", max_freq="1020000000\n", cur_freq="306000000\n",
          governor="nvhost_podgov\n")  # fmt: skip
    write(tmp_path / "sys/class/devfreq/15340000.vic", min_freq="1\n", max_freq="2\n")
    return tmp_path


def found_in(root: Path) -> dict[str, Finding]:
    return {one.part: one for one in jetson_findings(root)}


def test_an_orin_as_it_comes(orin: Path) -> None:
    found = found_in(orin)
    assert found["Jetson"].status == "ok"
    assert found["Jetson"].found == (
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super, L4T 36.4.3 (JetPack 6)"
    )
    assert found["power mode"].found == "15W; MAXN_SUPER is faster"
    assert (found["power mode"].status, found["power mode"].fix) == ("warn", "sudo nvpmodel -m 2")
    assert found["GPU clock"].found == "17000000.gpu 306 to 1020 MHz, now 306"
    assert (found["GPU clock"].status, found["GPU clock"].fix) == (
        "warn", "sudo jetson_clocks, after nvpmodel and after every boot",
    )  # fmt: skip


def test_an_orin_made_ready(orin: Path) -> None:
    write(orin, var__lib__nvpmodel__status="pmode:0002 fmode:quiet\n")
    write(orin / "sys/class/devfreq/17000000.gpu", min_freq="1020000000\n")
    found = found_in(orin)
    assert {one.status for one in found.values()} == {"ok"}
    assert found["power mode"].found == "MAXN_SUPER"
    assert found["GPU clock"].found.endswith("locked")


@pytest.mark.parametrize(("mode", "status"), [(0, "ok"), (2, "warn"), (9, "warn")])
def test_modes_of_an_agx(orin: Path, mode: int, status: str) -> None:
    write(orin / "etc", **{"nvpmodel.conf": AGX_MODES})
    write(orin, var__lib__nvpmodel__status=f"pmode:{mode:04}\n")
    found = found_in(orin)["power mode"]
    assert found.status == status
    assert found.fix == "sudo nvpmodel -m 0" * (status == "warn")


@pytest.mark.parametrize(
    ("major", "jetpack", "status"),
    [
        (35, "JetPack 5", "missing"),
        (38, "JetPack 7", "ok"),
        (39, "JetPack 7", "ok"),
        (50, "L4T 50", "ok"),
    ],
)
def test_other_releases(orin: Path, major: int, jetpack: str, status: str) -> None:
    write(orin, etc__nv_tegra_release=RELEASE.replace("R36", f"R{major}"))
    found = found_in(orin)["Jetson"]
    assert (found.status, jetpack in found.found) == (status, True)


def test_a_container_that_hides_the_release(orin: Path) -> None:
    (orin / "etc/nv_tegra_release").unlink()
    found = found_in(orin)["Jetson"]
    assert (found.status, "container" in found.fix) == ("warn", True)


def test_other_boards_are_left_alone(tmp_path: Path) -> None:
    assert found_in(tmp_path) == {}
    write(tmp_path, sys__firmware__devicetree__base__model="Raspberry Pi 5 Model B Rev 1.0\0")
    assert found_in(tmp_path) == {}
