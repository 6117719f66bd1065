"""Name maps: whose checkpoint a file is, and what each of its tensors is called here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Literal

import torch

from memorywam_export.checkpoints.checkpoint_files import TensorFile, few
from memorywam_export.checkpoints.name_map_format import (
    MapFile,
    NamedReason,
    Rule,
    map_file_from_json,
    map_file_from_path,
)
from memorywam_export.checkpoints.name_patterns import NamePattern
from memorywam_export.checkpoints.weights import Weight
from memorywam_runtime.errors import CheckpointError, InputError

__all__ = ["MappedNames", "NameMap", "chosen_map", "recognised_maps", "shipped_maps"]


@dataclass(slots=True)
class MappedNames:
    """What becomes of every name in a file."""

    weights: dict[str, Weight] = field(default_factory=dict[str, Weight])
    """Those that are used, under our names."""
    upstream: dict[str, str] = field(default_factory=dict[str, str])
    """Our name to the file's, of those that are used."""
    unused: dict[str, str] = field(default_factory=dict[str, str])
    """The file's name to why it is left out."""
    refused: dict[str, str] = field(default_factory=dict[str, str])
    """The file's name to why it cannot be used."""
    unknown: list[str] = field(default_factory=list[str])
    """Names that the map does not have."""


@dataclass(frozen=True, slots=True)
class _Form:
    """One form of upstream's names, and the entry of the map that it belongs to."""

    pattern: NamePattern
    kind: Literal["rule", "unused", "refused", "value"]
    entry: Rule | NamedReason


