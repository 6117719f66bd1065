"""What a message of a recording holds becomes arrays, or is refused."""

import pytest

from memorywam_runtime.recordings.recording_messages import Vector, array_from_vector


def test_an_index_that_no_array_has_is_refused() -> None:
    with pytest.raises(ValueError, match="not_finite names none of 1 numbers"):
        array_from_vector(Vector(values=(0.1,), not_finite=(10**30,)))
