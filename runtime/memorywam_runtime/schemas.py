"""JSON Schemas of what crosses folders in files, the same from every Python."""

import inspect
from typing import Any

import msgspec

__all__ = ["schema_of"]


def schema_of(kind: type) -> dict[str, Any]:
    """Return the JSON Schema of a type; docstrings describe, without their indentation.

    Python 3.13 takes the indentation away when it compiles; those before keep it.
    """
    schema = msgspec.json.schema(kind)
    _dedent(schema)
    return schema


def _dedent(node: object) -> None:
    if isinstance(node, dict):
        if isinstance(node.get("description"), str):
            node["description"] = inspect.cleandoc(node["description"])
        for below in node.values():
            _dedent(below)
    elif isinstance(node, list):
        for below in node:
            _dedent(below)
