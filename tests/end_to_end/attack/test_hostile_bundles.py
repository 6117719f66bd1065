"""Bundles, damaged at random and by hand: nothing opens but what was exported and verified."""

import hashlib
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
from tests.end_to_end.attack.mutations import NO_FILES, document_bytes, edited, fuzzed, lawful
from tests.fakes.bundles import copy_of, edit_manifest

from memorywam_export.bundles.bundle_report import record_bundle_parity
from memorywam_runtime import bundle as bundle_module
from memorywam_runtime.bundle import check_bundle, open_bundle, read_manifest
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.engines import read_engines
from memorywam_runtime.errors import BundleError, InputError, MemorywamError
from memorywam_runtime.files import atomic_directory, read_file, shown
from memorywam_runtime.manifest import OWN_FIELDS

MOST_BYTES = 256 << 20
"""That refusing a bundle of a megabyte may take."""


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle to be damaged."""
    return copy_of(tiny_bundle, tmp_path)


@pytest.fixture
def verified(bundle: Path) -> Path:
    """A bundle that a report vouches for."""
    record_bundle_parity(bundle, {}, "<p>every check held</p>", passed=True)
    return bundle


def opened(root: Path, **options: Any) -> object:
    """Open a bundle on the CPU."""
    return open_bundle(root, num_threads=1, spin=False, **options)


def with_right_hashes(document: Any) -> Any:
    """Give an edited manifest the contract hash that it should have, if it has a contract."""
    try:
        contract = msgspec.convert(document["contract"], InferenceContract)
        document["contract_hash"] = contract.hash
    except Exception:
        return document
    return document


@pytest.mark.parametrize("count", [60, pytest.param(4000, marks=pytest.mark.proof)])
def test_hostile_manifests_are_read_or_refused(bundle: Path, count: int) -> None:
    path = bundle / "manifest.json"
    whole = json.loads(path.read_bytes())

    def read(content: bytes) -> object:
        path.write_bytes(content)
        return opened(bundle, allow_unverified=True)

    num_read = fuzzed(
        read,
        [whole],
        edited,
        count=count,
        name="manifest",
        encode=lambda document: document_bytes(with_right_hashes(document)),
    )
    assert num_read < count / 2


@pytest.mark.parametrize("size", ["num_layers", "trained_frames"])
def test_a_number_of_layers_that_no_graph_has_is_not_counted_out(bundle: Path, size: str) -> None:
    def grow(document: Any) -> None:
        document["contract"][size] = 10**12
        with_right_hashes(document)

    edit_manifest(bundle, grow)
    tracemalloc.start()
    try:
        lawful(lambda: opened(bundle, allow_unverified=True), size)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    if size == "num_layers":
        with pytest.raises(MemorywamError, match="num_layers is 1000000000000; expected at most"):
            check_bundle(bundle)


@pytest.mark.parametrize("num_frames", [10**12, 10**18, 10**30])
def test_a_memory_that_no_machine_has_is_refused(bundle: Path, num_frames: int) -> None:
    def grow(document: Any) -> None:
        document["memory"] |= {"max_frames": num_frames, "gist_buckets": [num_frames]}

    edit_manifest(bundle, grow)
    with pytest.raises(BundleError, match="export the checkpoint again"):
        opened(bundle, allow_unverified=True)


def shift(document: Any) -> None:
    """Move all joints by a little."""
    document["normalization"]["action"]["offset"][0] += 0.5


def forget(document: Any) -> None:
    """Let memory drop what it holds."""
    document["memory"]["on_full"] = "drop-oldest-gist"


def disown(document: Any) -> None:
    """Say that it was made from something else."""
    document["source"]["sha256"] = "0" * 64


@pytest.mark.parametrize("change", [shift, forget, disown])
def test_a_report_vouches_for_the_manifest_too(
    verified: Path, change: Callable[[Any], None]
) -> None:
    opened(verified)
    edit_manifest(verified, change)
    with pytest.raises(BundleError, match="other fields of the manifest, which was changed"):
        opened(verified)
    opened(verified, allow_unverified=True)


def test_instructions_may_come_and_go_under_a_report(verified: Path) -> None:
    before = check_bundle(verified).judged_files

    def remove(document: Any) -> None:
        for prompt in document["prompts"]:
            del document["files"][prompt["file"]]
        document["prompts"] = []

    edit_manifest(verified, remove)
    assert check_bundle(verified).judged_files == before
    opened(verified)


def test_five_and_five_point_nought_are_one_manifest(verified: Path) -> None:
    path = verified / "manifest.json"
    assert b'"action_shift": 1.0' in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b'"action_shift": 1.0', b'"action_shift": 1'))
    opened(verified)


def test_a_report_of_an_earlier_release_says_what_to_do(verified: Path) -> None:
    def age(document: Any) -> None:
        del document["parity"]["sha256s"][OWN_FIELDS]

    edit_manifest(verified, age)
    with pytest.raises(BundleError, match=r"of an earlier release.*run `memorywam verify`"):
        opened(verified)


def test_a_process_says_once_that_nobody_verified_a_bundle(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle_module._warn_once.cache_clear()
    opened(bundle)
    opened(bundle)
    assert [one.message for one in caplog.records].count(
        f"{bundle} has not been verified: run `memorywam verify`"
    ) == 1


@pytest.mark.parametrize("change", NO_FILES)
@pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors", "action_step.onnx"])
@pytest.mark.timeout(60)
def test_what_is_no_file_is_refused(
    bundle: Path, name: str, change: Callable[[Path], None]
) -> None:
    change(bundle / name)
    assert lawful(lambda: check_bundle(bundle), name)


@pytest.mark.parametrize("change", NO_FILES)
@pytest.mark.timeout(60)
def test_engines_that_are_no_file_are_refused(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    (tmp_path / "engines.json").write_text("{}")
    change(tmp_path / "engines.json")
    assert lawful(lambda: read_engines(tmp_path), "engines.json")


@pytest.mark.parametrize("make", NO_FILES[:3])
@pytest.mark.timeout(60)
def test_nothing_without_an_end_is_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "one"
    path.write_bytes(b"")
    make(path)
    with pytest.raises(InputError, match="is a directory, pipe or device; expected a file"):
        read_file(path, 100)


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_bytes(b"0123456789")
    assert read_file(path, 10) == b"0123456789"
    with pytest.raises(BundleError, match="found 10 bytes; expected at most 9 bytes"):
        read_file(path, 9, BundleError)


@pytest.mark.parametrize(
    "name", ["\x1b[2J\x1b]0;owned\a.onnx", "a\nb", "\u202etxt.exe", "../\x1b[31m", "x" * 5000]
)
def test_a_name_has_no_power_over_a_terminal(bundle: Path, name: str) -> None:
    def add(document: Any) -> None:
        document["files"][name] = {"num_bytes": 1, "sha256": "0" * 64}

    edit_manifest(bundle, add)
    with pytest.raises(BundleError) as caught:
        check_bundle(bundle)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_names_are_shown_as_they_are() -> None:
    assert shown("grün/graph 1.onnx") == "grün/graph 1.onnx"
    assert shown("\x1b[2J\ud800") == "\\x1b[2J\\ud800"


@pytest.mark.parametrize("place", ["../outside", "/etc/passwd", "/dev/zero", "link"])
def test_a_graph_takes_no_weights_from_elsewhere(bundle: Path, place: str) -> None:
    (bundle.parent / "outside").write_bytes((bundle / "weights.safetensors").read_bytes())
    (bundle / "link").symlink_to("../outside")
    path = bundle / "action_step.onnx"
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = place
    path.write_bytes(model.SerializeToString())

    def agree(document: Any) -> None:
        content = path.read_bytes()
        found = {"num_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        document["files"][path.name] = found

    edit_manifest(bundle, agree)
    with pytest.raises(BundleError, match=r"cannot load action_step\.onnx"):
        opened(bundle, allow_unverified=True)


def notes(root: Path) -> str:
    """Leave something of one's own in a bundle."""
    (root / "prompts").mkdir(exist_ok=True)
    (root / "prompts" / "notes.txt").write_text("mine")
    return "prompts/notes.txt"


