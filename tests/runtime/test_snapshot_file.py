"""A snapshot in a file: taken over by another process bit for bit, or refused."""

import hashlib
import inspect
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from tests.fakes.bundles import copy_of, differences, observations_at
from tests.fakes.driver import live

from memorywam_runtime.bundle import open_bundle
from memorywam_runtime.errors import InputError
from memorywam_runtime.files import sha256_of
from memorywam_runtime.observation import Observation
from memorywam_runtime.policy import Policy
from memorywam_runtime.snapshot_file import restore_from_file, save_to_file

# What another process runs, where everything that this one knew is gone, as after a crash.
HEAD = """
import hashlib
import sys
from pathlib import Path
import numpy as np
from memorywam_runtime.bundle import open_bundle
from memorywam_runtime.observation import Observation
from memorywam_runtime.policy import Policy
from memorywam_runtime.snapshot_file import restore_from_file

"""
GOES_ON = """
policy = Policy(open_bundle(sys.argv[1], num_threads=1))
restore_from_file(policy, Path(sys.argv[2]))
assert policy.instruction == "random" and policy.num_frames == 4
assert not {"torch", "onnx"} & set(sys.modules)
print(chunks(policy, 3))
"""


def chunks(policy, count):
    digest = hashlib.sha256()
    for _ in range(count):
        group = []
        for step in policy.expected_steps():
            image = np.full((24, 20, 3), step % 251, np.uint8)
            images = dict.fromkeys(policy.contract.observations.cameras, image)
            group.append(Observation(images=images, state=np.full(14, step / 99), step=step))
        policy.remember(group)
        digest.update(policy.act(group[-1].state).tobytes())
    return digest.hexdigest()


@pytest.fixture
def new(tiny_bundle):
    def make():
        policy = Policy(open_bundle(tiny_bundle, num_threads=1))
        policy.reset("random", seed=5)
        return policy

    return make


@pytest.fixture
def saved(new, tmp_path):
    """A policy of four frames, and the file that it was saved to."""
    policy = new()
    live(policy, 4)
    path = tmp_path / "task.snapshot"
    save_to_file(policy, path)
    return policy, path


def test_another_process_goes_on_bit_for_bit(saved, tiny_bundle):
    policy, path = saved
    program = HEAD + inspect.getsource(chunks) + GOES_ON
    done = subprocess.run(
        [sys.executable, "-c", program, str(tiny_bundle), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == chunks(policy, 3)


def test_everything_comes_back(saved, new, tmp_path):
    policy, path = saved
    other = new()
    live(other, 2, seed=3)
    restore_from_file(other, path)
    assert differences(other.snapshot(), policy.snapshot()) == []
    save_to_file(other, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_every_type_comes_back(a_rung, tmp_path):
    """Of every rung, narrow types among them."""
    policy, other = Policy(a_rung.session(3, 8, 64)), Policy(a_rung.session(3, 8, 64))
    policy.reset("random")
    live(policy, 4)
    save_to_file(policy, tmp_path / "snapshot")
    restore_from_file(other, tmp_path / "snapshot")
    assert differences(other.snapshot(), policy.snapshot()) == []


def test_others_can_read_it(saved):
    safetensors = pytest.importorskip("safetensors.numpy")
    policy, path = saved
    found = safetensors.load_file(path)
    arrays = policy.snapshot().session.arrays
    assert set(found) == set(arrays)
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())


def test_weights_of_another_checkpoint_are_refused(saved, tiny_bundle, tmp_path):
    """The contract is the same, so nothing but the hash of the weights can tell."""
    _, path = saved
    bundle = copy_of(tiny_bundle, tmp_path)
    weights = bundle / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    manifest["files"]["weights.safetensors"]["sha256"] = sha256_of(weights)
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    other = Policy(open_bundle(bundle, num_threads=1))
    before = other.snapshot()
    with pytest.raises(InputError, match="open the bundle that it was saved with"):
        restore_from_file(other, path)
    assert differences(other.snapshot(), before) == []


@pytest.mark.parametrize("place", [0, 3, 9, 60, 400, -1, -5000])
def test_one_bit_is_enough_to_refuse_it(saved, new, place):
    _, path = saved
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    policy = new()
    before = policy.snapshot()
    with pytest.raises(InputError, match="no snapshot that can be taken over"):
        restore_from_file(policy, path)
    assert differences(policy.snapshot(), before) == []


def test_tensors_that_changed_places_are_refused(saved, new):
    """Every byte of the data is right, and so is every shape."""
    _, path = saved
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    first, second = header["memory.00.k"], header["memory.00.v"]
    places = (second["data_offsets"], first["data_offsets"])
    first["data_offsets"], second["data_offsets"] = places
    changed = json.dumps(header).encode()
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + size :])
    with pytest.raises(InputError, match="another hash than it says"):
        restore_from_file(new(), path)


@pytest.mark.parametrize("kept", [0, 7, 8, 100, 20_000])
def test_a_part_of_it_is_refused(saved, new, kept):
    _, path = saved
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="no snapshot that can be taken over"):
        restore_from_file(new(), path)


@pytest.mark.parametrize("header", [b"[]", b"{}", b"null", b'{"__metadata__": 1}', b"[" * 99_999])
def test_what_is_no_snapshot_is_refused(new, tmp_path, header):
    path = tmp_path / "other"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(InputError, match="no snapshot that can be taken over"):
        restore_from_file(new(), path)


def test_no_file_and_no_folder_are_told(saved, new, tmp_path):
    policy, _ = saved
    with pytest.raises(InputError, match="no snapshot that can be taken over"):
        restore_from_file(new(), tmp_path / "absent")
    with pytest.raises(InputError, match="is not a directory"):
        save_to_file(policy, tmp_path / "absent" / "file")


def test_a_pipe_is_not_waited_for(new, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is a directory, pipe or device"):
        restore_from_file(new(), tmp_path / "pipe")


def test_a_frame_that_is_incomplete_leaves_the_old_file(saved):
    policy, path = saved
    before = path.read_bytes()
    policy.see(observations_at(policy.contract, policy.expected_steps())[0])
    with pytest.raises(InputError, match="forget"):
        save_to_file(policy, path)
    assert path.read_bytes() == before
