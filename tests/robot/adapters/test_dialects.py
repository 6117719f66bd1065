"""Four dialects on one port: told apart by shape, and each gives what the policy gives."""

import numpy as np
import pytest
from tests.fakes.policy_server import joints, observation, pictures

from memorywam_robot.adapters.dialects import PolicyService, dialect_from_message, is_epoch_begin
from memorywam_robot.adapters.serving import DialectOptions
from memorywam_runtime.errors import InputError


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"type": "frame", "state": 0, "images": 0}, "memorywam"),
        ({"add_buffer": True, "images": 0, "state": 0}, "robomme"),
        ({"obs": {}, "prompt": "a"}, "lingbot-va"),
        ({"obs": [], "compute_kv_cache": True, "state": 0}, "lingbot-va"),
        ({"state": 0, "images": 0}, "openpi"),
        ({"observation/state": 0}, "openpi"),
    ],
)
def test_a_dialect_by_its_shape(message, expected):
    assert dialect_from_message(message) == expected


@pytest.mark.parametrize(
    "message", [{}, {"prompt": "a"}, {"type": "frame", "obs": {}}, {"obs": 0, "add_buffer": 1}]
)
def test_no_shape_or_two(message):
    with pytest.raises(InputError, match="expected `type`"):
        dialect_from_message(message)


def test_a_joint_state_by_other_keys():
    keys = ("observation/joint_position", "observation/gripper_position")
    assert dialect_from_message({keys[0]: 0}, keys) == "openpi"
    with pytest.raises(InputError, match="observation/joint_position"):
        dialect_from_message({"state": 0}, keys)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"reset": True}, True),
        ({"reset": True, "prompt": "a"}, True),
        ({"reset": False}, False),
        ({"reset": True, "obs": {}}, False),
        ({"type": "episode", "op": "begin"}, True),
        ({"type": "episode", "op": "end"}, True),
        ({"type": "episode", "op": "restore"}, True),
        ({"type": "episode", "op": "set_instruction"}, True),
        ({"type": "episode", "op": "snapshot"}, False),
        ({"type": "chunk"}, False),
        (3, False),
    ],
)
def test_what_begins_an_epoch(message, expected):
    assert is_epoch_begin(message) is expected


def test_one_dialect_an_episode(talked, direct_policy):
    contract = direct_policy.contract
    ask = talked()
    ask(plain(contract, 0))
    with pytest.raises(InputError, match="a message of lingbot-va in an episode of openpi"):
        ask(lingbot(contract, [0]))
    ask({"reset": True})
    assert "action" in ask(lingbot(contract, [0]))


def plain(contract, step, prompt="random"):
    shown = {"images": pictures(contract, step), "state": joints(contract, step)}
    return shown | ({"prompt": prompt} if prompt else {})


# LingBot-VA


def lingbot(contract, steps, *, prompt="random"):
    """Its client's messages, word for word; one step: a request for actions."""
    names = {"head": "cam_high", "left_wrist": "cam_left_wrist", "right_wrist": "cam_right_wrist"}
    shown = [
        {
            f"observation.images.{names[name]}": image
            for name, image in pictures(contract, s).items()
        }
        | {"observation.state": joints(contract, s), "task": prompt}
        for s in steps
    ]
    if len(steps) == 1:
        return {"obs": shown[0], "prompt": prompt, "save_visualization": False}
    return {
        "obs": shown,
        "compute_kv_cache": True,
        "imagine": False,
        "state": np.zeros((14, 1, 16)),
    }


def test_lingbot_bit_for_bit(talked, direct_policy, chunks):
    contract = direct_policy.contract
    ask = talked()
    ask({"reset": True, "prompt": "random", "seed": 0, "save_visualization": False})
    for number, expected in enumerate(chunks):
        # Its client sends the first observation ever again.
        action = ask(lingbot(contract, [0]))["action"]
        assert action.shape == (14, 2 if number == 0 else 1, 16)
        assert np.array_equal(action[:, -1].T, expected)
        if number == 0:  # skipped by its client, harmless to another: where the first one goes
            assert np.array_equal(action[:, 0].T, np.repeat(expected[:1], 16, axis=0))
        steps = [16 * number + step for step in (4, 8, 12, 16)]
        memory = ask(lingbot(contract, steps))["memory"]
        assert memory["frames_seen"] == memory["frames_expected"] == 5 + 4 * number


def test_lingbot_frames_that_are_missing(talked, direct_policy):
    contract = direct_policy.contract
    ask = talked()
    with pytest.raises(InputError, match="before the first request for actions"):
        ask(lingbot(contract, [4, 8, 12, 16]))
    ask({"reset": True})
    ask(lingbot(contract, [0]))
    with pytest.raises(InputError, match="a second request for actions after frame 0"):
        ask(lingbot(contract, [0]))
    with pytest.raises(InputError, match=r"found 3 observations for frame 1; expected 4 maps, of"):
        ask(lingbot(contract, [4, 8, 12]))
    with pytest.raises(InputError, match="found imagine: true"):
        ask(lingbot(contract, [4, 8, 12, 16]) | {"imagine": True})
    broken = lingbot(contract, [4, 8, 12, 16])
    broken["obs"][2]["observation.state"] = np.zeros(3)
    with pytest.raises(InputError, match="joint state"):
        ask(broken)
    # All or nothing: the first two of the broken four were not taken either.
    assert ask(lingbot(contract, [4, 8, 12, 16]))["memory"]["memory_version"] == 2


