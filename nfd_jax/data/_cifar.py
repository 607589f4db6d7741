"""CIFAR-10's python batches. A pickle is a program, so nothing of it is run: a small interpreter knows the
opcodes of Python's own picklers for a dict with an array of bytes and a list of labels, and builds values
that are flat (scalars, lists of scalars, short tuples), so that neither sharing nor nesting makes any larger
than its file. It takes at most MAX_OPCODES steps, five times the file's memory and 200 bytes a step.
"""

import pickle
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from nfd_jax.data._files import parsing, shown
from nfd_jax.data._formats import CIFAR_PIXELS, read_batch

MAX_OPCODES = 10**6
"""A batch of 10 000 images with names has about 60 000."""

_LONGEST_TUPLE, _LONGEST_KEY, _LARGEST = 9, 64, 2**63

_NAMES = (
    "numpy.core.multiarray._reconstruct",
    "numpy.core.numeric._frombuffer",
    "numpy.ndarray",
    "numpy.dtype",
    "_codecs.encode",
)

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_INTEGERS = {"INT", "BININT", "BININT1", "BININT2", "LONG1"}
_STRINGS = {
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS, _GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}
_OTHERS = (
    "PROTO", "FRAME", "STOP", "MARK", "TUPLE", "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT",
    "DICT", "SETITEM", "SETITEMS", "MEMOIZE", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
)  # fmt: skip
_KNOWN = {*_CONSTANTS, *_INTEGERS, *_STRINGS, *_TUPLES, *_PUTS, *_GETS, *_OTHERS}
_SCALARS = {type(None), bool, int, str, bytes, bytearray}


@dataclass(frozen=True)
class _Name:
    """One of _NAMES, as a value."""

    full: str


class _Bytes:
    """Stands for the dtype of unsigned bytes."""


class _Array:
    """Stands for an array of unsigned bytes: its shape, order and content, once they are known."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: tuple[Any, Any, bytes | bytearray] | None = None

    def images(self) -> np.ndarray:
        if self.state is None:
            raise ValueError("data is an array without content")
        shape, fortran, content = self.state
        rows = len(content) // CIFAR_PIXELS
        if shape != (rows, CIFAR_PIXELS) or rows * CIFAR_PIXELS != len(content):
            raise ValueError(f"data of shape {shape} with {len(content)} bytes")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


def read_cifar_pickle(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3072) bytes and (N,) labels of one batch of the python version. Raises DataError."""
    with parsing(path, "a CIFAR-10 python batch: a dict with data (N, 3072) of unsigned bytes and N labels"):
        entries = _Interpreter(read_batch(path)).run()
        data, labels = entries.get(b"data"), entries.get(b"labels")
        if not isinstance(data, _Array) or type(labels) is not list:
            raise ValueError("no dict with an array as data and a list as labels")
        images = data.images()
        if len(labels) != len(images) or not all(type(label) is int and 0 <= label <= 9 for label in labels):
            raise ValueError(f"{len(labels)} labels for {len(images)} images, or not all of 0 to 9")
        return images, np.array(labels, np.int64)


def _opcodes(stream: BytesIO) -> Iterator[tuple[str, Any]]:
    """Names and arguments, to the end; an opcode that is not known is refused before its argument is read."""
    for _ in range(MAX_OPCODES):
        code = stream.read(1)
        opcode = pickletools.code2op.get(code.decode("latin1"))
        if opcode is None or opcode.name not in _KNOWN:
            found = opcode.name if opcode else f"byte {code.hex()}" if code else "the end of the file"
            raise ValueError(f"{found} where the pickle of an array and labels has none")
        yield opcode.name, opcode.arg.reader(stream) if opcode.arg else None
    raise ValueError(f"more than {MAX_OPCODES} opcodes")


