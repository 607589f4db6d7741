"""How many cores there are to use."""

import os


def cores() -> int:
    """Cores that this process may use: what NPROC says, which sets the size of XLA's thread pool too, or all there are."""
    asked = os.environ.get("NPROC", "")
    return max(1, int(asked)) if asked.isdecimal() else os.cpu_count() or 1