def test_lingbot_executed_actions(scripted):
    import msgspec

    from memorywam_export.checkpoints.presets import contract_from_preset

    tiny = contract_from_preset("tiny")
    conventions = msgspec.structs.replace(tiny.conventions, action_history=True)
    contract = msgspec.structs.replace(tiny, conventions=conventions)
    policy = scripted(lambda *_: np.zeros((16, 14)), contract)
    ask = PolicyService(policy).conversation().answer
    ask(lingbot(contract, [0]), 0)
    executed = np.arange(14 * 2 * 16, dtype=np.float64).reshape(14, 2, 16)
    ask(lingbot(contract, [4, 8, 12, 16]) | {"state": executed}, 0)
    assert np.array_equal(policy.executed[1], executed[:, 1].T)
    ask(lingbot(contract, [0]), 0)
    with pytest.raises(InputError, match="without the actions"):
        ask(lingbot(contract, [20, 24, 28, 32]) | {"state": None}, 0)


# RoboMME


def robomme(contract, steps, **more):
    """Its client's buffer: every step's images [T, V, H, W, 3], in the contract's order."""
    images = np.array([list(pictures(contract, step).values()) for step in steps])
    states = np.array([joints(contract, step) for step in steps])
    return {"add_buffer": True, "images": images, "state": states, "exec_start_idx": 0} | more


def robomme_infer(contract, step, prompt="random"):
    return {
        "observation/image": pictures(contract, step)["head"],
        "observation/wrist_image": pictures(contract, step)["left_wrist"],
        "observation/state": joints(contract, step),
        "prompt": prompt,
    }


@pytest.mark.parametrize("says_prompt", [False, True], ids=["prompt last", "prompt first"])
def test_robomme_bit_for_bit(talked, direct_policy, chunks, says_prompt):
    """Its client buffers before it says what is to be done; then the images wait."""
    contract = direct_policy.contract
    ask = talked()
    assert ask({"reset": True})["reset_time_ms"] >= 0
    first = robomme(contract, [0]) | ({"prompt": "random"} if says_prompt else {})
    assert ask(first)["add_buffer_finished"]
    for number, expected in enumerate(chunks):
        actions = ask(robomme_infer(contract, 16 * number))["actions"]
        assert np.array_equal(actions, expected)
        memory = ask(robomme(contract, range(16 * number + 1, 16 * number + 17)))["memory"]
        assert memory["frames_seen"] == memory["frames_expected"] == 5 + 4 * number


def test_robomme_a_demonstration_first(talked, direct_policy, chunks):
    """Steps like any other: the first action follows the frame that the video ends with."""
    contract = direct_policy.contract
    direct_policy.reset("random", seed=0)
    direct_policy.remember([observation(contract, 0)])
    direct_policy.remember([observation(contract, step) for step in (4, 8, 12, 16)])
    expected = direct_policy.act(joints(contract, 16))
    ask = talked()
    ask(robomme(contract, range(17), exec_start_idx=16))
    assert np.array_equal(ask(robomme_infer(contract, 16))["actions"], expected)


def test_robomme_what_is_refused(talked, direct_policy):
    contract = direct_policy.contract
    ask = talked()
    with pytest.raises(InputError, match=r"found images \[1, 2, 12, 16, 3\]; expected \[T, 3, H"):
        ask(robomme(contract, [0], images=np.zeros((1, 2, 12, 16, 3), np.uint8)))
    with pytest.raises(InputError, match=r"expected uint8 \[T, V, H, W, 3\]"):
        ask(robomme(contract, [0], images=np.zeros((1, 3, 12, 16, 3), np.float32)))
    with pytest.raises(InputError, match=r"found no state \[1, D\]"):
        ask(robomme(contract, [0], state=np.zeros((2, 14))))
    with pytest.raises(InputError, match="found exec_start_idx 2"):
        ask(robomme(contract, [0], exec_start_idx=2))
    ask(robomme(contract, [0]))
    ask(robomme_infer(contract, 0))
    with pytest.raises(InputError, match="nothing buffered since the last"):
        ask(robomme_infer(contract, 0))
    assert ask(robomme(contract, [1, 2]))["memory"]["frames_seen"] == 1


def test_robomme_waits_for_a_prompt_only_so_long(talked, direct_policy, monkeypatch):
    from memorywam_robot.adapters import dialects_robomme

    contract = direct_policy.contract
    monkeypatch.setattr(dialects_robomme, "_MOST_PENDING_BYTES", 4 * 3 * 12 * 16 * 3)
    ask = talked()
    ask(robomme(contract, range(16)))  # four of them are on the grid
    with pytest.raises(InputError, match="images before a prompt"):
        ask(robomme(contract, range(16, 17)))


# Plain


def test_a_client_that_sends_no_prompt(talked, direct_policy):
    message = plain(direct_policy.contract, 0, prompt="")
    with pytest.raises(InputError, match="found no prompt"):
        talked()(message)
    reply = talked(DialectOptions(instruction="random"))(message)
    assert reply["memory"]["frames_seen"] == 1


def test_a_reset_without_a_prompt_ends_the_episode(talked, direct_policy):
    contract = direct_policy.contract
    ask = talked()
    ask(plain(contract, 0))
    assert ask({"reset": True})["memory"]["memory_version"] == 0
    assert ask(plain(contract, 0))["memory"]["frames_seen"] == 1


def test_a_step_that_skips_the_rest_of_the_chunk(talked, direct_policy):
    """Off the grid and after the chunk's end: found, whatever the client thinks."""
    contract = direct_policy.contract
    ask = talked()
    ask(plain(contract, 0))
    ask(plain(contract, 4) | {"step": 2})
    with pytest.raises(InputError, match="none of steps"):
        ask(plain(contract, 16) | {"step": 16})
