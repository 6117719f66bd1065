"""The program with rough hands: streams closed or full, names that are no names, signals twice."""

import contextlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from memorywam_runtime import cli, stopping
from memorywam_runtime.report import format_table, json_from_data
from memorywam_runtime.streams import one_line

CHECKPOINT = "random:tiny:0"
TAILS = {
    "inspect": (),
    "prompt": ("--list",),
    "verify": ("--checkpoint", CHECKPOINT),
    "build": ("--backend", "tensorrt-rtx", "--target", "sm_89", "--dry-run"),
    "bench": ("--frames", "1"),
    "run": ("--robot", "sim:recall"),
    "serve": ("--port", "0"),
    "calibrate": ("--recordings", "recordings", "--out", "out"),
}
"""Verb to what it needs behind a bundle."""
SHELL_WORDS = f"{sys.executable} -m memorywam_runtime.cli"


@pytest.fixture(scope="module", autouse=True)
def heard():
    """Signals as a terminal gives them, whatever this process was told to ignore when it began."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def shell(command, **variables):
    """Run a line of the shell, in which `memorywam` is the program."""
    return subprocess.run(
        ["bash", "-c", f'memorywam() {{ {SHELL_WORDS} "$@"; }}; {command}'],
        capture_output=True, text=True, check=False, timeout=120,
        env={name: value for name, value in (os.environ | variables).items() if value is not None},
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("memorywam --help >&-", 0),
        ("memorywam doctor --json - >&- <&-", None),
        ("memorywam inspect nowhere >&- 2>&- <&-", 2),
        ("memorywam inspect nowhere 2>/dev/full", 2),
    ],
)
def test_a_stream_that_is_not_there_is_no_matter(command, status):
    done = shell(command)
    assert done.returncode == status or (status is None and done.returncode in (0, 1))
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("words", ["--help", "doctor", "doctor --json -"])
def test_a_full_disk_under_standard_output_is_told(words):
    done = shell(f"memorywam {words} >/dev/full")
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_that_is_opened_later_is_not_taken_for_a_stream(tmp_path):
    code = (
        "import os, sys; from memorywam_runtime.streams import open_streams; open_streams();"
        f"made = open({str(tmp_path / 'made')!r}, 'w'); os.write(1, b'a library speaks');"
        "sys.exit(made.fileno())"
    )
    assert shell(f'{sys.executable} -c "{code}" >&- 2>&- <&-').returncode > 2
    assert (tmp_path / "made").read_text() == ""


def test_a_reader_that_has_left_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*SHELL_WORDS.split(), "--help"], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TERM": "dumb"},
    ],
)
def test_a_locale_of_ascii_gets_escapes(tiny_bundle, tmp_path, variables):
    bundle = tmp_path / "-bü n日本"
    shutil.copytree(tiny_bundle, bundle)
    done = shell(f"memorywam inspect '{bundle}'; memorywam doctor '{bundle}' --json -", **variables)
    assert "Traceback" not in done.stderr
    assert "every hash is right" in done.stdout
    document = json.loads(done.stdout[done.stdout.index("{\n") :])
    assert document["verb"] == "doctor"


def test_a_directory_that_was_removed_is_named():
    done = shell("cd $(mktemp -d) && rmdir $PWD && memorywam inspect nowhere --json told.json")
    assert done.returncode == 2
    assert "the working directory is no longer there" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", TAILS)
@pytest.mark.parametrize("name", ["a\nb", "\x1b]0;owned\x07", "\udcff\udcfe", "", "-", " "])
def test_whatever_a_bundle_is_called_the_refusal_is_one_line(
    verb, name, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recordings").mkdir()
    status = cli.main([verb, *TAILS[verb], "--", name])
    said = capsys.readouterr()
    assert status == 2
    assert said.out == ""
    assert said.err.startswith(f"memorywam {verb}: ")
    assert said.err.removesuffix("\n").isprintable()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recordings"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run", "B", "--robot", "sim:recall", "--tick-hz", "nan"), "found nan in --tick-hz"),
        (("serve", "B", "--idle-timeout", "nan"), "found nan in --idle-timeout"),
        (("bench", "B", "--threads", "9" * 30), "in --threads; expected a number of at most"),
        (("verify", "B", "--seed", "-" + "9" * 30), "in --seed; expected a number of at most"),
        (("run", "B", "--robot", "sim:recall", "--threads", "-5"), "expected 0, which lets"),
        (("run", "B", "--robot", "sim:recall", "--threads", "1025"), "to 1024"),
        (("serve", "B", "--max-message", str(1 << 40)), "expected 1 to 1024 MiB"),
    ],
)
def test_what_is_no_number_for_a_machine(words, expected, tiny_bundle, capsys):
    bundle = str(tiny_bundle)
    assert cli.main([bundle if word == "B" else word for word in words]) == 2
    assert expected in capsys.readouterr().err


def _plain():
    raise MemoryError("Unable to allocate 9. TiB")


def _wrapped():
    try:
        _plain()
    except MemoryError as error:
        raise RuntimeError("a pass failed") from error


def _allocator():
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 TB")


@pytest.mark.parametrize("fail", [_plain, _wrapped, _allocator])
def test_memory_that_runs_out_is_told(fail, monkeypatch, capsys):
    monkeypatch.setattr("memorywam_runtime.bundle.check_bundle", lambda *_: fail())
    assert cli.main(["inspect", "bundle"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("memorywam inspect: found no more memory (")
    assert "expected as much as" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("package", "extra"),
    [("mujoco", "sim"), ("mcap.writer", "record"), ("ray", "cluster"), ("scipy", "mixed"),
     ("pyrealsense2", "realsense"), ("something_else", "cpu")],
)  # fmt: skip
def test_a_missing_package_names_its_own_extra(package, extra, monkeypatch, capsys):
    def absent(*_):
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)

    monkeypatch.setattr("memorywam_runtime.bundle.check_bundle", absent)
    assert cli.main(["inspect", "bundle"]) == 2
    assert capsys.readouterr().err.endswith(f"pip install 'memorywam[{extra}]'\n")


def test_every_package_has_an_extra_that_installs_it():
    wanted = importlib.metadata.requires("memorywam") or []
    for package, extra in cli.EXTRAS.items():
        name = cli.DISTRIBUTIONS.get(package, package).replace("_", "-")
        assert any(
            line.lower().replace("_", "-").startswith(name) and f"extra == '{extra}'" in line
            for line in (one.replace('"', "'") for one in wanted)
        ), package


def test_text_that_commands_a_terminal_is_shown_not_obeyed(capsys):
    assert one_line("ü 日本") == "ü 日本"
    assert one_line("a\nb\x1b[2J\udcff") == r"a\nb\x1b[2J\udcff"
    assert format_table(("name",), [("a\nb",)]).splitlines()[2] == r"a\nb"


def test_json_holds_what_is_no_text():
    for ascii_only in (False, True):
        text = json_from_data({"path": "\udcff", "name": "ü"}, ascii_only=ascii_only)
        assert json.loads(text.encode()) == {"path": "\udcff", "name": "ü"}
    assert "ü" in json_from_data({"name": "ü"})
    assert json_from_data({"name": "ü"}, ascii_only=True).isascii()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_second_signal_does_not_stop_the_cleaning(number, status, monkeypatch):
    cleaned = []

    def dispatch(_):
        try:
            signal.raise_signal(number)
        finally:
            for again in (signal.SIGINT, signal.SIGTERM, number):
                signal.raise_signal(again)
            cleaned.append(number)

    monkeypatch.setattr(cli, "_dispatch", dispatch)
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert cli.main([]) == status
    assert cleaned == [number]
    after = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert before == after


def test_a_signal_that_was_ignored_stays_ignored(monkeypatch):
    def dispatch(_):
        signal.raise_signal(signal.SIGHUP)
        return 0

    monkeypatch.setattr(cli, "_dispatch", dispatch)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert cli.main([]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_when_all_is_done_is_no_traceback():
    code = (
        "import os, signal; from memorywam_runtime.cli import main; main();"
        "os.kill(os.getpid(), signal.SIGINT); print('still here')"
    )
    done = shell(f'{sys.executable} -c "{code}" --help > /dev/null')
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "")


def test_a_later_signal_is_heard_again(monkeypatch):
    """One that a library has swallowed must not make the program deaf."""
    monkeypatch.setattr(stopping, "_UNWINDING_S", 0.0)

    def dispatch(_):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(cli, "_dispatch", dispatch)
    assert cli.main([]) == 130


def test_a_run_writes_nowhere_else(tiny_bundle, tmp_path):
    """Neither into the home nor into the temporary directory: engines tell nobody what they run."""
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    done = shell(
        f"memorywam run {tiny_bundle} --robot sim:recall --instruction random --dry-run "
        "--allow-unverified --threads 1",
        HOME=str(home), TMPDIR=str(temporary), MESA_SHADER_CACHE_DISABLE="true",
        XDG_CACHE_HOME=None, ORT_DISABLE_TELEMETRY=None,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [*home.rglob("*"), *temporary.rglob("*")] == []


def test_a_library_that_makes_another_error_of_a_signal_does_not_hide_it(monkeypatch, capsys):
    """As one whose loading was interrupted."""

    def load(_):
        try:
            signal.raise_signal(signal.SIGTERM)
        except SystemExit as stop:
            raise ImportError("initialization failed", name="onnxruntime") from stop

    monkeypatch.setattr("memorywam_runtime.bundle.check_bundle", load)
    assert cli.main(["inspect", "bundle"]) == 143
    assert "initialization failed" in capsys.readouterr().err


def test_a_job_that_tells_what_it_did_until_a_signal_has_the_signals_status(monkeypatch, capsys):
    from memorywam_runtime.report import Outcome
    from memorywam_runtime.verbs import Inspect

    told = Outcome(ok=False, note="held", stopped_by=signal.SIGTERM)
    monkeypatch.setattr(Inspect, "run", lambda *_: told)
    assert cli.main(["inspect", "bundle"]) == 143
    assert capsys.readouterr().out == "held\n"
