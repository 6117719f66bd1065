"""Every prepared call run before the first episode, so that no tick is the first to meet one."""

from memorywam_runtime.session import Session

__all__ = ["warm_up"]

_TURNS = 2
"""The first run of a sequence makes its calls one by one, the second captures them."""


def warm_up(session: Session, num_steps: int | None = None) -> None:
    """Run what a tick runs, on empty memory of every size; then reset: the episode is lost.

    Args:
        session: Between episodes.
        num_steps: Denoising steps of a chunk; the contract's by default.
    """
    buffers, calls = session.buffers, session.calls
    num_steps = num_steps or session.contract.conventions.num_steps
    for bucket in range(len(session.manifest.memory.gist_buckets)):
        buffers.bucket = bucket
        calls.bind_memory()
        runs = [calls.state_kv, *calls.early, *calls.updates.values(), calls.chunk(num_steps)]
        runs += calls.slices(num_steps)
        for _ in range(_TURNS):
            for run in runs:
                run()
    session.backend.finish()
    session.backend.save_caches()
    session.reset()
