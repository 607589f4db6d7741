"""What every reader shares: the error it raises, what counts as damage, and how much a file may hold."""

import os
import pickle
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_BYTES = 2**32
"""Of the arrays of one file together, unpacked: three times CIFAR-10 as float64."""

DEFLATE_RATIO = 1032
"""How many bytes deflate unpacks from one at most: a file that claims more is not as it says."""

# What the parsers of the standard library and numpy raise on hostile or damaged files.
_FAULTS = (
    OSError, EOFError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError,
    MemoryError, SyntaxError, ImportError, struct.error, zlib.error, zipfile.BadZipFile, tokenize.TokenError,
    pickle.UnpicklingError,
)  # fmt: skip


class DataError(ValueError):
    """A data set that is missing, malformed or too small: one line with what was found and what is
    expected.
    """


@contextmanager
def parsing(path: Path, expected: str) -> Iterator[None]:
    """Turn whatever a parser raises into one DataError naming the path."""
    try:
        if not os.path.isfile(path):  # also refuses pipes and devices, which would block
            raise DataError(f"{path}: no such file; expected {expected}")
        yield
    except DataError:
        raise
    except _FAULTS as error:
        found = shown(str(error), 200) or "damaged or too large"
        raise DataError(f"{path}: {type(error).__name__}: {found}; expected {expected}") from error


def shown(text: str, most: int = 40) -> str:
    """Text from a file as one short line."""
    return "".join(char if char.isprintable() else " " for char in " ".join(text[: 4 * most].split()))[:most]


def unpackable(size: int, packed: int) -> bool:
    """Whether deflate could have packed `size` bytes into `packed`, headers aside."""
    return size <= DEFLATE_RATIO * packed + 2**16
