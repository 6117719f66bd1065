"""Replay sees every linear map at the chosen frames, on the sampler's own path, and no other."""

import copy
import shutil

import msgspec
import numpy as np
import pytest
import torch
from tests.fakes.episodes import contract_with, identity, random_model

from memorywam_calibration.calibrate import Options, planned
from memorywam_calibration.episodes.episodes import Episode
from memorywam_calibration.episodes.frames import frames_of
from memorywam_calibration.episodes.samples import chosen_samples, fill_cells
from memorywam_calibration.episodes.survey import surveyed
from memorywam_calibration.replay.activations import Activations
from memorywam_calibration.replay.listener import linear_maps
from memorywam_calibration.replay.replay import policy_from_bundle, replayed
from memorywam_calibration.scales.plateau import nested_bounds, scale_change, whole
from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_export.eager.eager import eager_session
from memorywam_runtime.contract import Conventions, MemorySizes
from memorywam_runtime.digest import memory_digest
from memorywam_runtime.errors import InputError
from memorywam_runtime.opening import Opening, opened
from memorywam_runtime.policy import Policy
from memorywam_runtime.recording import open_recording


def with_memory(contract, **sizes):
    memory = msgspec.structs.replace(contract.memory, **sizes)
    return msgspec.structs.replace(contract, memory=memory)


CONTRACTS = {
    "action history": contract_with(action_history=True),
    "single frame": msgspec.structs.replace(
        contract_from_preset("tiny"),
        memory=MemorySizes(num_anchors=0, num_recent=1, num_gists=0),
        conventions=Conventions(text_len=5, num_steps=3, vae_history="single_frame"),
    ),
    "state in the video": contract_with(proprio_in_video_context=True, vae_history="windowed"),
    "bfloat16": contract_from_preset("tiny"),
    "no gist": with_memory(contract_from_preset("tiny"), num_gists=0),
}


@pytest.fixture(scope="module")
def plan(tiny_bundle, recordings):
    return planned(tiny_bundle, recordings, Options(num_samples=12), lambda _: None)


@pytest.fixture(scope="module")
def policy(tiny_bundle):
    return policy_from_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def found(policy, plan):
    (one,) = replayed(policy, plan.surveys, plan.samples)
    return one


def test_every_map_of_a_block_is_seen(found, plan):
    depth = plan.manifest.contract.num_layers
    for expert, graph in (("action", "action_step"), ("video", "cache_update")):
        for layer in range(depth - (expert == "video")):  # the last makes keys and values alone
            block = f"{graph}/mixtures.{expert}.blocks.{layer}"
            parts = [f"self_attn.{part}" for part in "qkvo"] + ["cross_attn.q", "cross_attn.o"]
            for part in (*parts, "ffn.0", "ffn.2"):
                assert found.sites[f"{block}.{part}:input"].num_rows, part
    assert {f"memory.{layer:02d}.{part}" for layer in range(depth) for part in "kv"} <= set(
        found.sites
    )
    assert "action_step/mixtures.action.head:input" in found.sites
    texts = {site for site in found.sites if "cross_attn.k" in site or "cross_attn.v" in site}
    assert texts == {
        f"state_kv/mixtures.action.blocks.{layer}.cross_attn.{part}:input"
        for layer in range(depth)
        for part in "kv"
    }
    state = found.sites["state_kv/mixtures.action.blocks.0.cross_attn.k:input"]
    assert state.num_rows == len(plan.samples)
    assert set(state.peaks) == {"state"}


def test_rows_are_those_of_the_chosen_frames(found, plan):
    contract, count = plan.manifest.contract, len(plan.samples)
    steps, horizon = contract.conventions.num_steps, contract.actions.horizon
    assert found.samples == set(plan.samples)
    video = found.sites["cache_update/mixtures.video.blocks.0.ffn.0:input"]
    assert video.num_rows == count * contract.num_frame_tokens
    assert set(video.peaks) == {"anchor", "recent", "gist"}
    action = found.sites["action_step/mixtures.action.blocks.0.ffn.0:input"]
    assert action.num_rows == count * steps * horizon
    assert set(action.peaks) == {f"step/{step:02d}" for step in range(steps)}
    assert {cell: found.counts[cell] for cell in action.peaks} == dict.fromkeys(action.peaks, count)
    assert found.sites["memory.00.k"].num_rows == count * contract.num_frame_tokens


def test_steps_differ_because_the_path_is_walked(found):
    encoder = found.sites["action_step/mixtures.action.action_encoder:input"]
    assert len(set(encoder.peaks.values())) == len(encoder.peaks)


