"""Trees of sections, as YAML gives them, and dotted keys into them."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Loc = tuple[int | str, ...]


def dotted(loc: Loc) -> str:
    """The key of one of pydantic's locations."""
    return ".".join(map(str, loc)).removesuffix(".[key]")


def flat(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf below `path`; an empty section is a leaf."""
    if isinstance(tree, dict) and (tree or not path):
        for key, value in tree.items():
            yield from flat(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, tree


def names_first(items: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The same (dotted key, value), those of names before all others, as `assign` needs them."""
    return sorted(items, key=lambda item: not item[0].endswith(".name"))


def assign(tree: dict[str, Any], key: str, value: Any) -> list[str]:
    """Sets a dotted key, and returns the sections made on the way; a variant keeps its own keys dotted.

    A section of another name is another thing: what the old one said beside its name goes.
    """
    *sections, last = key.split(".", 2) if key.startswith("variants.") else key.split(".")
    made = []
    for depth, section in enumerate(sections, 1):
        if not isinstance(tree.get(section), dict):
            tree[section] = {}
            made.append(".".join(sections[:depth]))
        tree = tree[section]
    if (
        sections
        and last == "name"
        and not key.startswith("variants.")
        and tree.get("name") not in (None, value)
    ):
        tree.clear()
    if value != {} or not isinstance(tree.get(last), dict):
        tree[last] = value
    return made


def without(tree: dict[str, Any], locs: list[Loc]) -> dict[str, Any]:
    """A copy that lacks the keys at these locations; for an element of a list, the whole list."""
    copy = _copy(tree)
    for loc in locs:
        section, key = copy, loc[0]
        for inner in loc[1:]:
            if not isinstance(section.get(key), dict) or inner not in section[key]:
                break  # at an element of a list, or at a key that is itself wrong
            section, key = section[key], inner
        section.pop(key, None)
    return copy


def _copy(tree: Any) -> Any:
    return {key: _copy(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


def is_path(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 4096 and value.isprintable()


def make_absolute(tree: dict[str, Any], folder: Path, path: str = "") -> None:
    """Resolves problem.data_dir and a .npz problem.dataset, in variants too, against a folder."""
    for key, value in tree.items():
        inner = f"{path}.{key}"
        if isinstance(value, dict):
            make_absolute(value, folder, inner)
        elif is_path(value) and _names_a_path(inner, value):
            tree[key] = os.path.abspath(folder / value)


def _names_a_path(key: str, value: str) -> bool:
    return key.endswith(".problem.data_dir") or (key.endswith(".problem.dataset") and value.endswith(".npz"))
