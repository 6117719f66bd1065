"""The commands of a Markdown page, run as a reader would: in order, in one folder."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def blocks(page, language):
    """The fenced blocks of that language, as text."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def lines(page, language):
    """Every line of those blocks; one that ends in a backslash goes on in the next."""
    whole = "\n".join(blocks(page, language)).replace("\\\n", " ")
    return [line for line in whole.splitlines() if line.strip()]


def run_commands(page, folder, *, refused=(), doubtful=(), skipped=()):
    """Run each `memorywam` line of the page's sh blocks in `folder`; what it printed, by line.

    Lines that begin with one in `refused` must end with status 1 or 2, all others with 0; those
    that begin with one in `doubtful` may end with 1, too: they tell of this machine. Those in
    `skipped`, whole, are not run.
    """
    (folder / "robot").symlink_to(ROOT / "robot")
    printed = {}
    for line in lines(page, "sh"):
        program, *words = shlex.split(line, comments=True)
        if program == "make":
            continue
        assert program == "memorywam", line
        if line in skipped:
            continue
        command = [sys.executable, "-m", "memorywam_runtime.cli", *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        told = f"{line}\n{done.stdout}\n{done.stderr}"
        expected = (1, 2) if line.startswith(tuple(refused)) else (0,)
        if line.startswith(tuple(doubtful)):
            expected = (0, 1)
        assert done.returncode in expected, told
        assert "Traceback" not in done.stderr, told
        assert (done.stdout + done.stderr).strip(), line
        printed[line] = done.stdout + done.stderr
    return printed


def lines_not_printed(page, printed):
    """The lines of the page's text blocks that the sh block before did not print, figures aside.

    Any figure or hash stands for any other, as much space for any other, and `...` for the rest.
    Blocks after commands of which none was run are not looked at.
    """
    fences = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    missing, told = [], ""
    for language, block in fences:
        if language == "sh":
            commands = lines(f"```sh\n{block}```\n", "sh")
            told = "\n".join(printed[line] for line in commands if line in printed)
        elif language == "text" and told:
            missing += [line for line in block.splitlines() if not _form(line).search(told)]
    return missing


def _form(line):
    """What a printed line looks like, whichever figures and hashes it has."""
    parts = re.split(r"(\.\.\.|\s+|\b[0-9a-f]{8,}\b|\d(?:[\d,.]*\d)?(?:e[-+]?\d+)?)", line.strip())

    def form(part):
        if part == "...":
            return ".*"
        if part.isspace():
            return r"\s+"
        if re.fullmatch(r"[0-9a-f]{8,}", part):
            return "[0-9a-f]{8,}"
        return r"\d[\d,.]*(?:e[-+]?\d+)?" if part[:1].isdigit() else re.escape(part)

    return re.compile(f"^{''.join(map(form, parts))}$", re.MULTILINE)
