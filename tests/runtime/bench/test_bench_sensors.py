"""Heat and power are told where the kernel tells them, and nowhere else."""

from dataclasses import replace

import pytest

from memorywam_runtime.bench.bench_sensors import sensed, sensors_between, sensors_text

NOTHING = {"temperatures_c": None, "power_w": None, "mean_power_w": None}


def machine(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return sensed(root)


BOARD = {
    "class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "class/thermal/thermal_zone0/temp": "45500\n",
    "class/thermal/thermal_zone1/type": "cpu-thermal\n",
    "class/thermal/thermal_zone1/temp": "46000\n",
    "class/thermal/thermal_zone2/type": "off\n",
    "class/thermal/thermal_zone2/temp": "\n",
    "class/hwmon/hwmon0/name": "ina3221\n",
    "class/hwmon/hwmon0/in1_label": "VDD_IN\n",
    "class/hwmon/hwmon0/in1_input": "19000\n",
    "class/hwmon/hwmon0/curr1_input": "1500\n",
    "class/hwmon/hwmon0/in2_input": "5000\n",
    "class/hwmon/hwmon1/name": "amdgpu\n",
    "class/hwmon/hwmon1/power1_average": "35000000\n",
    "class/powercap/intel-rapl:0/name": "package-0\n",
    "class/powercap/intel-rapl:0/energy_uj": "9000000\n",
    "class/powercap/intel-rapl:0/max_energy_range_uj": "10000000\n",
    "class/powercap/intel-rapl/enabled": "1\n",
}


def test_a_board_with_sensors(tmp_path):
    found = machine(tmp_path, BOARD)
    assert found.temperatures_c == {"cpu-thermal": 45.5, "cpu-thermal #2": 46.0}
    assert found.power_w == {"ina3221 VDD_IN": 28.5, "amdgpu 1": 35.0}
    assert found.energy_j == {"package-0": (9.0, 10.0)}


def test_power_is_energy_over_time_and_counters_begin_again(tmp_path):
    before = machine(tmp_path, BOARD)
    after = replace(
        before,
        at_ns=before.at_ns + 2_000_000_000,
        energy_j={"package-0": (4.0, 10.0)},
        temperatures_c={"cpu-thermal": 50.0},
    )
    told = sensors_between(before, after)
    assert told["mean_power_w"] == {"package-0": 2.5}
    assert told["temperatures_c"]["after"] == {"cpu-thermal": 50.0}
    text = sensors_text(told)
    assert "cpu-thermal 45.5/50.0 C" in text
    assert "cpu-thermal #2 46.0 C" in text
    assert "ina3221 VDD_IN 28.5/28.5 W" in text
    assert "package-0 2.5 W on average" in text


@pytest.mark.parametrize("text", [None, "", "warm\n", "\udcff"])
def test_a_machine_that_tells_nothing(tmp_path, text):
    zone = tmp_path / "class/thermal/thermal_zone0"
    if text is not None:
        zone.mkdir(parents=True)
        (zone / "temp").write_text(text, errors="surrogateescape")
    found = sensed(tmp_path)
    assert sensors_between(found, sensed(tmp_path)) == NOTHING
    assert sensors_text(NOTHING) == "no sensor tells heat or power here"


def test_this_machine_is_asked_without_harm():
    found = sensors_between(sensed(), sensed())
    assert set(found) == set(NOTHING)
    assert all(-50 < one < 200 for one in (found["temperatures_c"] or {}).get("after", {}).values())
