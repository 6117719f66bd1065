"""The published JSON Schemas of a recording's messages are those that the code writes by.

Regenerate after an intended change: `python -m tests.runtime.test_recording_schema`.
"""

import json
from pathlib import Path

import memorywam_runtime
from memorywam_runtime.recordings.recording_messages import recording_schema

PUBLISHED = Path(memorywam_runtime.__file__).with_name("recording.schema.json")


def test_the_published_schema_is_current():
    assert json.loads(PUBLISHED.read_text()) == recording_schema()


if __name__ == "__main__":
    PUBLISHED.write_text(json.dumps(recording_schema(), indent=2, sort_keys=True) + "\n")
