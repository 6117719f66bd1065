"""The manifest: its schema, and JSON that is not one."""

import json
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memorywam_runtime.errors import BundleError, InputError
from memorywam_runtime.manifest import (
    SCHEMA_VERSION,
    MemoryPlan,
    manifest_from_json,
    manifest_schema,
    manifest_to_json,
)


@pytest.fixture(scope="module")
def text(tiny_bundle):
    return (tiny_bundle / "manifest.json").read_bytes()


def edited(text, change):
    parsed = json.loads(text)
    change(parsed)
    return json.dumps(parsed).encode()


def test_json_both_ways(text):
    manifest = manifest_from_json(text)
    assert manifest_to_json(manifest) == text
    assert manifest.schema_version == SCHEMA_VERSION


def test_the_published_schema_fits_a_real_manifest(text):
    schema = json.loads(json.dumps(manifest_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert list(validator.iter_errors(json.loads(text))) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(wings=2),
        lambda m: m.pop("graphs"),
        lambda m: m.update(precision="int1"),
        lambda m: m["memory"].update(max_frames="many"),
        lambda m: m["graphs"]["state_kv"]["inputs"][0].update(dtype="int3"),
        lambda m: m["contract"]["conventions"].update(action_position="nowhere"),
    ],
)
def test_the_published_schema_refuses_what_the_reader_refuses(text, change):
    bad = edited(text, change)
    validator = jsonschema.Draft202012Validator(json.loads(json.dumps(manifest_schema())))
    assert list(validator.iter_errors(json.loads(bad))) != []
    with pytest.raises(BundleError, match=r"^manifest: .*export the checkpoint again"):
        manifest_from_json(bad)


@pytest.mark.parametrize("version", [0, 2, 99, "1", None, True, [1]])
def test_another_schema_version_is_named_before_all_else(text, version):
    def change(m):
        m["schema_version"] = version
        m["invented_later"] = 1

    with pytest.raises(BundleError) as error:
        manifest_from_json(edited(text, change))
    if version is not True:  # equals 1, and is refused by its type
        assert f"found schema version {version}; this release reads 1" in str(error.value)
        assert "use the release that made the bundle" in str(error.value)


def test_an_edited_contract_is_found_by_its_hash(text):
    def change(m):
        m["contract"]["conventions"]["action_shift"] = 5.0

    with pytest.raises(BundleError, match=r"the contract hashes to .*it says .*was edited"):
        manifest_from_json(edited(text, change))


def test_the_contracts_name_may_be_edited(text):
    found = manifest_from_json(edited(text, lambda m: m["contract"].update(name="mine")))
    assert found.contract.name == "mine"


def test_a_contradictory_contract_is_a_bundle_error(text):
    def change(m):
        m["contract"]["num_heads"] = 0

    with pytest.raises(BundleError, match="num_heads is 0; expected at least 1"):
        manifest_from_json(edited(text, change))


def test_a_normalization_that_cannot_be_inverted_is_a_bundle_error(text):
    def change(m):
        m["normalization"]["action"]["scale"][3] = 0.0

    with pytest.raises(BundleError, match="found a zero scale"):
        manifest_from_json(edited(text, change))


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"nonsense", b"\x00\x01", b"\xff", b'{"a": "\xff"}', b'{"a": "\\ud800"}', b"1e999",
     b"[" * 100_000, b'{"schema_version": 1, "graphs": ' + b"[" * 100_000, b"[]", b"null", b"{}"],
    ids=lambda text: repr(text[:16]),
)  # fmt: skip
def test_garbage_is_a_bundle_error(text):
    with pytest.raises(BundleError, match=r"^manifest: "):
        manifest_from_json(text)


GOOD_PLAN: dict[str, Any] = {
    "max_frames": 40,
    "gist_buckets": (32, 40),
    "on_full": "stop",
    "bytes_per_token": 8,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_frames": 0}, "found max_frames 0; expected at least 1"),
        ({"on_full": "panic"}, "unknown on_full 'panic'; expected one of refuse, stop, drop-old"),
        ({"gist_buckets": ()}, r"found gist_buckets \[\]"),
        ({"gist_buckets": (0, 40)}, r"found gist_buckets \[0, 40\]; expected ascending sizes"),
        ({"gist_buckets": (40, 32)}, r"found gist_buckets \[40, 32\]"),
        ({"gist_buckets": (40, 40)}, r"found gist_buckets \[40, 40\]"),
        ({"gist_buckets": (32,)}, r"found gist_buckets \[32\].* end with max_frames, 40"),
        ({"gist_buckets": (32, 64)}, r"found gist_buckets \[32, 64\]"),
    ],
)
def test_a_plan_that_no_session_could_hold_is_refused(text, changes, message):
    MemoryPlan(**GOOD_PLAN)
    with pytest.raises(InputError, match=message):
        MemoryPlan(**GOOD_PLAN | changes)
    bad = edited(text, lambda m: m["memory"].update(msgspec.to_builtins(GOOD_PLAN | changes)))
    with pytest.raises(BundleError, match="Invalid enum" if "on_full" in changes else message):
        manifest_from_json(bad)


def test_prompts_are_found_by_their_exact_text(text):
    manifest = manifest_from_json(text)
    found = manifest.prompt("random")
    assert found is not None
    assert found.text == "random"
    assert manifest.prompt("Random") is None
    assert manifest.prompt("random ") is None


LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
)


def nested(inner):
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)


JSON = st.recursive(LEAVES, nested, max_leaves=5)


@st.composite
def mutated(draw, parsed):
    """Return a parsed JSON with one place, anywhere, replaced, removed or added to."""
    node = copied = json.loads(json.dumps(parsed))
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = draw(st.sampled_from(keys))
        if isinstance(node[key], dict | list) and node[key] and draw(st.booleans()):
            node = node[key]
            continue
        match draw(st.sampled_from(["replace", "remove", "swap"])):
            case "replace":
                node[key] = draw(JSON)
            case "remove":
                del node[key]
            case "swap":
                other = draw(st.sampled_from(keys))
                node[key], node[other] = node[other], node[key]
        break
    return copied


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_mutated_json_opens_or_is_a_bundle_error(text, data):
    bad = json.dumps(data.draw(mutated(json.loads(text)))).encode()
    try:
        manifest = manifest_from_json(bad)
    except BundleError as error:
        assert str(error).startswith("manifest: ")  # noqa: PT017 - both ends are legal
    else:
        assert manifest_from_json(manifest_to_json(manifest)) == manifest


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_mutated_bytes_open_or_are_a_bundle_error(text, data):
    start = data.draw(st.integers(0, len(text) - 1))
    length = data.draw(st.integers(0, 40))
    bad = text[:start] + data.draw(st.binary(max_size=8)) + text[start + length :]
    try:
        manifest_from_json(bad)
    except BundleError as error:
        assert str(error).startswith("manifest: ")  # noqa: PT017 - both ends are legal
