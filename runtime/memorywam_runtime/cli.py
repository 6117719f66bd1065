"""The program `memorywam VERB ...`: find the verb, run it, tell the outcome."""

import argparse
import contextlib
import importlib.metadata
import math
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from memorywam_runtime.errors import InputError, MemorywamError, MissingPartError
from memorywam_runtime.files import atomic_write, refuse_unwritable
from memorywam_runtime.report import Outcome, Verb, format_table, json_from_data
from memorywam_runtime.stopping import EXIT_BY_SIGNAL, stopping_unwinds
from memorywam_runtime.streams import drop_output, is_utf8, one_line, open_streams
from memorywam_runtime.versions import version_of, versions

__all__ = ["DISTRIBUTIONS", "EXTRAS", "GROUP", "VERBS", "main"]

GROUP = "memorywam.verbs"
"""The entry-point group: each entry is a class of the form `memorywam_runtime.report.Verb`."""

# Here rather than in the verbs, so that `memorywam --help` loads none of them.
VERBS: dict[str, tuple[str, str]] = {
    "export": ("trained weights to a bundle: graphs, manifest, prompt table", "export"),
    "prompt": ("add an instruction to a bundle, list or remove them", "cpu,export,text"),
    "inspect": ("what a bundle holds: graphs, tensors, memory sizes, hashes", "cpu"),
    "verify": ("compare a bundle with its checkpoint, tensor by tensor", "export,cpu"),
    "build": ("engines of a bundle for a GPU, kept while they fit", "export,tensorrt-rtx"),
    "calibrate": (
        "quantize a bundle from recorded episodes, and judge what comes of it",
        "cpu,export,record",
    ),
    "bench": ("time every stage against how full the memory is", "cpu"),
    "run": ("the on-robot loop: cameras, policy, limits, arm", "cpu"),
    "serve": ("the policy over a socket, for other people's clients", "cpu,serve"),
    "replay": ("feed a recording through a bundle, and compare what it does", "cpu,record"),
    "convert": ("recordings to a LeRobot dataset, images lossless", "record,lerobot"),
    "doctor": ("what this machine lacks, with the fix for each finding", "cpu"),
    "demo": ("the whole job on what the package ships, in a simulated robot", "cpu,export,sim"),
}
"""Verb to its line of help and the extras of `memorywam` that it stands on."""

EXTRAS = {
    "onnxruntime": "cpu",
    "cuda": "gpu",
    "tensorrt_rtx": "tensorrt-rtx",
    "torch": "export",
    "onnx": "export",
    "onnxscript": "export",
    "onnx_ir": "export",
    "safetensors": "export",
    "mujoco": "sim",
    "mcap": "record",
    "pyarrow": "lerobot",
    "av": "lerobot",
    "h5py": "hdf5",
    "ray": "cluster",
    "scipy": "mixed",
    "transformers": "text",
    "tokenizers": "text",
    "pyrealsense2": "realsense",
    "websockets": "serve",
    "foxglove": "view",
    "gymnasium": "gym",
}
"""What is imported to the extra that installs it: an option may need more than its verb does."""
DISTRIBUTIONS = {"cuda": "cuda-bindings", "foxglove": "foxglove-sdk"}
"""What is imported to what is installed, where the names differ by more than a line."""

EXIT_OK = 0
EXIT_CHECK_FAILED = 1
EXIT_COULD_NOT_RUN = 2
EXIT_INTERRUPTED = EXIT_BY_SIGNAL + signal.SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: What follows the program's name; None takes the process's own.

    Returns:
        0 done and every check holds, 1 it ran and a check failed, 2 it could not run, 130, 143 or
        129 interrupted, terminated or hung up.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # From 1.29 on ONNX Runtime tells its maker what it runs, unless this is set before it loads;
    # for that it writes to the home and the temporary directory too.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        open_streams()
        with stopping_unwinds(is_whole_process=argv is None) as told:
            status = _dispatch(words)
            # A package that is stopped while it loads says of itself that it cannot be loaded.
            if told.number and status == EXIT_COULD_NOT_RUN:
                return EXIT_BY_SIGNAL + told.number
            return status
    except SystemExit as stop:  # argparse leaves this way, for --help as for a bad option
        return stop.code if isinstance(stop.code, int) else EXIT_OK
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader left: `memorywam ... | head`
        drop_output()
        return EXIT_OK
    except OSError as error:  # a file, a disk, or standard output
        drop_output()
        return _refused(words[0] if words else "--help", _os_error_text(error))


def _dispatch(words: list[str]) -> int:
    entries = {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUP)}
    if not words or words[0] in {"-h", "--help", "help"}:
        print(_help_text(entries))
        return EXIT_OK if words else EXIT_COULD_NOT_RUN
    if words[0] in {"-V", "--version"}:
        print(f"memorywam {version_of('memorywam')}")
        return EXIT_OK
    name, rest = words[0], words[1:]
    try:
        return _run_verb(name, _loaded_verb(name, entries), rest)
    except MemorywamError as error:
        return _refused(name, str(error))
    except ImportError as error:
        if _is_own(error) and not isinstance(error, ModuleNotFoundError):
            raise
        return _refused(name, _missing_import_text(name, error))
    except Exception as error:
        if not _is_of_memory(error):
            raise
        return _refused(
            name,
            f"found no more memory ({error}); expected as much as the bundle or checkpoint needs: "
            "close other programs, or lift the limit (`ulimit -v`)",
        )


