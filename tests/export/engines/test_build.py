"""The engines of a whole bundle: kept while they fit, else built; all, or no manifest."""

import fcntl
import os
import shutil
import sys
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.fakes.bundles import copy_of, edit_manifest
from tests.fakes.engines import with_parity

from memorywam_export.engines import engine_build, engine_preflight
from memorywam_export.engines.engine import Compiler, Network
from memorywam_export.engines.engine_build import BuildOptions, build_engines
from memorywam_export.engines.engine_jobs import jobs_of
from memorywam_export.engines.engine_preflight import preflight
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.engines import ENGINES_FILE, check_engines, gist_buckets_of, read_engines
from memorywam_runtime.errors import BundleError, InputError, MissingPartError

RTX = "tensorrt-rtx"
OPTIONS = BuildOptions(backend=RTX, target="sm_89")


@pytest.fixture(scope="module")
def built(tiny_bundle_in_place, tmp_path_factory):
    """The tiny bundle's engines, built once. Read only."""
    out = tmp_path_factory.mktemp("built")
    return build_engines(tiny_bundle_in_place, changed_options(OPTIONS, out=out))


def changed_options(options, **changes):
    fields = {name: getattr(options, name) for name in options.__slots__}
    return BuildOptions(**{**fields, **changes})


@pytest.fixture
def out(built, tmp_path):
    """A copy of what was built, in a folder that a test may change."""
    shutil.copytree(built.directory, tmp_path / built.directory.name)
    return tmp_path


def again(bundle, out, **changes):
    return build_engines(bundle, changed_options(OPTIONS, out=out, **changes))


def hits(result):
    return {graph.graph for graph in result.graphs if graph.hit}


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


def checked(directory, manifest):
    return check_engines(
        directory,
        manifest,
        backend=RTX,
        backend_version=Compiler(RTX).version,
        target="sm_89",
        allow_unverified=True,
    )


def test_what_is_built_is_what_a_robot_takes(built, tiny_bundle_in_place):
    manifest = read_manifest(tiny_bundle_in_place)
    engines = checked(built.directory, manifest)
    assert built.ok
    assert not hits(built)
    assert set(engines.engines) == set(manifest.graphs)
    assert engines.recipe == engines.precision == "fp32"
    assert engines.parity is None
    assert engines.versions["tensorrt-rtx-cu13"] == engines.backend_version
    files = {entry.file for entry in engines.engines.values()}
    assert names_in(built.directory) == sorted({ENGINES_FILE, *files})


def test_engines_that_write_in_place_take_the_largest_bucket(built, tiny_bundle_in_place):
    manifest = read_manifest(tiny_bundle_in_place)
    engines = read_engines(built.directory)
    (profile,) = engines.engines["cache_update"].profiles
    assert (profile.rows_min, profile.rows_opt, profile.rows_max) == (568, 568, 568)
    assert engines.engines["vae_first"].profiles == ()
    assert gist_buckets_of(engines, manifest) == (256,)


def test_a_second_build_builds_nothing(tiny_bundle_in_place, out, built, monkeypatch):
    monkeypatch.setattr(Compiler, "network", None)  # any use fails
    before = {path: path.stat().st_mtime_ns for path in (out / built.directory.name).iterdir()}
    result = again(tiny_bundle_in_place, out)
    assert hits(result) == {graph.graph for graph in built.graphs}
    assert [g.entry for g in result.graphs] == [g.entry for g in built.graphs]
    engines = {path: time for path, time in before.items() if path.suffix == ".engine"}
    assert {path: path.stat().st_mtime_ns for path in engines} == engines


def test_only_what_is_damaged_or_gone_is_built_again(tiny_bundle_in_place, out, built):
    directory = out / built.directory.name
    files = {graph.graph: directory / graph.entry.file for graph in built.graphs}
    files["prompt_kv"].write_bytes(b"x" * files["prompt_kv"].stat().st_size)
    files["state_kv"].unlink()
    result = again(tiny_bundle_in_place, out)
    assert hits(result) == set(files) - {"prompt_kv", "state_kv"}
    checked(directory, read_manifest(tiny_bundle_in_place))


def test_a_damaged_manifest_costs_a_build_not_an_error(tiny_bundle_in_place, out, built):
    (out / built.directory.name / ENGINES_FILE).write_text("{")
    result = again(tiny_bundle_in_place, out, dry_run=True)
    assert not hits(result)
    assert all(graph.entry is None for graph in result.graphs)


class Interrupted(Exception):  # noqa: N818 - stands for a person's Ctrl-C
    """The build was stopped."""


