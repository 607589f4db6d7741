"""A sweep from start to end: the plan's batches computed one by one, each stored before the next, then rates and report."""

import platform
import subprocess
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import xarray as xr

from nfd_jax import report
from nfd_jax.config import SweepConfig
from nfd_jax.runtime import in_background, use_compilation_cache
from nfd_jax.store import Store, open_results
from nfd_jax.store._batch import Batch
from nfd_jax.sweep._compute import CELL_ERRORS, first_line, results
from nfd_jax.sweep._execute import outputs
from nfd_jax.sweep._memory import CellTooLarge, check_fits
from nfd_jax.sweep._plan import make_plan
from nfd_jax.sweep._progress import Progress

LOCATED = 3
"""Batches with diverged runs of which one is looked into: it is trained once more with every layer kept."""

ROUNDING = "float32_check"
"""Attribute of /rates: the smallest cell in float32 against float64 on the same draw, relative root mean squares."""


@dataclass(frozen=True)
class Outcome:
    """What a run left: `store`, the folder, and `failed`, a line for each failed batch."""

    store: Path
    failed: list[str] = field(default_factory=list)


def run(config: SweepConfig, out: str | Path | None = None, *, resume: bool = True, progress: bool = True) -> xr.DataTree:
    """Run a sweep, or resume the one in `out` (default results/<name>), and return its results.

    `resume=False` discards what `out` holds. A config with variants gives a tree with one child a variant. Raises ConfigChanged
    where `out` holds results of a config that differs in what they depend on, StoreError where it cannot be used.
    """
    outcome = run_sweep(config, Path("results") / config.name if out is None else Path(out), fresh=not resume, quiet=not progress)
    if config.variants is None:
        return open_results(outcome.store)
    return xr.DataTree.from_dict(
        {
            f"{name}/{node.path.strip('/')}".rstrip("/"): node.to_dataset(inherit=False)
            for name in config.variants
            for node in open_results(outcome.store / name).subtree
        }
    )


def run_sweep(
    config: SweepConfig,
    out: Path,
    *,
    fresh: bool = False,
    scheduler: str | None = None,
    workers: int | None = None,
    verify: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Run or resume `config` in the folder `out`, variants in folders of their own below it.

    `scheduler` (a Dask address) or `workers` (a number of local processes) spread the batches; `verify` recomputes a sample of
    stored cells and prints the difference. Batches that fail are stored as failed and never stop the others.
    """
    use_compilation_cache()
    _refuse_what_cannot_fit(config, workers, scheduler)
    failed: list[str] = []
    for name, single in config.expand().items():
        folder = out / name if name else out
        failed += _run_one(single, folder, fresh, scheduler, workers, verify, Progress(name or config.name, quiet))
    if config.variants is not None:
        report.write_report(out)
    return Outcome(out, failed)


def _refuse_what_cannot_fit(config: SweepConfig, workers: int | None, scheduler: str | None) -> None:
    """Raise CellTooLarge before anything runs; a cluster's memory is its own affair."""
    if scheduler is not None:
        return
    lines = [
        f"variants.{name}.{line}" if name else line
        for name, single in config.expand().items()
        for line in check_fits(single, make_plan(single), processes=workers or 1)
    ]
    if lines:
        raise CellTooLarge(lines)


def _run_one(config, folder, fresh, scheduler, workers, verify, progress) -> list[str]:
    arguments = {"outputs": outputs(config), "make_plan": make_plan, "attributes": provenance(config), "fresh": fresh}
    with Store.open(folder, config, **arguments) as store, progress.logging_to(folder / "log.jsonl"):
        for line in store.damaged:
            progress.warn(f"damaged, to be computed again: {line}")
        pending, located = store.pending(), 0
        progress.begin(*store.progress(), batches=len(pending))
        for batch, result in results(config, pending, scheduler, workers):
            if isinstance(result, str):
                store.fail(batch, result)
                progress.warn(f"failed: {batch.id}: {result}")
            else:
                store.commit(batch, result)
            diverged = _diverged(result)
            progress.advance(store.progress()[0], batch.id, diverged)
            if diverged and located < LOCATED:
                located += 1
                for line in _located(config, batch, result["status/cell"]):
                    progress.warn(line)
        progress.end()
        if verify:
            progress.say(_verify().verify_sample(config, folder))
        tree = open_results(folder)
        rates = report.rates(tree)
        if config.precision == "float32" and store.progress()[0]:
            known = tree["rates"].attrs.get(ROUNDING) if "rates" in tree.children else None
            rates.attrs[ROUNDING] = known or _rounding(config)
        store.write_rates(rates)
        report.write_report(folder)
        progress.log("finished", failed=store.failed())
        return store.failed()


def _located(config: SweepConfig, batch: Batch, status: np.ndarray) -> list[str]:
    """Where one diverged run of a batch left the finite numbers. Keeping every layer takes memory that there may not be."""
    try:
        return in_background(partial(_verify().locate_nonfinite, at_most=1), config, batch, status)
    except CELL_ERRORS as error:
        return [f"{batch.id}: where it diverged could not be found: {first_line(error)}"]


def _rounding(config: SweepConfig) -> dict:
    try:
        return in_background(_verify().precision_check, config)
    except CELL_ERRORS as error:
        return {"error": first_line(error)}


def _verify():
    """Needed seldom, and built on this module."""
    from nfd_jax.sweep import _verify

    return _verify


def _diverged(result: dict | str) -> int:
    return 0 if isinstance(result, str) or "status/cell" not in result else int((result["status/cell"] == 2).sum())


def provenance(config: SweepConfig) -> dict:
    """What a result depends on besides its config: versions, device, state of the source."""
    packages = ("jax", "jaxlib", "equinox", "diffrax", "optax", "numpy", "nfd_jax")
    device = jax.devices()[0]
    return {
        "config": config.to_yaml(),
        "config_sha256": config.digest(),
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
        "device": f"{device.platform}: {device.device_kind}",
        "git": _git_state(),
    }


def _git_state() -> str:
    """Commit of the source, with "-dirty" where it was changed; "unknown" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def describe_plan(config: SweepConfig) -> str:
    """What `nfd plan` prints."""
    from nfd_jax.sweep._estimate import describe

    return "\n".join(describe(single, name) for name, single in config.expand().items())
