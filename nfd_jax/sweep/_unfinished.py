"""Estimates of limits under way, so that a sweep that was interrupted goes on where they stood.

An estimate is kept in the user's cache folder from its first numbers until it is done, under the code and all
else that it depends on. Resumed, it comes to the numbers of an uninterrupted one. A folder that cannot be
written costs only time.
"""

import hashlib
import time
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_dir

from nfd_jax.limit import LimitEstimate, Sampler, identity_of
from nfd_jax.runtime import identity

OLD = 30 * 86400.0
"""Seconds after which what nobody came back to is removed."""


class Unfinished:
    """The estimate to a tolerance that a sampler's samples make, as far as it was kept."""

    def __init__(self, sampler: Sampler, tolerance: float):
        # One that began for a smaller tolerance has more samples than an uninterrupted one would have taken.
        words = identity()["source"], identity_of(sampler), repr(tolerance)
        name = hashlib.sha256("\n".join(words).encode()).hexdigest()[:32]
        self.path = Path(user_cache_dir("nfd_jax")) / "estimates" / f"{name}.npz"

    def load(self) -> LimitEstimate | None:
        """None where there is none, or a damaged one."""
        with suppress(OSError, ValueError):
            return LimitEstimate.load(self.path)
        return None

    def keep(self, estimate: LimitEstimate) -> None:
        """In place of what was kept."""
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            estimate.save(self.path)
            for other in self.path.parent.iterdir():
                if time.time() - other.stat().st_mtime > OLD:
                    other.unlink(missing_ok=True)

    def forget(self) -> None:
        """It is done."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