@pytest.fixture
def stop_after(monkeypatch):
    """Stop the compiler after so many graphs."""
    build = Network.build

    def stop(count):
        done: list[int] = []

        def stopping(*args, **kwargs):
            if len(done) == count:
                raise Interrupted
            done.append(1)
            return build(*args, **kwargs)

        monkeypatch.setattr(Network, "build", stopping)

    yield stop
    monkeypatch.setattr(Network, "build", build)


def test_an_interrupted_build_goes_on(tiny_bundle_in_place, tmp_path, stop_after):
    stop_after(2)
    with pytest.raises(Interrupted):
        again(tiny_bundle_in_place, tmp_path)
    directory = tmp_path / "tensorrt-rtx-sm_89"
    with pytest.raises(BundleError, match="go on with an interrupted build"):
        read_engines(directory)
    (directory / ".vae_first-0.engine.0.draft").write_bytes(b"of a killed process")
    graphs = list(read_manifest(tiny_bundle_in_place).graphs)
    stop_after(len(graphs) - 2)
    result = again(tiny_bundle_in_place, tmp_path)
    assert hits(result) == set(graphs[:2])
    engines = checked(directory, read_manifest(tiny_bundle_in_place))
    files = {entry.file for entry in engines.engines.values()}
    assert names_in(directory) == sorted({ENGINES_FILE, *files})


def test_an_interrupted_rebuild_leaves_the_old_engines_valid(
    tiny_bundle_in_place, out, built, stop_after
):
    directory = out / built.directory.name
    stop_after(1)
    with pytest.raises(Interrupted):
        again(tiny_bundle_in_place, out, workspace_bytes=1 << 30)
    before = checked(directory, read_manifest(tiny_bundle_in_place))
    assert before.engines == {graph.graph: graph.entry for graph in built.graphs}
    assert len(list(directory.glob(f"{built.graphs[0].graph}-*.engine"))) == 2


def test_a_report_is_kept_with_the_engines_it_vouches_for(
    tiny_bundle_in_place, out, built, monkeypatch
):
    directory = out / built.directory.name
    made = with_parity(directory, read_engines(directory))
    again(tiny_bundle_in_place, out)
    assert read_engines(directory).parity == made.parity
    assert (directory / "parity.json").is_file()
    (directory / made.engines["state_kv"].file).write_bytes(b"damaged")
    monkeypatch.setattr(Network, "build", lambda *_, **__: memoryview(b"another engine"))
    again(tiny_bundle_in_place, out)
    assert read_engines(directory).parity is None


def test_everything_that_decides_an_engine_is_in_its_key(tiny_bundle_in_place, monkeypatch):
    manifest = read_manifest(tiny_bundle_in_place)
    base = {"backend": RTX, "version": "1.7.1.116", "target": "sm_89"}

    def keys(of=manifest, **changes):
        return {
            job.graph: job.key for job in jobs_of(tiny_bundle_in_place, of, **{**base, **changes})
        }

    before = keys()
    assert keys() == before
    assert len(set(before.values())) == len(before)

    def with_file(name):
        changed = msgspec.structs.replace(manifest.files[name], sha256="0" * 64)
        return msgspec.structs.replace(manifest, files={**manifest.files, name: changed})

    variants: tuple[dict[str, Any], ...] = (
        {"backend": "tensorrt"},
        {"version": "1.7.2.0"},
        {"target": "sm_86"},
        {"workspace_bytes": 1 << 30},
        {"of": msgspec.structs.replace(manifest, precision="bf16")},
        {"of": with_file("weights.safetensors")},
    )
    for changes in variants:
        assert not set(before.values()) & set(keys(**changes).values()), changes

    one = keys(of=with_file("vae_first.onnx"))
    assert [graph for graph in before if one[graph] != before[graph]] == ["vae_first"]
    fewer = msgspec.structs.replace(manifest.memory, gist_buckets=(32, 64), max_frames=64)
    smaller = keys(of=msgspec.structs.replace(manifest, memory=fewer))
    changed = [graph for graph in before if smaller[graph] != before[graph]]
    assert changed == ["action_step", "cache_update"]
    assert keys(of=with_file(manifest.prompts[0].file)) == before
    monkeypatch.setattr("memorywam_export.engines.engine_jobs.BUILDER_REVISION", 0)
    assert not set(before.values()) & set(keys().values())


