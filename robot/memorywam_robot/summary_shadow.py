"""The card of a run's page about a shadow: how far the actions were from what the arms did."""

from memorywam_robot.summary_report import RunReport
from memorywam_runtime.pages import remark, section, table

__all__ = ["shadow_section"]


def shadow_section(report: RunReport) -> str:
    """Return each joint's distance in each episode, in its unit; nothing where arms were sent."""
    shown = [(one.seed, one.shadow) for one in report.episodes if one.shadow is not None]
    if not shown:
        return ""
    rows = [
        (seed, joint.name, joint.unit, f"{joint.rms:.4f}", f"{joint.worst:.4f}", joint.worst_step)
        for seed, shadow in shown
        for joint in shadow.joints
    ]
    text = (
        "Nothing was sent: somebody else moved the arms. From each action that a chunk had for a "
        "step to where the joint was when the step was over; arms follow a target late."
    )
    still = [str(seed) for seed, shadow in shown if shadow.is_still]
    if still:
        text += f" The arms stood STILL in the episodes of seed {', '.join(still)}."
    headers = ("seed", "joint", "unit", "RMS", "worst", "at step")
    return section("In the shadow", remark(text) + table(headers, rows), wide=True)
