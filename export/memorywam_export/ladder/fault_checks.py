"""Each planted fault through a rung of the ladder: caught, and its place named, or not."""

import re
from collections.abc import Callable
from contextlib import nullcontext

from memorywam_export.ladder.climb import Rung
from memorywam_export.ladder.faults import Fault, faults_of
from memorywam_export.parity.diagnosis import diagnosis
from memorywam_export.parity.parity import drive
from memorywam_export.parity.parity_graphs import Script
from memorywam_export.parity.parity_report import Check
from memorywam_export.parity.tolerances import TOLERANCES
from memorywam_export.parity.trace_report import Trace, by_frame
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.session import Session

__all__ = ["MOST_FRAMES", "fault_checks"]

MOST_FRAMES = 12
"""Of the episodes that faults are planted in, two behind the first eviction at most."""
_LEAST_FRAMES = 6
"""Below, the frame that faults are planted in, or the one behind it, is not there."""


def fault_checks(
    rung: Rung,
    script: Script,
    truth: Trace,
    contract: InferenceContract,
    tell: Callable[[str], None] = lambda doing: None,
) -> list[Check]:
    """Return a check for each fault: it holds if the fault was caught where it is.

    Args:
        rung: In float32 or better: coarser types hide small faults.
        script: Of the ladder's episode; its beginning is played.
        truth: What the reference makes of the whole script.
        contract: Of both; decides which faults there are.
        tell: Called with what is being done.
    """
    wanted = contract.memory.num_anchors + contract.num_ring_slots + 2
    count = min(len(script.pixels), max(_LEAST_FRAMES, min(wanted, MOST_FRAMES)))
    if count < _LEAST_FRAMES:
        return []
    session = rung.open()
    limit = TOLERANCES[rung.precision].max_abs
    checks = []
    for fault in faults_of(contract):
        trace = _trace(fault, session, script, count, tell)
        errors = by_frame(trace, truth)
        found = diagnosis(errors, contract, limit)
        checks.append(
            Check(
                rung=rung.name,
                what=f"planted: {fault.name}",
                max_abs=max(errors.at(frame) for frame in range(count)),
                tolerance=limit,
                worst=found or "NOT CAUGHT",
                ok=found is not None and re.match(fault.says, found) is not None,
            )
        )
    return checks


def _trace(
    fault: Fault, session: Session, script: Script, count: int, tell: Callable[[str], None]
) -> Trace:
    """Return what a session makes of the first frames with the fault in it."""
    fed = script if fault.script is None else fault.script(script, session.contract)
    with nullcontext() if fault.session is None else fault.session(session):
        return drive(session, fed.first(count), tell, fault.name)
