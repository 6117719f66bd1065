"""The table that tells what a checkpoint is."""

import math
from collections.abc import Iterator
from dataclasses import asdict

from memorywam_export.checkpoints.checkpoint_files import few
from memorywam_export.checkpoints.describe import Description, Part
from memorywam_runtime.report import Outcome

__all__ = ["described_outcome"]

_Row = tuple[str, str, str, str]
_LISTED = 6
"""Entries of a value that are shown."""


def described_outcome(told: Description) -> Outcome:
    """Tell what a file is, what would be used, what is missing, and what must be told.

    Args:
        told: The description.
    """
    return Outcome(
        ok=True,
        headers=("about", "what", "found", "note"),
        rows=[
            *_file_rows(told),
            *(_part_row(part) for part in told.parts),
            *_lacking_rows(told),
            *_size_rows(told),
            *_field_rows(told),
        ],
        data=asdict(told),
        note=_note(told),
    )


def _file_rows(told: Description) -> Iterator[_Row]:
    """Yield what the file is."""
    yield "file", "kind", told.kind, told.hint
    if told.container:
        yield "file", "container", told.container, f"{told.num_bytes / 1e6:,.1f} MB"
    if told.name_map:
        sure = "all names are upstream's" if told.is_certain else "some names are an assumption"
        yield "file", "name map", told.name_map, sure
    for name, value in told.declared.items():
        compared = "compared with nothing here" if name in told.not_compared else "compared"
        yield "declared", name, str(value), "" if "." not in name else compared


def _part_row(part: Part) -> _Row:
    """Return the line of one part."""
    names = f" {few(part.names)}" if part.names else ""
    count = f"{part.num_tensors} tensors, {part.num_parameters:,} parameters"
    size = f"{'/'.join(part.dtypes) or 'no type'}, {part.num_bytes / 1e6:,.1f} MB"
    return "part", part.name, f"{count}, {size}", f"{part.use}{names}"


def _lacking_rows(told: Description) -> Iterator[_Row]:
    """Yield what an export needs."""
    for need in told.needs:
        yield "needs", need.what, need.found or "missing", "" if need.found else need.todo
    if told.needs:
        found = "none" if not told.sizes.get("memory.num_gists") else "among the weights"
        note = "only contracts with memory.num_gists 0 fit these weights"
        yield "needs", "gist bank", found, note if found == "none" else ""
    if told.misfit:
        yield "needs", "weights that fit", "missing", told.misfit
    for what, names in (("tensors", told.missing_tensors), ("shapes", told.odd_shapes)):
        if names:
            yield "needs", what, f"{len(names)} wrong", few(names)


def _size_rows(told: Description) -> Iterator[_Row]:
    """Yield the sizes, and the presets that have them."""
    for path, value in told.sizes.items():
        yield "size", path, _text(value), ""
    for name, reasons in told.presets.items():
        yield "preset", name, "no" if reasons else "fits", "; ".join(reasons[:2])


def _field_rows(told: Description) -> Iterator[_Row]:
    """Yield the fields of a contract that the file cannot know."""
    for field in told.fields:
        if field.source == "told":
            default = "no default" if field.default is None else f"default {_text(field.default)}"
            yield "to be told", field.path, default, field.hint
        elif field.source == "contract":
            yield "contract says", field.path, _text(field.value), ""


def _text(value: object) -> str:
    """Return a value in words."""
    if isinstance(value, tuple | list):
        more = f" and {len(value) - _LISTED} more" if len(value) > _LISTED else ""
        return ", ".join(map(_text, value[:_LISTED])) + more if value else "none"
    return "true" if value is True else "false" if value is False else str(value)


def _note(told: Description) -> str:
    """Return the closing sentence."""
    if not told.is_checkpoint:
        return f"{told.path} is no checkpoint: {told.kind}; {told.hint}"
    if not told.name_map:
        return f"{told.path}: {told.hint}"
    in_the_way = [part for part in told.parts if part.name == "in the way"]
    lacking = [need.what for need in told.needs if not need.found and need.what != "instructions"]
    lacking += [f"{len(told.missing_tensors)} tensors"] if told.missing_tensors else []
    parameters = math.fsum(part.num_parameters for part in told.parts if part.use == "used")
    size = f"{told.path}: {told.kind}, {parameters:,.0f} parameters that would be used"
    refused = sum(len(part.names) for part in in_the_way)
    said = [
        f"missing: {', '.join(lacking)}" if lacking else "nothing is missing",
        *([f"{refused} names are refused"] if refused else []),
        *(["the weights do not fit the contract"] if told.misfit else []),
        _fields_said(told),
    ]
    is_whole = not (in_the_way or told.missing_tensors or told.odd_shapes or told.misfit)
    return f"{size}; {'; '.join(said)}{_export_line(told) if is_whole else ''}"


def _fields_said(told: Description) -> str:
    """Say how many fields nobody has told, or whose word they are."""
    count = sum(field.source in ("told", "contract") for field in told.fields)
    if any(field.source == "contract" for field in told.fields):
        return f"{count} fields are the contract's word alone: compare them with the training"
    return f"{count} fields of the contract to be told"


def _export_line(told: Description) -> str:
    """Return the command that exports, with what is missing named in it."""
    missing = {need.what for need in told.needs if not need.found}
    fitting = [name for name, reasons in told.presets.items() if not reasons]
    contract = "--contract FILE" if len(fitting) != 1 else f"--preset {fitting[0]}"
    options = {
        "contract": contract,
        "statistics": "--stats FILE",
        "video encoder": "--vae FILE",
    }
    more = [option for what, option in options.items() if what in missing]
    if more:
        return f"\nto export it: {' '.join(more)} --out BUNDLE in place of --describe"
    return "\nto export it: the same command, with --out BUNDLE in place of --describe"
