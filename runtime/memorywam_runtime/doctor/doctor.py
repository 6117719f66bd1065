"""The verb doctor: what this machine lacks, with the fix for each finding."""

import argparse
import importlib
import importlib.metadata
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from memorywam_runtime.doctor.doctor_bundle import bundle_findings
from memorywam_runtime.doctor.doctor_finding import GROUP, Asked, Finding, Status
from memorywam_runtime.doctor.doctor_jetson import jetson_findings
from memorywam_runtime.doctor.doctor_machine import machine_findings
from memorywam_runtime.doctor.doctor_parts import installed_parts
from memorywam_runtime.errors import InputError, MemorywamError
from memorywam_runtime.report import Outcome

__all__ = ["Asked", "Doctor", "Finding", "Status", "findings"]


class Doctor:
    """The verb: look at everything, change nothing."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare what the robot will need, so that its absence counts."""
        parser.add_argument("bundle", nargs="?", metavar="BUNDLE", help="also open this bundle")
        parser.add_argument("--robot", metavar="R", default="", help="as for run: sim:TASK, ...")
        parser.add_argument(
            "--cameras",
            metavar="NAME=KIND:ID",
            nargs="*",
            default=[],
            help="as for run: NAME=realsense:SERIAL, ...",
        )
        parser.add_argument(
            "--budget", action="store_true", help="run the bundle: is this device fast enough?"
        )
        parser.add_argument(
            "--backend", metavar="B", default="ort", help="for --budget (default ort)"
        )

    def run(self, args: argparse.Namespace) -> Outcome:
        """Look and tell.

        Raises:
            InputError: --budget without a bundle.
        """
        if args.budget and args.bundle is None:
            raise InputError("found --budget without a bundle; expected the one that is to be run")
        asked = Asked(
            bundle=args.bundle,
            robot=args.robot,
            cameras=tuple(args.cameras),
            measures_budget=args.budget,
            backend=args.backend,
        )
        found = findings(asked)
        num_missing = sum(finding.status == "missing" for finding in found)
        num_warned = sum(finding.status == "warn" for finding in found)
        return Outcome(
            ok=not num_missing,
            headers=("part", "status", "found", "fix"),
            rows=[(one.part, one.status, one.found, one.fix) for one in found],
            data={"findings": [asdict(one) for one in found]},
            note=f"{num_missing} missing, {num_warned} to look at"
            if num_missing
            else "nothing is missing",
        )


def findings(asked: Asked | None = None) -> list[Finding]:
    """Look at this machine.

    Args:
        asked: What the robot will need.

    Returns:
        Every finding, in the order of what stands on what.
    """
    asked = asked or Asked()
    return [
        *installed_parts(
            needs_sim=asked.robot.startswith("sim"),
            needs_realsense=any("=realsense" in camera for camera in asked.cameras),
        ),
        *jetson_findings(asked.root),
        *machine_findings(asked.root, Path.cwd(), moves=bool(asked.robot)),
        *bundle_findings(asked),
        *_findings_of_others(asked),
    ]


def _findings_of_others(asked: Asked) -> Iterator[Finding]:
    """Ask the packages that stand on this one."""
    entries = importlib.metadata.entry_points(group=GROUP)
    for entry in sorted(entries, key=lambda one: one.name):
        yield from _findings_of(entry, asked)


def _findings_of(entry: importlib.metadata.EntryPoint, asked: Asked) -> Iterator[Finding]:
    """Ask one package; whatever it cannot do, the doctor goes on."""
    try:
        yield from entry.load()(asked)
    except MemorywamError as error:
        found = " ".join(str(error).split())
        yield Finding(
            part=entry.name, status="missing", found=found, fix="do as it says, and ask again"
        )
    except ImportError as error:
        fix = f"install what {error.name or 'it'} belongs to, or memorywam again"
        yield Finding(
            part=entry.name, status="warn", found=f"cannot be asked for: {error}", fix=fix
        )
