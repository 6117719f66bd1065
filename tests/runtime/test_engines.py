"""Engines beside a bundle: what is refused, in which words, and what is taken.

Regenerate the published schema after an intended change: `python -m tests.runtime.test_engines`.
"""

import importlib
import json
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

import memorywam_runtime
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.engines import (
    ENGINES_FILE,
    RowsProfile,
    check_engines,
    engines_dir,
    engines_from_json,
    engines_schema,
    engines_to_json,
    gist_buckets_of,
    graph_hash,
    read_engines,
)
from memorywam_runtime.errors import BundleError

PUBLISHED = Path(memorywam_runtime.__file__).with_name("engines.schema.json")
HERE: dict[str, Any] = {
    "backend": "tensorrt-rtx",
    "backend_version": "1.7.1.116",
    "target": "sm_89",
}


@pytest.fixture
def manifest(tiny_bundle):
    return read_manifest(tiny_bundle)


@pytest.fixture
def fake(manifest, tmp_path):
    """A directory of engines that a report vouches for."""
    from tests.fakes.engines import fake_engines, with_parity

    folder = fake_engines(tmp_path / "engines", manifest)
    with_parity(folder, read_engines(folder))
    return folder


def edited(folder, change):
    """Let `change` work on the parsed manifest of the engines."""
    path = folder / ENGINES_FILE
    parsed = json.loads(path.read_bytes())
    change(parsed)
    path.write_text(json.dumps(parsed))


def refuses(folder, manifest, *said, **here):
    with pytest.raises(BundleError) as caught:
        check_engines(folder, manifest, **{**HERE, **here})
    for words in said:
        assert words in str(caught.value)


def test_whole_engines_of_this_bundle_and_device_are_taken(fake, manifest, caplog):
    engines = check_engines(fake, manifest, **HERE)
    assert set(engines.engines) == set(manifest.graphs)
    assert engines.engines["vae_first"].audit.gemm_share == {"FLOAT": 0.75, "HALF": 0.25}
    assert not caplog.records


def test_the_manifest_survives_json(fake):
    engines = read_engines(fake)
    assert engines_from_json(engines_to_json(engines)) == engines


def test_engines_lie_beside_the_bundle(tmp_path, monkeypatch):
    expected = tmp_path / "b.engines" / "tensorrt-rtx-sm_89"
    assert engines_dir(tmp_path / "b", "tensorrt-rtx", "sm_89") == expected
    assert engines_dir(f"{tmp_path}/b/", "tensorrt-rtx", "sm_89") == expected
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    assert engines_dir(".", "tensorrt-rtx", "sm_89") == expected


@pytest.mark.parametrize(
    ("changes", "here", "said"),
    [
        ({}, {"backend": "tensorrt"}, ("tensorrt-rtx; expected tensorrt:",)),
        ({}, {"backend_version": "1.7.2.0"}, ("1.7.1.116; expected 1.7.2.0",)),
        ({}, {"target": "sm_120"}, ("sm_89; expected sm_120", "--target sm_120`")),
        ({"precision": "bf16"}, {}, ("precision bf16; expected fp32",)),
        ({"contract_hash": "0" * 64}, {}, ("of contract 0000",)),
        ({"engines": {}}, {}, ("one to one", "action_step")),
    ],
    ids=str,
)
def test_engines_of_something_else_are_refused(manifest, tmp_path, changes, here, said):
    from tests.fakes.engines import fake_engines

    folder = fake_engines(tmp_path / "engines", manifest, **changes)
    refuses(folder, manifest, "memorywam build BUNDLE --backend", *said, **here)


def test_engines_of_other_weights_are_refused(fake, manifest):
    files = dict(manifest.files)
    name = "weights.safetensors"
    files[name] = msgspec.structs.replace(files[name], sha256="0" * 64)
    other = msgspec.structs.replace(manifest, files=files)
    refuses(fake, other, "the engine of 'action_", "another bundle's", "memorywam build")


def test_a_new_prompt_needs_no_new_engines_and_a_changed_graph_needs_its_own(manifest):
    def with_file(name):
        changed = msgspec.structs.replace(manifest.files[name], sha256="0" * 64)
        return msgspec.structs.replace(manifest, files={**manifest.files, name: changed})

    before = {graph: graph_hash(manifest, graph) for graph in manifest.graphs}
    assert len(set(before.values())) == len(before)
    prompted = with_file(manifest.prompts[0].file)
    assert {graph: graph_hash(prompted, graph) for graph in manifest.graphs} == before
    other = with_file("vae_first.onnx")
    changed = [graph for graph in manifest.graphs if graph_hash(other, graph) != before[graph]]
    assert changed == ["vae_first"]
    with pytest.raises(BundleError, match="no graph 'other'; expected one of"):
        graph_hash(manifest, "other")


