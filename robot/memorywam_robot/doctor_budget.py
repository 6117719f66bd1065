"""Whether this device is fast enough for a bundle: measured, then judged as a run would."""

from pathlib import Path

from memorywam_robot.live.load import LoadRules, load_from_measured
from memorywam_robot.live.load_measuring import measured_costs
from memorywam_robot.runs import policy_from_bundle
from memorywam_runtime.doctor.doctor_finding import Finding
from memorywam_runtime.errors import InputError
from memorywam_runtime.opening import Opening

__all__ = ["budget_finding"]


def budget_finding(bundle: str, backend: str, rules: LoadRules | None = None) -> Finding:
    """Open a bundle, remember and act on noise, and say what cycle that allows.

    Raises:
        MemorywamError: it does not open.
    """
    policy = policy_from_bundle(Path(bundle), Opening(backend=backend))
    manifest = policy.session.manifest
    if not manifest.prompts:
        fix = f"memorywam prompt {bundle} --add TEXT"
        return Finding(part="budget", status="missing", found="no instruction to act on", fix=fix)
    remember_ms, act_ms = measured_costs(policy, manifest.prompts[0].text)
    try:
        load = load_from_measured(
            policy.contract, remember_ms=remember_ms, act_ms=act_ms, rules=rules
        )
    except InputError as error:
        found, _, fix = str(error).rpartition(": ")
        return Finding(part="budget", status="missing", found=f"{backend}: {found}", fix=fix)
    return Finding(part="budget", status="ok", found=f"{backend}: {load.sentence()}")
