"""The published JSON Schema is the one that the code reads by.

Regenerate after an intended change: `python -m tests.runtime.test_manifest_schema`.
"""

import json
from pathlib import Path

import memorywam_runtime
from memorywam_runtime.manifest import manifest_schema

PUBLISHED = Path(memorywam_runtime.__file__).with_name("manifest.schema.json")


def test_the_published_schema_is_current():
    assert json.loads(PUBLISHED.read_text()) == json.loads(json.dumps(manifest_schema()))


if __name__ == "__main__":
    PUBLISHED.write_text(json.dumps(manifest_schema(), indent=2, sort_keys=True) + "\n")