def test_a_wide_product_is_a_fault_and_leaves_no_manifest(tiny_bundle_in_place, tmp_path):
    bundle = copy_of(tiny_bundle_in_place, tmp_path)
    edit_manifest(bundle, lambda found: found.update(precision="bf16"))
    result = build_engines(bundle, OPTIONS)
    assert not result.ok
    by_graph = {graph.graph: graph for graph in result.graphs}
    assert any("wider than bf16" in fault for fault in by_graph["vae_first"].faults)
    assert by_graph["vae_first"].entry is None
    assert names_in(result.directory) == []
    assert result.directory == tmp_path / "copy.engines" / "tensorrt-rtx-sm_89"


def test_a_damaged_bundle_is_refused_before_anything_is_built(tiny_bundle_in_place, tmp_path):
    bundle = copy_of(tiny_bundle_in_place, tmp_path)
    with (bundle / "state_kv.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"state_kv.onnx has \d+ bytes"):
        build_engines(bundle, OPTIONS)
    assert names_in(tmp_path) == ["copy"]


def test_a_second_build_at_the_same_time_is_refused(tiny_bundle_in_place, out, built):
    descriptor = os.open(out / built.directory.name, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another build is at work"):
            again(tiny_bundle_in_place, out)
    finally:
        os.close(descriptor)
    again(tiny_bundle_in_place, out)


def test_no_target_and_no_gpu_is_refused(tiny_bundle_in_place, monkeypatch):
    monkeypatch.setattr(engine_build, "device_target", lambda: None)
    with pytest.raises(InputError, match="expected --target"):
        build_engines(tiny_bundle_in_place, BuildOptions(backend=RTX))


def test_the_gpu_here_is_the_target_unless_another_is_named(tiny_bundle_in_place, out, monkeypatch):
    monkeypatch.setattr(engine_build, "device_target", lambda: "sm_89")
    assert again(tiny_bundle_in_place, out, target=None, dry_run=True).target == "sm_89"
    assert again(tiny_bundle_in_place, out, target="sm_120", dry_run=True).target == "sm_120"


def test_a_missing_backend_is_told_before_a_missing_gpu(tiny_bundle_in_place, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingPartError, match="JetPack"):
        build_engines(tiny_bundle_in_place, BuildOptions(backend="tensorrt"))


def test_what_the_inspector_of_the_device_finds_counts(tiny_bundle_in_place, tmp_path, monkeypatch):
    """With a device, its own inspector has the last word."""
    monkeypatch.setattr(engine_build, "device_target", lambda: "sm_89")
    copying = (
        '{"Layers": [{"Name": "r", "LayerType": "Reformat", '
        '"Inputs": [{"Name": "memory.00.k"}], "Outputs": []}]}'
    )
    monkeypatch.setattr(Compiler, "information", lambda *_: copying)
    result = again(tiny_bundle_in_place, tmp_path)
    faults = {graph.graph: graph.faults for graph in result.graphs}
    assert "1 layers that copy memory, first r (Reformat)" in faults["cache_update"][0]
    assert faults["state_kv"] == ()
    state = next(graph.entry for graph in result.graphs if graph.graph == "state_kv")
    assert state is not None
    assert state.audit.source == "engine"
    assert not (result.directory / ENGINES_FILE).exists()
    told = result.directory / state.file.replace(".engine", ".layers.json")
    assert told.read_text() == copying


def test_preflight_follows_the_largest_weights(tmp_path):
    found = preflight([10**9, 4 * 10**9], tmp_path / "not" / "yet", None)
    assert found.host_bytes == pytest.approx(0.6e9 + 3.1 * 4e9)
    assert found.disk_bytes == pytest.approx(5.116e9)
    assert found.disk_free_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    assert found.host_free_bytes > 1 << 26
    assert preflight([], tmp_path, None).host_bytes == 0


def test_a_build_that_does_not_fit_is_refused_in_numbers(
    tiny_bundle_in_place, tmp_path, monkeypatch
):
    monkeypatch.setattr(engine_preflight, "available_bytes", lambda: 500_000_000)
    usage = SimpleNamespace(free=10_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError) as caught:
        again(tiny_bundle_in_place, tmp_path)
    assert "takes about 600 MB of memory, and 500 MB are free" in str(caught.value)
    assert "MB on disk, and 10 MB are free" in str(caught.value)
    assert "--force" in str(caught.value)
    assert names_in(tmp_path) == []
    assert again(tiny_bundle_in_place, tmp_path, force=True, dry_run=True).preflight.lacks


def test_preflight_tells_what_is_free_and_the_workspace(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_preflight, "available_bytes", lambda: 40 * 10**9)
    found = preflight([10**10], tmp_path, 1 << 30)
    assert not [lack for lack in found.lacks if "memory" in lack]
    assert "memory about 31.6 GB of 40.0 GB free" in found.text
    assert "workspace 1.1 GB" in found.text
