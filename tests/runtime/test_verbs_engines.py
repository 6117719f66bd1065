"""What inspect tells of the engines beside a bundle; none of them is loaded."""

import json

import msgspec
import pytest
from tests.fakes.bundles import copy_of
from tests.fakes.engines import fake_engines, with_parity

from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.cli import main
from memorywam_runtime.engines import engines_dir, read_engines, write_engines


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return copy_of(tiny_bundle, tmp_path)


@pytest.fixture
def told(bundle, capsys):
    """Return what is told of engines, as people and as machines read it."""

    def inspected():
        assert main(["inspect", str(bundle)]) == 0
        text = capsys.readouterr().out
        assert main(["inspect", str(bundle), "--json", "-"]) == 0
        engines = json.loads(capsys.readouterr().out)["data"]["engines"]
        assert all(state in text for state in engines.values())
        return engines

    return inspected


def test_a_bundle_alone_has_none(told):
    assert told() == {}


def test_engines_are_told_with_their_state(bundle, told):
    manifest = read_manifest(bundle)
    place = fake_engines(engines_dir(bundle, "tensorrt-rtx", "sm_89"), manifest)
    size = sum(entry.num_bytes for entry in read_engines(place).engines.values()) / 1e6
    lead = f"tensorrt-rtx 1.7.1.116, {size:,.1f} MB; "
    state = {"tensorrt-rtx-sm_89": f"{lead}not verified: run `memorywam verify` on that device"}
    assert told() == state

    engines = read_engines(place)
    with_parity(place, engines, engine_sha256s={})
    assert told() == state
    with_parity(place, engines)
    assert told() == {"tensorrt-rtx-sm_89": f"{lead}every check held: parity.json"}
    with_parity(place, engines, passed=False)
    assert told() == {"tensorrt-rtx-sm_89": f"{lead}CHECKS FAILED: parity.json"}

    entries = dict(engines.engines)
    entries["vae_pair"] = msgspec.structs.replace(entries["vae_pair"], graph_sha256="0" * 64)
    write_engines(place, msgspec.structs.replace(engines, engines=entries))
    assert told() == {"tensorrt-rtx-sm_89": f"{lead}OF OTHER GRAPHS: build again"}


def test_an_interrupted_build_is_told(bundle, told):
    engines_dir(bundle, "tensorrt-rtx", "sm_86").mkdir(parents=True)
    assert told() == {"tensorrt-rtx-sm_86": "not complete: run the same `memorywam build` again"}
