"""After a warm-up a session is as new, and a tick binds nothing."""

from tests.fakes.bundles import differences
from tests.fakes.driver import Driver

from memorywam_runtime.bundle import read_prompt
from memorywam_runtime.warm_up import warm_up


def test_a_warm_session_is_as_new(a_rung):
    text = read_prompt(a_rung.root, a_rung.manifest, "random")
    cold, warm = a_rung.session(2, 4, 8), a_rung.session(2, 4, 8)
    warm_up(warm)
    assert warm.buffers.bucket == 0
    assert warm.memory.num_frames == 0
    found, wanted = (Driver(session, text) for session in (warm, cold))
    assert found.frames(6).tobytes() == wanted.frames(6).tobytes()
    assert differences(warm.snapshot(), cold.snapshot()) == []


def test_nothing_is_bound_after_the_start(a_rung, monkeypatch):
    """Not when the gist table grows either."""
    session = a_rung.session(2, 4, 8)
    text = read_prompt(a_rung.root, a_rung.manifest, "random")
    bound = []
    monkeypatch.setattr(session.calls, "_bind", lambda *_, **__: bound.append(1))
    Driver(session, text).frames(6)
    assert session.buffers.bucket == 2
    session.reset()
    Driver(session, text).frames(2)
    assert not bound


def test_the_steps_that_are_asked_for_are_warm(a_rung, monkeypatch):
    session, asked = a_rung.session(), []
    real = session.calls.chunk

    def chunk(count):
        asked.append(count)
        return real(count)

    monkeypatch.setattr(session.calls, "chunk", chunk)
    warm_up(session, 2)
    assert set(asked) == {2}
