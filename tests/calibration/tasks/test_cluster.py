"""On a cluster the same table, byte for byte, whoever does the work and whoever is lost."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import msgspec
import psutil  # type: ignore[import-untyped]
import pytest
from tests.fakes.programs import ended, shards_of, started, until

from memorywam_calibration.calibrate import Options, planned
from memorywam_calibration.tasks import cluster
from memorywam_calibration.tasks.cluster import check_cluster
from memorywam_calibration.tasks.shards import shard_from_bytes
from memorywam_calibration.tasks.tasks import Replay, done_elsewhere, episode_tasks
from memorywam_runtime.errors import DeviceError, InputError
from memorywam_runtime.scale_table import scale_table_to_json

OPTIONS = Options(num_samples=16)
GRAM_SITES = ("action_step/mixtures.action.blocks.1.ffn.0:input",)
BUSY = "ray::_answer"
"""What a worker calls itself while it has a task."""


@pytest.fixture
def whole(calibration):
    """The table of one process."""
    return scale_table_to_json(calibration.table)


@pytest.fixture
def words(tiny_bundle, recordings, tmp_path):
    out = tmp_path / "table.json"
    return ("calibrate", tiny_bundle, "--recordings", recordings, "--out", out, "--samples", "16")


@pytest.fixture(scope="module")
def tasks(tiny_bundle, recordings):
    plan = planned(tiny_bundle, recordings, OPTIONS, lambda _: None)
    replay = Replay(
        bundle=tiny_bundle,
        manifest=plan.manifest,
        recipe="int8",
        seed=0,
        cameras={},
        num_threads=1,
        gram_sites=GRAM_SITES,
    )
    return episode_tasks(replay, plan.surveys, plan.samples, [8])


def busy_workers(root: int) -> list[psutil.Process]:
    """Return the processes below one that have a task of Ray's."""
    found = []
    for one in psutil.Process(root).children(recursive=True):
        try:
            title = one.cmdline()
        except psutil.Error:
            continue
        if title and title[0].startswith(BUSY):
            found.append(one)
    return found


