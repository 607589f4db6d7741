"""Why a process ended, as far as what it wrote says so: one line out of a log of native frames."""

import re
from pathlib import Path

MEMORY = re.compile(
    r"out of memory|RESOURCE_EXHAUSTED|bad_alloc|MemoryError"
    r"|cannot allocate memory|(failed|unable) to allocate",
    re.I,
)
"""What libraries write that have no memory left."""

TELLING = (
    MEMORY,
    re.compile(r"check failed|terminate called|LLVM ERROR", re.I),
    re.compile(r"Fatal|\w(Error|Exception):"),
)
"""Lines that say why a process ends, those that say most first."""

READ = 2**20
"""Bytes of a log's end that are looked at."""

LONGEST = 200


def last_words(log: Path) -> str:
    """The line of a log that says best why its process ended; "" where none does."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - READ))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    for telling in TELLING:
        for line in reversed(lines):
            if telling.search(line) and "stack trace" not in line:
                line = " ".join(line.split())
                return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
    return ""


def kills_for_memory() -> int:
    """How many processes the system has ended so far because memory ran out; 0 where it does not tell."""
    try:
        found = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
        return int(found.get("oom_kill", 0))
    except (OSError, ValueError):
        return 0