def test_parts_in_any_order_are_the_whole(policy, plan, found):
    bounds = nested_bounds(len(plan.samples), 3)
    assert bounds == [3, 6]
    told: list[str] = []
    parts = replayed(policy, plan.surveys[::-1], plan.samples, bounds=bounds, tell=told.append)
    count = len({sample.episode for sample in plan.samples})
    assert told[-1].endswith(f", {count} of {count} episodes")
    assert len(told) == count
    assert [len(part.samples) for part in parts] == [3, 3, 6]
    assert whole(parts).to_bytes() == whole(parts[::-1]).to_bytes() == found.to_bytes()
    with pytest.raises(InputError, match="in both parts; expected each decision point once"):
        parts[0].merged(found)


def test_memory_is_that_of_the_robot(tiny_bundle, plan):
    (survey, *_) = (one for one in plan.surveys if one.episode.name == plan.samples[0].episode)
    listened = policy_from_bundle(tiny_bundle)
    points = [one for one in plan.samples if one.episode == survey.episode.name]
    replayed(listened, [survey], points)
    plain = Policy(opened(tiny_bundle, Opening(backend="eager")))
    plain.reset(survey.instruction)
    last = max(one.frame for one in points)
    for frame in frames_of(survey.episode.recording, plain.contract):
        plain.remember(frame.observations)
        if frame.number == last:
            plain.act(frame.state)
            break
    assert memory_digest(plain.session) == memory_digest(listened.session)


def test_hooks_are_taken_down(policy, plan, found):
    replayed(policy, plan.surveys, plan.samples[:1])
    for module in linear_maps(policy.session, "action_step").values():
        assert not module._forward_pre_hooks
    assert found.samples == set(plan.samples)


def test_only_torch_shows_its_inside(tiny_bundle, plan):
    with pytest.raises(InputError, match="on the backend 'ort'; expected 'eager'"):
        replayed(Policy(opened(tiny_bundle, Opening())), plan.surveys, plan.samples)


def test_weights_that_are_not_finite_are_named(tiny_bundle, plan, tmp_path):
    copy = shutil.copytree(tiny_bundle, tmp_path / "copy")
    policy = policy_from_bundle(copy)
    module = linear_maps(policy.session, "cache_update")["mixtures.video.blocks.0.ffn.0"]
    with torch.no_grad():
        module.weight[0, 0] = float("nan")
    with pytest.raises(
        InputError,
        match=r"\.mcap, frame \d+: cache_update/mixtures\.video\.blocks\.0\.ffn\.2:input",
    ):
        replayed(policy, plan.surveys, plan.samples)


def test_nothing_is_kept_of_what_was_not_flushed():
    waiting = Activations()
    waiting.add("a", np.ones((2, 3)), "gist")
    assert waiting.sites["a"].num_rows == 0
    waiting.flush()
    waiting.flush()
    assert waiting.sites["a"].num_rows == 2
    assert waiting.sites["a"].peaks == {"gist": 1.0}


def test_changes_are_relative_to_the_later():
    assert scale_change({"a": 1.0}, {"a": 2.0, "b": 3.0}) == {"a": 0.5, "b": 1.0}


@pytest.mark.parametrize("cache_write", ["in_place", "copy"])
@pytest.mark.parametrize(
    "kind", ["action history", "single frame", "state in the video", "no gist"]
)
def test_every_kind_of_contract_is_replayed(kind, cache_write, writer, tmp_path, monkeypatch):
    contract = CONTRACTS[kind]
    model = random_model(contract, torch.bfloat16 if kind == "bfloat16" else torch.float32)
    session = eager_session(model, identity(contract), cache_write=cache_write)
    policy = Policy(session)
    nothing = {spec.name: spec.zeros() for spec in session.manifest.graphs["prompt_kv"].outputs}
    monkeypatch.setattr(policy, "_text", lambda _: nothing)
    own = copy.copy(writer)
    own.contract = contract
    surveys = []
    for seed in range(2):
        recording = open_recording(own.write(tmp_path, f"{seed}", 8, seed=seed))
        episode = Episode(name=f"{seed}", sha256="", split="calibration", recording=recording)
        surveys += surveyed([episode], contract)
    samples = chosen_samples(surveys, fill_cells(contract, 64), 8)
    (found,) = replayed(policy, surveys, samples)
    assert found.samples == set(samples)
    assert len(samples) == 8
    steps = contract.conventions.num_steps
    assert all(found.counts[f"step/{step:02d}"] == 8 for step in range(steps))
    assert f"step/{steps:02d}" not in found.counts
    peaks = found.sites["action_step/mixtures.action.blocks.0.ffn.0:input"].peaks
    assert ("executed" in peaks) == (kind == "action history")
    assert ("gist" in found.sites["memory.00.v"].peaks) == (contract.memory.num_gists > 0)
    fills = {cell for cell in found.counts if cell.startswith("frames/")}
    assert (fills == {"frames/1"}) == (kind == "single frame")