def _run_verb(name: str, verb: Verb, rest: list[str]) -> int:
    summary = VERBS.get(name, ("", ""))[0]
    parser = argparse.ArgumentParser(prog=f"memorywam {name}", description=summary or None)
    verb.add_arguments(parser)
    parser.add_argument(
        "--json", metavar="FILE", help="write the result for machines; - for standard output alone"
    )
    args = parser.parse_args(rest)
    _refuse_no_numbers(args)
    json_to = cast("str | None", args.json)
    if json_to is not None and json_to != "-":
        refuse_unwritable("--json", Path(json_to))
    # Whatever a verb prints on its way must not end up inside the JSON.
    aside = contextlib.redirect_stdout(sys.stderr) if json_to == "-" else contextlib.nullcontext()
    with aside:
        outcome = verb.run(args)
    _tell(name, outcome, json_to)
    if outcome.stopped_by:
        return EXIT_BY_SIGNAL + outcome.stopped_by
    return EXIT_OK if outcome.ok else EXIT_CHECK_FAILED


def _tell(name: str, outcome: Outcome, json_to: str | None) -> None:
    document = json_from_data(
        {"verb": name, "ok": outcome.ok, "versions": versions(), "data": outcome.data},
        ascii_only=json_to == "-" and not is_utf8(sys.stdout.encoding),
    )
    if json_to == "-":
        sys.stdout.write(document)
        sys.stdout.flush()
        return
    if json_to is not None:
        atomic_write(json_to, document.encode())
    if outcome.headers:
        print(format_table(outcome.headers, outcome.rows))
    if outcome.note:
        print("\n".join(one_line(line) for line in outcome.note.split("\n")))
    sys.stdout.flush()


def _loaded_verb(name: str, entries: dict[str, importlib.metadata.EntryPoint]) -> Verb:
    if not entries:
        raise MissingPartError(
            "no verb is registered, as when the sources run without being installed. "
            "Install the program: pip install -e ."
        )
    if name not in entries:
        raise InputError(
            f"there is no such verb; expected one of {', '.join(_ordered(entries))}. "
            "`memorywam --help` says what each does."
        )
    loaded = entries[name].load()
    return cast("Verb", loaded() if isinstance(loaded, type) else loaded)


def _help_text(entries: dict[str, importlib.metadata.EntryPoint]) -> str:
    lines = [
        "usage: memorywam VERB [options]",
        "       memorywam VERB --help",
        "       memorywam --version",
        "",
        "Export, calibrate and run MemoryWAM policies on a robot's edge computer.",
        "",
    ]
    for name in _ordered(entries):
        summary = VERBS[name][0] if name in VERBS else f"from {entries[name].value}"
        lines.append(f"  {name:<10} {summary}")
    if not entries:
        lines.append("  (no verb is registered; install the program: pip install -e .)")
    lines += [
        "",
        "Every verb takes --json FILE (or -). Exit status: 0 done and every check holds,",
        "1 it ran and a check failed, 2 it could not run.",
    ]
    return "\n".join(lines)


def _ordered(entries: dict[str, importlib.metadata.EntryPoint]) -> list[str]:
    known = [name for name in VERBS if name in entries]
    return known + sorted(set(entries) - set(known))


def _refused(name: str, message: str) -> int:
    with contextlib.suppress(OSError):  # standard error may be full too; the status tells enough
        print(one_line(f"memorywam {name}: {message}"), file=sys.stderr, flush=True)
    return EXIT_COULD_NOT_RUN


def _is_of_memory(error: BaseException | None) -> bool:
    """Say whether memory ran out, whatever a library has made of it on the way."""
    while error is not None:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):  # torch and engines
            return True
        error = error.__cause__ or error.__context__
    return False


def _os_error_text(error: OSError) -> str:
    try:
        Path.cwd()
    except OSError:
        return (
            "the working directory is no longer there; expected one that exists: go to another "
            f"({error})"
        )
    return f"{error}. Check the path, its permissions and the free space."


def _refuse_no_numbers(args: argparse.Namespace) -> None:
    # `float` takes "nan", with which no comparison holds, and `int` takes any number of digits.
    for name, value in vars(args).items():
        for one in value if isinstance(value, list | tuple) else (value,):
            is_none = isinstance(one, float) and math.isnan(one)
            if is_none or (isinstance(one, int) and abs(one) > sys.maxsize):
                raise InputError(
                    f"found {one} in --{name.replace('_', '-')}; expected a number of at most "
                    f"{sys.maxsize}"
                )


def _is_own(error: ImportError) -> bool:
    return (error.name or "").startswith("memorywam_")


def _missing_import_text(name: str, error: ImportError) -> str:
    if _is_own(error):
        return (
            f"this installation has no module {error.name}; expected all of memorywam. "
            "Install it again: pip install --force-reinstall memorywam"
        )
    package = (error.name or "").partition(".")[0]
    extra = VERBS.get(name, ("", "cpu"))[1]
    if EXTRAS.get(package, extra) not in extra.split(","):
        extra = EXTRAS.get(package, extra)
    return (
        f"{error}. This verb needs packages that are not part of the base installation; "
        f"install them: pip install 'memorywam[{extra}]'"
    )


if __name__ == "__main__":
    sys.exit(main())