def test_a_missing_directory_says_how_to_make_it(manifest, tmp_path):
    refuses(tmp_path / "none", manifest, "no engines at", "memorywam build BUNDLE --backend")


def test_a_missing_a_short_and_a_changed_engine_are_refused(fake, manifest):
    path = fake / "state_kv.engine"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    refuses(fake, manifest, "state_kv.engine has 17 bytes; expected 18", "memorywam build")
    path.write_bytes(b"x" * len(whole))
    refuses(fake, manifest, "state_kv.engine hashes to", "memorywam build")
    path.unlink()
    refuses(fake, manifest, "state_kv.engine is missing", "memorywam build")


@pytest.mark.parametrize("name", ["../state_kv.engine", "/etc/hostname", "a\\b", ""])
def test_a_path_that_leaves_the_directory_is_refused(fake, manifest, name):
    edited(fake, lambda found: found["engines"]["state_kv"].update(file=name))
    refuses(fake, manifest, "refused", allow_unverified=True)


def test_a_report_that_leaves_the_directory_is_refused(fake, manifest):
    edited(fake, lambda found: found["parity"].update(file="../parity.json"))
    refuses(fake, manifest, "refused", allow_unverified=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found.update(schema_version=2), "schema version 2; this release reads 1"),
        (lambda found: found.update(other=1), "build the engines again"),
        (lambda found: found.pop("target"), "build the engines again"),
        (lambda found: found["engines"]["state_kv"].update(graph="vae_first"), "under 'state_kv'"),
    ],
    ids=["version", "unknown field", "missing field", "wrong name"],
)
def test_a_manifest_that_is_none_is_refused(fake, manifest, change, said):
    edited(fake, change)
    refuses(fake, manifest, said, allow_unverified=True)


def test_a_manifest_that_is_no_json_is_refused(fake, manifest):
    (fake / ENGINES_FILE).write_bytes(b"\xff{")
    refuses(fake, manifest, "not JSON", "build again")


def no_report(found):
    found["parity"] = None


def other_report(found):
    found["parity"]["sha256"] = "0" * 64


def failed(found):
    found["parity"]["passed"] = False


def of_another_engine(found):
    found["parity"]["engine_sha256s"]["vae_first"] = "0" * 64


def of_fewer_engines(found):
    del found["parity"]["engine_sha256s"]["vae_first"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (no_report, "found no parity report"),
        (other_report, "no whole parity report"),
        (failed, "says that a check failed"),
        (of_another_engine, "made for other engines: vae_first"),
        (of_fewer_engines, "made for other engines: vae_first"),
    ],
)
def test_engines_that_nothing_vouches_for_run_only_when_allowed(
    fake, manifest, caplog, change, said
):
    edited(fake, change)
    refuses(fake, manifest, said, "memorywam verify", f"--engine {fake}")
    with caplog.at_level(logging.WARNING, logger="memorywam"):
        check_engines(fake, manifest, **HERE, allow_unverified=True)
    assert said in caplog.text


def test_allowing_the_unverified_allows_nothing_else(fake, manifest):
    (fake / "state_kv.engine").write_bytes(b"x" * 18)
    refuses(fake, manifest, "hashes to", allow_unverified=True)


def test_gist_buckets_are_those_that_every_engine_takes(fake, manifest):
    engines = read_engines(fake)
    assert manifest.memory.gist_buckets == (32, 64, 128, 256)  # 120, 184, 312, 568 rows
    assert gist_buckets_of(engines, manifest) == (32, 64, 128, 256)
    fixed = RowsProfile(rows_min=568, rows_opt=568, rows_max=568)
    one = {
        **engines.engines,
        "action_step": msgspec.structs.replace(engines.engines["action_step"], profiles=(fixed,)),
    }
    assert gist_buckets_of(msgspec.structs.replace(engines, engines=one), manifest) == (256,)
    none = {
        **one,
        "cache_update": msgspec.structs.replace(
            engines.engines["cache_update"],
            profiles=(RowsProfile(rows_min=120, rows_opt=120, rows_max=120),),
        ),
    }
    with pytest.raises(BundleError, match="no gist bucket"):
        gist_buckets_of(msgspec.structs.replace(engines, engines=none), manifest)


def test_the_published_schema_is_current_and_holds_for_a_written_file(fake):
    jsonschema = importlib.import_module("jsonschema")  # it has no types

    published = json.loads(PUBLISHED.read_text())
    assert published == json.loads(json.dumps(engines_schema()))
    written = json.loads((fake / ENGINES_FILE).read_bytes())
    jsonschema.validate(written, published)
    del written["target"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(written, published)


if __name__ == "__main__":
    PUBLISHED.write_text(json.dumps(engines_schema(), indent=2, sort_keys=True) + "\n")