class _Interpreter:
    def __init__(self, content: bytes):
        self._stream = BytesIO(content)
        self._to_encode = len(content)  # characters; each of an honest file is encoded once at most
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> dict[bytes, Any]:
        """The dict that the pickle describes."""
        for name, argument in _opcodes(self._stream):
            if name == "STOP":
                break
            self._step(name, argument)
        found = self._pop()
        if self._stack or self._stream.read(1) or type(found) is not dict:
            raise ValueError("something else than one dict")
        return found

    def _step(self, name: str, argument: Any) -> None:
        stack, memo = self._stack, self._memo
        if name in _INTEGERS or name in _STRINGS:
            if type(argument) is int and not -_LARGEST <= argument < _LARGEST:
                raise ValueError("an integer of more than 64 bits")
            stack.append(argument)
        elif name in _PUTS or name == "MEMOIZE":
            memo[len(memo) if name == "MEMOIZE" else argument] = self._top()
        elif name in _GETS:
            stack.append(memo[argument])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            stack.append(_flat_tuple([self._pop() for _ in range(_TUPLES[name])][::-1]))
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name not in ("PROTO", "FRAME"):
            getattr(self, f"_{name.lower()}")(argument)

    def _top(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise ValueError("nothing to take from the stack")
        return self._stack[-1]

    def _pop(self) -> Any:
        self._top()
        return self._stack.pop()

    def _pop_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _tuple(self, _: None) -> None:
        self._stack.append(_flat_tuple(self._pop_mark()))

    def _empty_list(self, _: None) -> None:
        self._stack.append([])

    def _list(self, _: None) -> None:
        self._stack.append(_scalars(self._pop_mark()))

    def _append(self, _: None) -> None:
        self._extend([self._pop()])

    def _appends(self, _: None) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: list[Any]) -> None:
        if type(self._top()) is not list:
            raise ValueError("items for something that is no list")
        self._top().extend(_scalars(items))

    def _empty_dict(self, _: None) -> None:
        self._stack.append({})

    def _dict(self, _: None) -> None:
        items = self._pop_mark()
        self._stack.append({})
        self._update(items)

    def _setitem(self, _: None) -> None:
        value = self._pop()
        self._update([self._pop(), value])

    def _setitems(self, _: None) -> None:
        self._update(self._pop_mark())

    def _update(self, items: list[Any]) -> None:
        if type(self._top()) is not dict or len(items) % 2:
            raise ValueError("keys and values for something that is no dict, or a key alone")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, bytes) or len(key) > _LONGEST_KEY:
                raise ValueError("a key that is no short name")
            if type(value) not in (*_SCALARS, list, _Array):
                raise ValueError("a dict with other values than scalars, lists and arrays")
            self._top()[self._encoded(key)] = value

    def _global(self, argument: str) -> None:
        self._name(*argument.split(" ", 1))

    def _stack_global(self, _: None) -> None:
        name = self._pop()
        self._name(self._pop(), name)

    def _name(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise ValueError("a name that is no string")
        full = f"{module[:99]}.{name[:99]}".replace("numpy._core.", "numpy.core.")
        if full not in _NAMES:
            named = f"it names {shown(full, 60)}, and a pickle here may name nothing but numpy arrays"
            raise pickle.UnpicklingError(named)
        self._stack.append(_Name(full))

    def _reduce(self, _: None) -> None:
        arguments, function = self._pop(), self._pop()
        match function.full if type(function) is _Name else None, arguments:
            case "_codecs.encode", (str(text), "latin1" | "latin-1"):
                value = self._encoded(text)
            case "numpy.dtype", ("u1" | b"u1", *_):
                value = _Bytes()
            case "numpy.core.multiarray._reconstruct", (_Name("numpy.ndarray"), *_):
                value = _Array()
            case "numpy.core.numeric._frombuffer", (content, _Bytes(), tuple(shape), "C" | "F" as order):
                value = _Array()
                value.state = shape, order == "F", self._encoded(content)
            case _:
                raise ValueError("a call that makes no array of unsigned bytes")
        self._stack.append(value)

    def _build(self, _: None) -> None:
        match self._pop(), self._top():
            case (int(), tuple(shape), _Bytes(), int(fortran), content), _Array() as array:
                array.state = shape, bool(fortran), self._encoded(content)
            case tuple(), _Bytes():  # byte order and alignment: of single bytes there is one
                pass
            case _:
                raise ValueError("a state for something that is no array of unsigned bytes")

    def _encoded(self, value: Any) -> bytes | bytearray:
        """Bytes as they are, or from the latin1 string that old protocols have in their place."""
        if isinstance(value, str):
            self._to_encode -= len(value)
            if self._to_encode < 0:
                raise ValueError("strings that are used over and over")
            return value.encode("latin1")
        if not isinstance(value, bytes | bytearray):
            raise ValueError("no bytes where an array has its content")
        return value


def _scalars(items: list[Any]) -> list[Any]:
    if not all(type(item) in _SCALARS for item in items):
        raise ValueError("a list of more than numbers and strings")
    return items


def _flat_tuple(items: list[Any]) -> tuple[Any, ...]:
    """At most one more level of tuples in it: shapes."""
    if len(items) > _LONGEST_TUPLE:
        raise ValueError(f"a tuple of more than {_LONGEST_TUPLE}")
    for item in items:
        flat = type(item) is tuple and all(type(inner) in _SCALARS for inner in item)
        if type(item) not in (*_SCALARS, _Name, _Bytes) and not flat:
            raise ValueError("a tuple of more than numbers, strings and a shape")
    return tuple(items)
