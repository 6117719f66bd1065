"""How a policy may be served: open to strangers never, and nothing that drops frames unasked."""

import logging

import msgspec
import pytest

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.adapters.serving import (
    DialectOptions,
    ServeOptions,
    cameras_from_arguments,
    infer_every,
    token_from_file,
)
from memorywam_runtime.errors import InputError

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_needs_no_token(host):
    assert ServeOptions(host=host).admits(None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "robot.local", "localhost.evil"])
def test_any_other_needs_one(host):
    with pytest.raises(InputError, match="whoever reaches this port moves the robot"):
        ServeOptions(host=host)
    assert not ServeOptions(host=host, token=TOKEN).admits(None)
    assert ServeOptions(host=host, token=TOKEN).admits(f"Api-Key {TOKEN}")


@pytest.mark.parametrize("header", [None, "", TOKEN, f"Bearer {TOKEN}", f"Api-Key {TOKEN}x", "é"])
def test_other_headers(header):
    assert not ServeOptions(token=TOKEN).admits(header)


@pytest.mark.parametrize(
    "change",
    [{"port": -1}, {"port": 65536}, {"request_timeout_s": 0}, {"idle_timeout_s": -1},
     {"ping_interval_s": 0}],
)  # fmt: skip
def test_numbers_that_are_refused(change):
    with pytest.raises(InputError, match="expected"):
        ServeOptions(**change)


def test_a_token_in_a_file(tmp_path, caplog):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    assert token_from_file(path) == TOKEN
    assert not caplog.text
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        token_from_file(path)
    assert "can be read by others" in caplog.text


@pytest.mark.parametrize(
    "text", ["", "short", "two words that are long", "ü" * 20, "a" * 20 + "\x07"]
)
def test_a_file_without_a_token(tmp_path, text):
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(InputError, match="--token-file"):
        token_from_file(path)
    with pytest.raises(InputError, match="No such file"):
        token_from_file(tmp_path / "missing")


def test_cameras():
    assert cameras_from_arguments(["a=head", "b="]) == {"a": "head", "b": ""}
    for wrong in (["head"], ["=head"], ["a=head", "a=left_wrist"]):
        with pytest.raises(InputError, match="expected WIRE=NAME"):
            cameras_from_arguments(wrong)


@pytest.mark.parametrize(("asked", "found"), [(0, 4), (1, 1), (2, 2), (4, 4)])
def test_infer_every(asked, found):
    assert infer_every(DialectOptions(infer_every=asked), contract_from_preset("tiny")) == found


@pytest.mark.parametrize("asked", [-1, 3, 5, 32])
def test_steps_that_no_frame_is_made_of(asked):
    with pytest.raises(InputError, match="expected a divisor of 16"):
        infer_every(DialectOptions(infer_every=asked), contract_from_preset("tiny"))


def test_clients_that_drop_frames():
    tiny = contract_from_preset("tiny")
    with pytest.raises(InputError, match=r"drop 3 of 4 observations .* infer every 4 steps"):
        infer_every(DialectOptions(infer_every=16), tiny)
    assert infer_every(DialectOptions(infer_every=16, repeats_missing=True), tiny) == 16


def test_a_policy_without_memory_is_asked_when_its_chunk_is_over():
    contract = contract_from_preset("tiny-fastwam")
    horizon = contract.actions.horizon
    assert infer_every(DialectOptions(), contract) == horizon
    with pytest.raises(InputError, match=f"expected 1 to {horizon}"):
        infer_every(DialectOptions(infer_every=horizon + 1), contract)


def test_a_chunk_that_ends_before_the_frame():
    tiny = contract_from_preset("tiny")
    actions = msgspec.structs.replace(tiny.actions, horizon=8)
    short = msgspec.structs.replace(tiny, actions=actions)
    with pytest.raises(InputError, match="a chunk has 8 actions"):
        infer_every(DialectOptions(), short)


def test_a_word_that_is_none():
    options = DialectOptions(on_prompt_change="perhaps")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected one of refuse, reset, keep"):
        infer_every(options, contract_from_preset("tiny"))
