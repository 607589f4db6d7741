"""Which files data come from, as a cache may know them, and which samples, as a store may."""

import hashlib
import os
import time
from pathlib import Path

import numpy as np

from nfd_jax.data._samples import Samples

SETTLED_NS = 2 * 10**9
"""Age from which another change shows in a file's times; file systems keep them in steps of up to two
seconds."""

_CHUNK = 4096  # samples

Stamps = tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]


def stamps(files: tuple[Path, ...]) -> Stamps | None:
    """What identifies the content of files without reading them: path, device, inode, size and times. None
    where one is absent, or was written so recently that it may change once more without a trace.
    """
    try:
        found = [os.stat(path) for path in files]
    except (OSError, ValueError):  # for the reader to report
        return None
    now = time.time_ns()
    if any(abs(now - ns) < SETTLED_NS for stat in found for ns in (stat.st_mtime_ns, stat.st_ctime_ns)):
        return None
    return tuple(map(str, files)), tuple(
        (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for stat in found
    )


def digest(classes: tuple[int, ...], *parts: Samples | None) -> str:
    """sha256 of the samples of the chosen classes, training and test: dtype, shape and bytes of inputs and
    targets, in the file's order, and the classes. Inputs are as the file has them, (N, d) and of at most 64
    bits; targets are int64 labels or float64.
    """
    found = hashlib.sha256(repr(tuple(map(int, classes))).encode())
    for part in parts:
        for array in (part.inputs, part.targets) if part is not None else ():
            found.update(f"{array.dtype.str} {array.shape}".encode())
            for start in range(0, len(array), _CHUNK):
                found.update(np.ascontiguousarray(array[start : start + _CHUNK]).data)
    return found.hexdigest()
