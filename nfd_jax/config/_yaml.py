"""Strict YAML: plain trees of dict, list and scalars, with the line of every key, and nothing a config has no
use for.

Refused: anchors, aliases and tags (so no bombs and no objects), several documents, duplicate keys, more than
1 MiB, 20 levels or 10 000 values. Plain scalars follow YAML 1.2's core schema: `1e-3` is a number, `yes` and
`1:30` are text.
"""

import math
import re
from typing import Any

import yaml

MAX_BYTES, MAX_DEPTH, MAX_VALUES, MAX_KEY = 2**20, 20, 10_000, 200

_INT = re.compile(r"[-+]?[0-9][0-9_]{0,39}")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | float | None] = {"null": None, "true": True, "false": False, "~": None, "": None}
_WORDS |= {".nan": math.nan, ".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf}
_WORDS |= {form: value for word, value in _WORDS.items() for form in (word.title(), word.upper())}


class YamlError(ValueError):
    """Text that is no tree at all: `line` (from 1) and what is wrong."""

    def __init__(self, line: int, message: str):
        super().__init__(message)
        self.line = line


def parse(data: bytes) -> tuple[Any, dict[str, int], list[tuple[str, int, str]]]:
    """The tree, the line of every dotted key ("" for the whole), and duplicate keys as (key, line, message).

    Of duplicate keys the first one counts. Raises YamlError.
    """
    if len(data) > MAX_BYTES:
        raise YamlError(1, f"larger than {MAX_BYTES} bytes, the most a config may have")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise YamlError(
            line, f"byte 0x{data[error.start]:02x} is not UTF-8, the only encoding allowed"
        ) from None
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except YamlError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(mark.line + 1 if mark else 1, f"not valid YAML: {what}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(line, f"character #x{error.character:04x} is not allowed in YAML") from None
    except (ValueError, OverflowError):  # PyYAML's int() and chr()
        raise YamlError(
            loader.line + 1 if loader else 1, "not valid YAML: an escape or %directive is too large"
        ) from None
    lines, duplicates = {"": 1}, []
    return (None if node is None else _build(node, "", lines, duplicates)), lines, duplicates


def dump(tree: Any) -> str:
    """YAML text that `parse` reads back as the same tree, innermost lists on one line."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120)


class _Loader(yaml.SafeLoader):
    """Composes nodes only; what a plain scalar means is `_scalar`'s business."""

    def __init__(self, text: str):
        super().__init__(text)
        self.yaml_implicit_resolvers = {}
        self.depth = self.values = 0

    def compose_node(self, parent, index):
        event = self.peek_event()
        self.values += 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            problem = "anchors (&) and aliases (*) are not allowed; write the value out, or in quotes"
        elif getattr(event, "tag", None):
            problem = "tags (!) are not allowed; write a plain value, or one in quotes"
        elif self.depth >= MAX_DEPTH:
            problem = f"nested deeper than {MAX_DEPTH} levels, the most allowed"
        elif self.values > MAX_VALUES:
            problem = f"more than {MAX_VALUES} keys and values, the most allowed"
        else:
            self.depth += 1
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node
        raise YamlError(event.start_mark.line + 1, problem)


class _Dumper(yaml.SafeDumper):
    """Also puts text in quotes that `_scalar` would take for a number."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(_INT.pattern + r"\Z"), list("-+0123456789"))
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(_FLOAT.pattern + r"\Z"), list("-+.0123456789")
)


def _build(node: yaml.Node, path: str, lines: dict[str, int], duplicates: list[tuple[str, int, str]]) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.style else _scalar(node.value)
    tree: dict[str, Any] = {}
    first: dict[str, int] = {}
    items = enumerate(node.value) if isinstance(node, yaml.SequenceNode) else node.value
    for key, value in items:
        if isinstance(key, int):
            name, line = str(key), value.start_mark.line + 1
        elif isinstance(key, yaml.ScalarNode):
            name, line = key.value, key.start_mark.line + 1
        else:
            raise YamlError(
                key.start_mark.line + 1, "a list or section cannot be a key; keys are plain words"
            )
        if len(name) > MAX_KEY:
            raise YamlError(line, f"a key of {len(name)} characters, at most {MAX_KEY} are allowed")
        inner = f"{path}.{name}" if path else name
        if name in first:
            duplicates.append((inner, line, f"duplicate key, first given on line {first[name]}; keep one"))
            continue
        first[name] = lines[inner] = line
        tree[name] = _build(value, inner, lines, duplicates)
    return list(tree.values()) if isinstance(node, yaml.SequenceNode) else tree


def _scalar(text: str) -> bool | int | float | str | None:
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text.replace("_", ""))
    return float(text) if _FLOAT.fullmatch(text) else text
