"""Trees of sections, as YAML gives them, and dotted keys into them."""

import os
from collections.abc import Iterator
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


def assign(tree: dict[str, Any], key: str, value: Any) -> list[str]:
    """Sets a dotted key, and returns the sections made on the way; no key lies deeper than variants.name.key."""
    *sections, last = key.split(".", 2)
    made = []
    for depth, section in enumerate(sections, 1):
        if not isinstance(tree.get(section), dict):
            tree[section] = {}
            made.append(".".join(sections[:depth]))
        tree = tree[section]
    if value != {} or not isinstance(tree.get(last), dict):
        tree[last] = value
    return made


def without(tree: dict[str, Any], locs: list[Loc]) -> dict[str, Any]:
    """A copy that lacks the keys at these locations; for an element of a list, the whole list."""
    copy = {key: dict(value) if isinstance(value, dict) else value for key, value in tree.items()}
    for head, *rest in locs:
        section = copy.get(str(head))
        if rest and isinstance(section, dict):
            section.pop(rest[0], None)
        else:
            copy.pop(str(head), None)
    return copy


def is_path(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 4096 and value.isprintable()


def make_absolute(tree: dict[str, Any], folder: Path, path: str = "") -> None:
    """Resolves problem.data_dir and a .npz problem.dataset, in variants too, against a folder."""
    for key, value in tree.items():
        inner = f"{path}.{key}"
        if isinstance(value, dict):
            make_absolute(value, folder, inner)
        elif is_path(value) and (inner.endswith(".problem.data_dir") or (inner.endswith(".problem.dataset") and value.endswith(".npz"))):
            tree[key] = os.path.abspath(folder / value)
