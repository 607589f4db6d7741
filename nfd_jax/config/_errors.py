"""What is wrong with a config, in words: one line a problem, `file:line: key.path: what is wrong, what is
allowed`.
"""

import difflib
import math
import re
import reprlib
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from nfd_jax.config._tree import Loc

Problems = list[tuple[str, str]]  # (dotted key, message)

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_WORDS = {None: "null", True: "true", False: "false"}


class ConfigError(ValueError):
    """A config that cannot be used. `problems`: lines "file:line: key.path: what is wrong, what is
    allowed".
    """

    def __init__(self, problems: list[str]):
        self.problems = tuple(_one_line(problem) for problem in problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self):
        return type(self), (list(self.problems),)


def locate(key: str, message: str, places: dict[str, str]) -> str:
    """The line for a problem with a dotted key; a key that is not written anywhere is placed where its
    section is.
    """
    parent, _, last = key.rpartition(".")
    if last.isdigit() and key not in places:  # the single value that stands for a list
        key = parent
    anchor = key
    while anchor and anchor not in places:
        anchor = anchor.rpartition(".")[0]
    return f"{places[anchor]}: {key}: {message}"


def in_order(problems: list[str], file: str) -> list[str]:
    """Sorted by their line of the file; those from elsewhere last."""

    def line(problem: str) -> float:
        number = problem.removeprefix(f"{file}:").partition(":")[0]
        return int(number) if number.isdigit() else math.inf

    return sorted(problems, key=line)


def explain(model: type[BaseModel], error: ErrorDetails) -> tuple[str, Loc | None]:
    """One of pydantic's errors as what is wrong and allowed; and for an unknown key the location of the one
    meant.
    """
    loc, got = error["loc"], error["input"]
    if error["type"] == "in_words":  # a validator that knows better than the field's description
        return error["msg"], None
    owner, inner = _owner(model, loc)
    if error["type"] == "extra_forbidden":
        keys = list(owner.model_fields)
        close = closest(inner[0], keys)
        return f"unknown key{hint(close)}, allowed: {', '.join(keys)}", (*loc[:-1], close) if close else None
    if not inner:
        return f"got {show(got)}, allowed: a section with the keys {', '.join(owner.model_fields)}", None
    rule = owner.model_fields[str(inner[0])].description or ""
    if error["type"] == "missing":
        return f"missing, required: {rule}", None
    return f"got {show(got)}{hint(closest(got, re.findall(r'[a-z0-9_]+', rule)))}, allowed: {rule}", None


def show(value: Any) -> str:
    """A value as YAML would have it, shortened."""
    return _WORDS[value] if value is None or isinstance(value, bool) else _SHORT.repr(value)


def _owner(model: type[BaseModel], loc: Loc) -> tuple[type[BaseModel], Loc]:
    """The section a location lies in, and the rest of the location; () where it is the section itself."""
    field = model.model_fields.get(str(loc[0])) if loc else None
    kinds = (field.annotation, *get_args(field.annotation)) if field else ()
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return _owner(kind, loc[1:])
    return model, loc


def closest(word: Any, words: list[str]) -> str | None:
    """The one of `words` that a misspelt word most likely meant."""
    return next(iter(difflib.get_close_matches(word, words, 1, 0.7)), None) if isinstance(word, str) else None


def hint(word: str | None) -> str:
    return f" (did you mean {word}?)" if word else ""


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
