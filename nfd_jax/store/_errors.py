"""Why a store cannot be used, each in one line that says what to do."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_ADVICE = {
    errno.ENOSPC: "free some space and run again, stored cells are kept",
    errno.EDQUOT: "free some of the quota and run again, stored cells are kept",
    errno.EROFS: "the file system is read-only, give another --out",
    errno.EACCES: "change its permissions or give another --out",
    **dict.fromkeys(
        (errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST, errno.ELOOP),
        "something else lies where nfd run keeps a file or a folder: move it away and run again, "
        "stored cells are kept",
    ),
    errno.ENOENT: "it cannot be made, or was moved or removed while it was in use; "
    "check the path and run again",
}


class StoreError(RuntimeError):
    """A store that cannot be used; the message is one line."""


class StoreLocked(StoreError):
    """Another process writes to the store."""


class StoreUnwritable(StoreError):
    """The store cannot be read or written: permissions, a read-only mount, a full disk."""


class ConfigChanged(ValueError):
    """The stored cells belong to another config; `problems`: a line for each difference, and one with what to
    do."""

    def __init__(self, differences: Sequence[str]):
        self.problems = (
            *differences,
            "stored cells are kept: --fresh replaces them, another --out keeps both",
        )
        super().__init__("\n".join(self.problems))


@contextmanager
def reporting(directory: Path) -> Iterator[None]:
    """Turns what the operating system refuses into a StoreUnwritable of one line."""
    try:
        yield
    except OSError as error:
        what = f"{error.filename2 or error.filename or directory}: {error.strerror or error}"
        advice = _ADVICE.get(error.errno or 0, "check the disk and the path, or give another --out")
        raise StoreUnwritable(f"{what}; {advice}") from error