def other(root: Path) -> str:
    """Put a manifest of another kind of program there."""
    (root / "manifest.json").write_text('{"name": "an extension", "files": []}')
    return "manifest.json"


def damage(root: Path) -> str:
    """Damage the manifest, so that nobody can tell whose the rest is."""
    (root / "manifest.json").write_bytes(b"{")
    return "manifest.json"


def remove(root: Path) -> str:
    """Leave no manifest."""
    (root / "manifest.json").unlink()
    return "files without a manifest.json"


@pytest.mark.parametrize("change", [notes, other, damage, remove])
def test_only_a_bundle_is_overwritten(bundle: Path, change: Callable[[Path], str]) -> None:
    complaint = change(bundle)
    before = sorted(bundle.rglob("*"))
    with (
        pytest.raises(InputError, match=f"{complaint}.*expected a bundle"),
        atomic_directory(bundle, overwrite=True),
    ):
        pytest.fail("the work began")
    assert sorted(bundle.rglob("*")) == before


def test_a_bundle_is_overwritten_whole_or_damaged(verified: Path) -> None:
    (verified / "weights.safetensors").write_bytes(b"")
    (verified / ".manifest.json.0123456789ab.draft").write_bytes(b"left by a power cut")
    with atomic_directory(verified, overwrite=True) as draft:
        (draft / "new").write_text("new")
    assert [one.name for one in verified.iterdir()] == ["new"]


def test_the_manifest_is_all_that_is_read_first(bundle: Path) -> None:
    (bundle / "weights.safetensors").unlink()
    assert read_manifest(bundle).graphs
