"""A text as a tree, overrides applied to it, and whatever is wrong put in its place, `file:line` or `--set
…`.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from nfd_jax.config import _yaml
from nfd_jax.config._errors import ConfigError, Problems, in_order, locate, show
from nfd_jax.config._tree import assign, flat, make_absolute, names_first

Config = TypeVar("Config")


def read(
    data: bytes,
    file: str,
    overrides: Iterable[str],
    folder: Path | None,
    check: Callable[[dict[str, Any]], tuple[Config | None, Problems]],
) -> Config:
    """What `check` makes of a text's tree with `overrides` applied and, given a folder, its paths made
    absolute.

    Raises ConfigError: the text's own problems, the overrides' and what `check` found, in the order of their
    lines.
    """
    try:
        tree, lines, duplicates = _yaml.parse(data)
    except _yaml.YamlError as error:
        raise ConfigError([f"{file}:{error.line}: {error}"]) from None
    if not isinstance(tree, dict):
        got = "empty" if tree is None else f"only {show(tree)}"
        raise ConfigError(
            [f"{file}:1: the file is {got}, allowed: name, a finite or a limit section, and more keys"]
        )
    places = {key: f"{file}:{line}" for key, line in lines.items()}
    problems = [f"{file}:{line}: {key}: {message}" for key, line, message in duplicates]
    problems += [problem for override in overrides for problem in _set(tree, places, override)]
    if folder is not None:
        make_absolute(tree, folder)
    config, found = check(tree)
    problems += [locate(key, message, places) for key, message in found]
    if config is None or problems:
        raise ConfigError(in_order(problems, file))
    return config


def _set(tree: dict[str, Any], places: dict[str, str], override: str) -> list[str]:
    """Applies "a.b=v" to the tree and its places; the problems with its text."""
    place = f"--set {override if len(override) <= 200 else override[:197] + '...'}"
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        return [f"{place}: not an override, allowed: key.path=value"]
    try:
        value, _, duplicates = _yaml.parse(text.encode(errors="surrogateescape"))
    except _yaml.YamlError as error:
        return [f"{place}: {key}: {error}"]
    for leaf, new in names_first(flat(value, key)):
        for stale in [old for old in places if f"{old}.".startswith(f"{leaf}.")]:
            del places[stale]
        places |= dict.fromkeys([leaf, *assign(tree, leaf, new)], place)
    return [f"{place}: {key}.{inner}: {message}" for inner, _, message in duplicates]
