"""The program, run as people run it: in a process of its own, with verbs installed beside it."""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from memorywam_runtime import cli

Run = Callable[..., subprocess.CompletedProcess[str]]

TRIAL_VERBS = '''
import os
import time

from memorywam_runtime.errors import InputError
from memorywam_runtime.files import atomic_directory
from memorywam_runtime.report import Outcome


class Told:
    """Add up two numbers."""

    def add_arguments(self, parser):
        parser.add_argument("numbers", nargs="+", type=float)
        parser.add_argument("--fail", action="store_true")

    def run(self, args):
        print("on the way")
        total = sum(args.numbers)
        return Outcome(
            ok=not args.fail,
            headers=("what", "value"),
            rows=[("total", total)],
            data={"total": total, "drift": float("nan")},
            note="done",
        )


class Raising:
    def add_arguments(self, parser):
        parser.add_argument("kind")

    def run(self, args):
        if args.kind == "input":
            raise InputError("found 3 cameras, expected 2. Name two.")
        if args.kind == "module":
            import a_package_that_is_not_there
        if args.kind == "file":
            open("/nowhere/at/all")
        if args.kind == "interrupt":
            raise KeyboardInterrupt
        if args.kind == "bug":
            raise RuntimeError("a bug")
        with atomic_directory(args.kind):
            print("ready", flush=True)
            time.sleep(60)
'''


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The program with two more verbs, installed as another distribution would install them."""
    site = tmp_path / "site"
    metadata = site / "trial_verbs-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "trial_verbs.py").write_text(TRIAL_VERBS)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: trial-verbs\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[memorywam.verbs]\n"
        "told = trial_verbs:Told\n"
        "raising = trial_verbs:Raising\n"
        "absent = memorywam_export.a_module_that_is_not_there:Absent\n"
    )

    def call(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            _program(*words),
            capture_output=True,
            text=True,
            env=_environment(site),
            stdin=subprocess.DEVNULL,
            check=False,
        )

    return call


def _program(*words: object) -> list[str]:
    return [sys.executable, "-m", "memorywam_runtime.cli", *map(str, words)]


def _environment(site: Path) -> dict[str, str]:
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def test_help_lists_every_verb_with_one_line(run: Run) -> None:
    told = run("--help")
    assert told.returncode == 0
    assert told.stderr == ""
    for name, (summary, _) in cli.VERBS.items():
        assert f"  {name:<10} {summary}\n" in told.stdout
    assert "  told       from trial_verbs:Told\n" in told.stdout


def test_every_entry_point_has_a_line_of_help_and_the_reverse() -> None:
    distribution = importlib.metadata.distribution("memorywam")
    ours = {entry.name for entry in distribution.entry_points if entry.group == cli.GROUP}
    assert ours == set(cli.VERBS)


def test_every_verb_names_extras_that_exist() -> None:
    extras = set(importlib.metadata.metadata("memorywam").get_all("Provides-Extra") or [])
    for name, (_, needed) in cli.VERBS.items():
        assert set(needed.split(",")) <= extras, name


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from memorywam_runtime import cli; cli.main(['--help']);"
        "heavy = {'numpy', 'msgspec', 'PIL', 'torch', 'onnx', 'onnxruntime', 'mujoco'};"
        "print('heavy:', sorted(heavy & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.endswith("heavy: []\n")


def test_without_a_verb_it_shows_the_help_and_could_not_run(run: Run) -> None:
    told = run()
    assert told.returncode == 2
    assert "usage: memorywam VERB" in told.stdout


def test_version(run: Run) -> None:
    told = run("--version")
    assert told.stdout == f"memorywam {importlib.metadata.version('memorywam')}\n"


def test_the_console_script_is_the_same_program() -> None:
    script = Path(sys.executable).with_name("memorywam")
    told = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert "usage: memorywam VERB" in told.stdout


def test_an_unknown_verb_is_told_the_known_ones(run: Run) -> None:
    told = run("exprot")
    assert told.returncode == 2
    assert told.stderr.startswith("memorywam exprot: there is no such verb; expected one of export")
    assert "Traceback" not in told.stderr


def test_a_verbs_own_help(run: Run) -> None:
    told = run("told", "--help")
    assert told.returncode == 0
    assert "--fail" in told.stdout
    assert "--json FILE" in told.stdout


def test_a_bad_option_could_not_run(run: Run) -> None:
    told = run("told", "one")
    assert told.returncode == 2
    assert "invalid float value: 'one'" in told.stderr


def test_the_table_is_for_people(run: Run) -> None:
    told = run("told", "1", "2")
    assert told.returncode == 0
    expected = ["on the way", "what   value", "-----  -----", "total      3", "done"]
    assert told.stdout.splitlines() == expected


def test_a_failed_check_is_status_1(run: Run) -> None:
    told = run("told", "1", "--fail")
    assert told.returncode == 1
    assert "total" in told.stdout


def test_json_goes_to_a_file_and_the_table_stays(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "told.json"
    told = run("told", "1", "2", "--json", target)
    document = json.loads(target.read_text())
    assert "total" in told.stdout
    assert (document["verb"], document["ok"]) == ("told", True)
    assert document["data"] == {"total": 3.0, "drift": "nan"}
    assert {"python", "memorywam", "numpy"} <= set(document["versions"])


def test_json_alone_on_standard_output(run: Run) -> None:
    told = run("told", "1", "--fail", "--json", "-")
    assert told.returncode == 1
    assert json.loads(told.stdout)["ok"] is False
    assert told.stderr == "on the way\n"


def test_an_unwritable_json_file_is_refused_before_the_job(run: Run, tmp_path: Path) -> None:
    told = run("told", "1", "--json", tmp_path / "nowhere" / "told.json")
    assert told.returncode == 2
    assert told.stdout == ""
    assert told.stderr.startswith("memorywam told: found --json ")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("input", "memorywam raising: found 3 cameras, expected 2. Name two.\n"),
        ("file", "memorywam raising: [Errno 2] No such file or directory: '/nowhere/at/all'"),
        ("module", "memorywam raising: No module named 'a_package_that_is_not_there'."),
    ],
)
def test_what_cannot_run_is_one_message_and_status_2(run: Run, kind: str, message: str) -> None:
    told = run("raising", kind)
    assert told.returncode == 2
    assert told.stderr.startswith(message)
    assert told.stderr.count("\n") == 1
    assert told.stdout == ""


def test_a_missing_package_names_the_extra(capsys: pytest.CaptureFixture[str]) -> None:
    error = ModuleNotFoundError("No module named 'torch'", name="torch")
    text = cli._missing_import_text("export", error)
    assert text.endswith("pip install 'memorywam[export]'")
    assert capsys.readouterr().err == ""


def test_a_missing_part_of_ours_says_install_again(run: Run) -> None:
    told = run("absent")
    assert told.returncode == 2
    assert "no module memorywam_export.a_module_that_is_not_there" in told.stderr


def test_a_bug_keeps_its_traceback(run: Run) -> None:
    told = run("raising", "bug")
    assert told.returncode == 1
    assert "RuntimeError: a bug" in told.stderr


def test_an_interrupt_is_130(run: Run) -> None:
    told = run("raising", "interrupt")
    assert told.returncode == 130
    assert told.stderr == ""


@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"]
)
def test_a_stopped_job_leaves_nothing(
    run: Run, tmp_path: Path, sent: signal.Signals, status: int
) -> None:
    del run  # its site directory is what is needed
    folder = tmp_path / "out"
    folder.mkdir()
    with subprocess.Popen(
        _program("raising", folder / "bundle"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(tmp_path / "site"),
        # A job in the background of a shell ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == status
    assert stderr == ""
    assert list(folder.iterdir()) == []


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m memorywam_runtime.cli --help | true"
    told = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert told.stderr == ""