class NameMap:
    """A name map, ready for use.

    Raises:
        InputError: a pattern that is none, or a rule whose two names differ in their placeholders.
    """

    def __init__(self, file: MapFile) -> None:
        self.file = file
        self._markers = [[self._pattern(each) for each in group] for group in file.markers]
        self._without = [self._pattern(each) for each in file.without]
        self._lacks = [self._pattern(each) for each in file.lacks]
        self._ours = {rule: self._pattern(rule.ours) for rule in file.rules}
        self._upstream = {rule: self._pattern(rule.upstream) for rule in file.rules}
        self._forms = [
            *(form for rule in file.rules for form in self._forms_of(rule, "rule")),
            *(form for entry in file.unused for form in self._forms_of(entry, "unused")),
            *(form for entry in file.refused for form in self._forms_of(entry, "refused")),
            *(form for entry in file.values for form in self._forms_of(entry, "value")),
        ]
        for rule in file.rules:
            wanted = set(self._ours[rule].placeholders)
            for text in (rule.upstream, *rule.also):
                if set(self._pattern(text).placeholders) != wanted:
                    raise InputError(
                        f"name map '{file.name}': '{text}' and '{rule.ours}' differ in their "
                        "placeholders; expected the same"
                    )

    @property
    def name(self) -> str:
        """What it is called."""
        return self.file.name

    def prefix_in(self, file: TensorFile) -> str | None:
        """Return what stands in front of every name, or None where the file is something else."""
        if file.container not in self.file.containers:
            return None
        for prefix in self.file.prefixes:
            names = [name.removeprefix(prefix) for name in file.names if name.startswith(prefix)]
            has_all = all(_matches_any(group, names) for group in self._markers)
            if has_all and not _matches_any(self._without, names):
                return prefix
        return None

    def applied(self, file: TensorFile, prefix: str = "") -> MappedNames:
        """Say of every name in a file what becomes of it.

        Raises:
            CheckpointError: two names of the file stand for one of ours.
            InputError: two entries of the map have a form that a name matches.
        """
        found = MappedNames()
        for name, weight in file.tensors.items():
            self._place(name, weight, file, prefix, found)
        for name, value in file.values.items():
            form = self._form_of(name.removeprefix(prefix))
            if form is None or form[0].kind not in ("value", "unused"):
                found.refused[name] = f"found {type(value).__name__}, not a tensor"
        return found

    def upstream_of(self, name: str) -> str | None:
        """Return what upstream calls a tensor of ours, without prefix; None if it has no such.

        Raises:
            InputError: two rules of the map make this name.
        """
        found = [
            (rule, values)
            for rule, pattern in self._ours.items()
            if (values := pattern.match(name)) is not None
        ]
        if len(found) > 1:
            raise InputError(
                f"name map '{self.name}': '{found[0][0].upstream}' and '{found[1][0].upstream}' "
                f"both stand for '{name}'; expected one"
            )
        return self._upstream[found[0][0]].fill(found[0][1]) if found else None

    def check_bijective(self, names: Iterable[str]) -> None:
        """See that each of our names has exactly one upstream name, and the reverse.

        Args:
            names: Of every weight that a model has.

        Raises:
            InputError: a name that no rule, or more than one, makes; or one that does not lead
                back.
        """
        seen: dict[str, str] = {}
        for name in names:
            upstream = self.upstream_of(name)
            if upstream is None:
                if _matches_any(self._lacks, [name]):
                    continue
                raise InputError(
                    f"name map '{self.name}': no rule makes '{name}'; expected one, or the name "
                    "among those that it lacks"
                )
            form = self._form_of(upstream)
            back = form and form[0].kind == "rule" and self._ours_of(form)
            if back != name or upstream in seen:
                raise InputError(
                    f"name map '{self.name}': '{name}' is '{upstream}' upstream, which stands for "
                    f"'{seen.get(upstream, back)}' here; expected the way back"
                )
            seen[upstream] = name

    def renamed(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return tensors of ours under upstream's names and in its shapes, as it writes them.

        Args:
            tensors: By our names; those that upstream lacks are left out.
        """
        found = {}
        for name, tensor in tensors.items():
            upstream = self.upstream_of(name)
            form = None if upstream is None else self._form_of(upstream)
            if upstream is not None and form is not None and isinstance(form[0].entry, Rule):
                axes = (1,) * form[0].entry.leading_axes
                found[upstream] = tensor.reshape(*axes, *tensor.shape)
        return found

    def _place(
        self, name: str, weight: Weight, file: TensorFile, prefix: str, found: MappedNames
    ) -> None:
        """Say of one tensor what becomes of it."""
        form = self._form_of(name.removeprefix(prefix)) if name.startswith(prefix) else None
        if form is None or form[0].kind == "value":
            found.unknown.append(name)
        elif isinstance(form[0].entry, Rule):
            ours = self._ours_of(form)
            if ours in found.weights:
                raise CheckpointError(
                    f"{file.path}: '{found.upstream[ours]}' and '{name}' both stand for '{ours}' "
                    f"(name map '{self.name}'); expected one of them"
                )
            found.upstream[ours] = name
            found.weights[ours] = _as_ours(weight, ours, form[0].entry.leading_axes)
        elif form[0].kind == "refused":
            found.refused[name] = form[0].entry.why
        elif self._has_twin(form, weight, file, prefix):
            found.unused[name] = form[0].entry.why
        else:
            found.unknown.append(name)

    def _has_twin(
        self, form: tuple[_Form, dict[str, str]], weight: Weight, file: TensorFile, prefix: str
    ) -> bool:
        """Is the tensor that this one repeats there, if it must be?"""
        entry = form[0].entry
        if isinstance(entry, Rule) or not entry.twin:
            return True
        twin = file.tensors.get(prefix + self._pattern(entry.twin).fill(form[1]))
        return twin is not None and (twin.shape, twin.dtype) == (weight.shape, weight.dtype)

    def _form_of(self, name: str) -> tuple[_Form, dict[str, str]] | None:
        """Return the one form that a name has, and what its placeholders stand for."""
        found = [
            (form, values)
            for form in self._forms
            if (values := form.pattern.match(name)) is not None
        ]
        if len(found) > 1:
            texts = [form.pattern.text for form, _ in found]
            raise InputError(
                f"name map '{self.name}': '{name}' has the forms '{texts[0]}' and '{texts[1]}'; "
                "expected one"
            )
        return found[0] if found else None

    def _ours_of(self, form: tuple[_Form, dict[str, str]]) -> str:
        """Return our name for an upstream name of this form."""
        rule = form[0].entry
        assert isinstance(rule, Rule)
        return self._ours[rule].fill(form[1])

    def _forms_of(
        self, entry: Rule | NamedReason, kind: Literal["rule", "unused", "refused", "value"]
    ) -> list[_Form]:
        """Return all forms of one entry."""
        return [_Form(self._pattern(text), kind, entry) for text in (entry.upstream, *entry.also)]

    def _pattern(self, text: str) -> NamePattern:
        """Return a pattern with this map's placeholders."""
        return NamePattern(text, self.file.placeholders)


@cache
def shipped_maps() -> Mapping[str, NameMap]:
    """Return the name maps that ship with the package, by name."""
    folder = resources.files("memorywam_export.checkpoints") / "upstream_names"
    files = sorted((each for each in folder.iterdir()), key=lambda each: each.name)
    maps = [NameMap(map_file_from_json(each.read_bytes(), each.name)) for each in files]
    return {each.name: each for each in maps}


def recognised_maps(
    file: TensorFile, holds: Literal["checkpoint", "encoder"] = "checkpoint"
) -> list[NameMap]:
    """Return the maps that ship whose markers a file has."""
    return [
        each
        for each in shipped_maps().values()
        if each.file.automatic and each.file.holds == holds and each.prefix_in(file) is not None
    ]


def chosen_map(
    file: TensorFile,
    argument: str | None = None,
    holds: Literal["checkpoint", "encoder"] = "checkpoint",
) -> tuple[NameMap, str]:
    """Return the name map of a file, and the prefix of its names.

    Args:
        file: The tensors.
        argument: A map's name or file; by default the one map whose markers the file has.
        holds: What it should be.

    Raises:
        CheckpointError: no map fits, or more than one.
        InputError: no such map, or a file that is none.
    """
    known = {name: each for name, each in shipped_maps().items() if each.file.holds == holds}
    if argument is not None:
        path = Path(argument)
        if argument not in known and not path.is_file():
            raise InputError(
                f"no name map '{argument}'; expected a file, or one of {', '.join(known)}"
            )
        chosen = known[argument] if argument in known else NameMap(map_file_from_path(path))
        found = [chosen] if chosen.prefix_in(file) is not None else []
        tried = f"name map '{chosen.name}' does not fit: its markers are {_markers(chosen)}"
    else:
        found = recognised_maps(file, holds)
        tried = f"no name map fits, of {', '.join(known)}"
    if len(found) > 1:
        raise CheckpointError(
            f"{file.path}: the name maps {', '.join(each.name for each in found)} fit; choose one "
            "with --name-map NAME"
        )
    if not found:
        raise CheckpointError(
            f"{file.path}: found the names {few(sorted(file.names))}; {tried}; "
            "`memorywam export --describe` says what the file is, --name-map FILE names a map of "
            "your own"
        )
    return found[0], found[0].prefix_in(file) or ""


def _markers(name_map: NameMap) -> str:
    """Return a map's markers in words."""
    return ", ".join(f"'{' or '.join(group)}'" for group in name_map.file.markers)


def _matches_any(patterns: Iterable[NamePattern], names: Iterable[str]) -> bool:
    """Has any of the names any of the forms?"""
    names = list(names)
    return any(pattern.match(name) is not None for pattern in patterns for name in names)


def _as_ours(weight: Weight, name: str, leading_axes: int) -> Weight:
    """Return a weight under our name, without upstream's leading axes."""
    if not leading_axes or weight.shape[:leading_axes] != (1,) * leading_axes:
        return replace(weight, name=name)
    shape = weight.shape[leading_axes:]
    return Weight(name, shape, weight.dtype, partial(_reshaped, weight, shape))


def _reshaped(weight: Weight, shape: tuple[int, ...]) -> torch.Tensor:
    """Load a weight in another shape."""
    return weight.load().reshape(shape)