def is_alive(process: psutil.Process) -> bool:
    """Does a process still do anything? Those that nobody asked about stay as names."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def addresses_of(root: int) -> set[str]:
    """Return where the processes below one listen."""
    below = {one.pid for one in psutil.Process(root).children(recursive=True)}
    return {
        one.laddr[0]
        for one in psutil.net_connections("tcp")
        if one.laddr and one.pid in below and one.status == psutil.CONN_LISTEN
    }


@pytest.mark.proof
@pytest.mark.timeout(180)
def test_a_local_cluster_gives_the_same_table(words, whole, tmp_path):
    pytest.importorskip("ray", reason="needs the extra memorywam[cluster]")
    home = tmp_path / "home"
    home.mkdir()
    process = started(*words, "--cluster", "local", HOME=str(home))
    until(process, lambda: busy_workers(process.pid))
    listening = addresses_of(process.pid)
    status, said = ended(process)
    assert status == 0, said
    assert (tmp_path / "table.json").read_bytes() == whole
    assert listening
    assert all("127.0.0.1" in one or one == "::1" for one in listening)
    assert not (home / ".ray").exists()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["home", "table.json"]


def test_a_task_is_all_that_another_process_needs(tasks):
    sent = msgspec.json.decode(msgspec.json.encode(tasks[0]), type=type(tasks[0]))
    key, parts = shard_from_bytes(done_elsewhere(sent), "here")
    assert key == tasks[0].key
    assert {one.frame for part in parts for one in part.samples} == {
        point.frame for point in key.points
    }
    assert {site for part in parts for site in part.grams} == set(GRAM_SITES)


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("versions", {"torch": "0.1"}, "torch .* for 0.1.*install the same there"),
        ("manifest_sha256", "0" * 64, "found another content at .*manifest.json"),
        ("recording_sha256", "0" * 64, r"found another content at .*\.mcap"),
    ],
)
def test_another_machines_files_and_versions_are_refused(field, value, complaint, tasks):
    key = msgspec.structs.replace(tasks[0].key, **{field: value})
    with pytest.raises(InputError, match=complaint):
        done_elsewhere(msgspec.structs.replace(tasks[0], key=key))


def test_a_recording_that_is_not_there_is_refused(tasks):
    with pytest.raises(InputError, match=r"found nothing at /nowhere\.mcap"):
        done_elsewhere(msgspec.structs.replace(tasks[0], recording="/nowhere.mcap"))


def test_what_a_task_refuses_comes_back_as_text(tasks):
    task = msgspec.structs.replace(tasks[0], recording="/nowhere.mcap")
    answer = cluster._answer(msgspec.json.encode(task))
    assert answer.startswith(b"-")
    assert b"found nothing at /nowhere.mcap" in answer


class FakeRay:
    """What is used of Ray to fetch an answer: it has none, but an error."""

    class exceptions:  # noqa: N801 - Ray's name
        RayError = type("RayError", (Exception,), {})
        RayTaskError = type("RayTaskError", (RayError,), {})

    def __init__(self, name, text):
        self.error = getattr(self.exceptions, name)(text)

    def get(self, _):
        raise self.error


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("RayError", "The worker died.\nLogs", r"after 5 more tries \(The worker died\.\);"),
        ("RayError", "", r"after 5 more tries \(RayError\); .* go on with --resume"),
        ("RayTaskError", "ray::_answer\nModuleNotFoundError: x", r"\(ModuleNotFoundError: x\)"),
    ],
)
def test_a_worker_that_cannot_do_it_is_told(name, text, complaint, tasks):
    with pytest.raises(DeviceError, match=complaint):
        cluster._shard(FakeRay(name, text), None, tasks[0])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "address", ["", "auto", "ray://host:10001", "host", "host:", ":6379", "host:port", "a/b:1"]
)
def test_no_address_is_refused(address):
    with pytest.raises(InputError, match="expected 'local', or HOST:PORT"):
        check_cluster(address)


def test_no_cluster_at_an_address_is_refused_at_once():
    pytest.importorskip("ray", reason="needs the extra memorywam[cluster]")
    with socket.socket() as one:  # bound, and nobody listens
        one.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{one.getsockname()[1]}"
        with pytest.raises(InputError, match=f"--cluster {address}: no cluster answers"):
            check_cluster(address)


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'memorywam\[cluster\]'"):
        check_cluster("local")


def test_variables_are_put_back(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "mine")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with cluster._environment(cluster._local_variables()):
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert os.environ["RAY_AUTH_MODE"] == "mine"
    assert "RAY_AUTH_TOKEN" not in os.environ


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_a_killed_worker_loses_nothing(words, whole, tmp_path):
    pytest.importorskip("ray", reason="needs the extra memorywam[cluster]")
    process = started(*words, "--cluster", "local")
    until(process, lambda: busy_workers(process.pid))
    first = busy_workers(process.pid)
    for one in first:
        one.kill()
    until(process, lambda: {one.pid for one in busy_workers(process.pid)} - {p.pid for p in first})
    status, said = ended(process)
    assert status == 0, said
    assert (tmp_path / "table.json").read_bytes() == whole


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_a_killed_driver_goes_on(words, whole, tmp_path):
    pytest.importorskip("ray", reason="needs the extra memorywam[cluster]")
    out = tmp_path / "table.json"
    process = started(*words, "--cluster", "local")
    until(process, lambda: shards_of(out))
    below = psutil.Process(process.pid).children(recursive=True)
    folders = {
        found for one in below for found in re.findall(r"/tmp/mw-ray-\w+", " ".join(one.cmdline()))
    }
    process.kill()
    ended(process)
    # Two idle agents of Ray's end after a minute, by themselves; all that computes does so now.
    below = [one for one in below if is_alive(one) and "Agent" not in one.cmdline()[0]]
    deadline_s = time.monotonic() + 20
    while any(is_alive(one) for one in below):
        assert time.monotonic() < deadline_s, "workers outlive the process that started them"
        time.sleep(0.1)
    for folder in folders:  # nobody was left to do it
        shutil.rmtree(folder, ignore_errors=True)
    assert not out.exists()
    assert shards_of(out)
    status, said = ended(started(*words, "--resume"))
    assert status == 0, said
    assert "episodes were replayed before" in said
    assert out.read_bytes() == whole


@pytest.fixture
def two_raylets() -> Iterator[tuple[str, dict[str, str], list[subprocess.Popen[bytes]]]]:
    """A cluster of two machines, as far as Ray can tell; its address, variables and processes."""
    pytest.importorskip("ray", reason="needs the extra memorywam[cluster]")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{one.getsockname()[1]}"
    variables = cluster._local_variables() | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
    }
    with tempfile.TemporaryDirectory(
        prefix="mw-ray-", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
        head = ["--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false",
                f"--temp-dir={folder}"]  # fmt: skip
        nodes: list[subprocess.Popen[bytes]] = []
        try:
            for place in (head, [f"--address={address}"]):
                node = subprocess.Popen(
                    [*ray, "--node-ip-address=127.0.0.1", *place],
                    env=os.environ | variables,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                nodes.append(node)
                until_raylet(node)
            yield address, variables, nodes
        finally:
            for node in nodes[::-1]:
                below = psutil.Process(node.pid).children(recursive=True)
                node.send_signal(signal.SIGTERM)
                node.wait(60)
                for process in psutil.wait_procs(below, timeout=20)[1]:
                    process.kill()


def until_raylet(node: subprocess.Popen[bytes]) -> None:
    """Wait until a node's raylet has started its first worker."""

    def is_up() -> bool:
        names = [one.name() for one in psutil.Process(node.pid).children(recursive=True)]
        return any(name.startswith("ray::") for name in names)

    until(node, is_up)


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_two_raylets_give_the_same_table(two_raylets, words, whole, tmp_path):
    address, variables, nodes = two_raylets
    process = started(*words, "--cluster", address, **variables)
    until(process, lambda: all(busy_workers(node.pid) for node in nodes))
    for one in busy_workers(nodes[1].pid):
        one.kill()
    status, said = ended(process)
    assert status == 0, said
    assert (tmp_path / "table.json").read_bytes() == whole
    assert all(node.poll() is None for node in nodes), "a cluster that was joined goes on"
