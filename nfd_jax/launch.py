"""A sweep from start to end: the plan's batches computed and stored; then verdicts and report."""

import platform
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import xarray as xr

from nfd_jax import sweep
from nfd_jax.config import SweepConfig
from nfd_jax.measures import Named
from nfd_jax.names import DIVERGED
from nfd_jax.runtime import Background, use_compilation_cache
from nfd_jax.store import Batch, Store, StoreError, claim_variants, open_results

if TYPE_CHECKING:
    from nfd_jax.report._helper import Helper

LOCATED = 3
"""Batches with diverged runs of which one is looked into: it is trained once more with every layer kept."""

ROUNDING = "float32_check"
"""Attribute of /rates: the smallest cell in float32 against float64 on the same draw, relative root mean
squares."""

VERIFIED = "verified"
"""Attribute of /rates: what the latest computing again of stored cells showed, and whether it failed."""

JUDGED = "judged"
"""Attribute of /rates: what it was concluded from, so that nothing is concluded twice."""


@dataclass(frozen=True)
class Outcome:
    """What a run left: `store`, the folder, and `failed`, a line for each batch that failed and for each
    verification."""

    store: Path
    failed: list[str] = field(default_factory=list)


def run(
    config: SweepConfig, out: str | Path | None = None, *, resume: bool = True, progress: bool = True
) -> xr.DataTree:
    """Run a sweep, or resume the one in `out` (default results/<name>), and return its results.

    `resume=False` discards what `out` holds. A config with variants gives a tree with one child a variant.
    Raises ConfigChanged where `out` holds results of a config that differs in what they depend on, StoreError
    where it cannot be used.
    """
    if not isinstance(config, SweepConfig):
        raise TypeError(f"give a config, as load_config(path) returns it; received {config!r}")
    outcome = run_sweep(
        config,
        Path("results") / config.name if out is None else Path(out),
        fresh=not resume,
        quiet=not progress,
    )
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
    report: bool = True,
    helper: "Helper | None" = None,
) -> Outcome:
    """Run or resume `config` in the folder `out`, variants in folders of their own below it.

    `scheduler` (a Dask address) or `workers` (a number of local processes) spread the batches; `verify`
    recomputes a sample of stored cells, which fails where they differ; without `report` it stops after the
    arrays. `helper` may be the `nfd_jax.report.helper` to draw figures with, started already. Batches that
    fail are stored as failed and never stop the others; nor does a report that fails.
    """
    use_compilation_cache()
    _refuse_what_cannot_fit(config, workers, scheduler)
    overall = sweep.Progress(config.name, quiet)
    if config.variants is not None and (dropped := claim_variants(out, list(config.variants))):
        overall.warn(f"{out}: variants no longer in the config are left as they are: {', '.join(dropped)}")
    failed: list[str] = []
    changed = False
    with helper or _report().helper() as helper:
        for name, single in config.expand().items():
            folder, progress = out / name if name else out, sweep.Progress(name or config.name, quiet)
            one = _Run(single, folder, progress, helper, scheduler=scheduler, workers=workers)
            failed += one.run(fresh=fresh, verify=verify, report=report)
            changed |= one.changed
    if config.variants is not None and report:
        page = out / "report.html"
        with _unfailing(overall, out):
            if changed or not page.is_file():
                _report().write_report(out)
            overall.say(f"report: {page}")
    return Outcome(out, failed)


@contextmanager
def _unfailing(progress: sweep.Progress, folder: Path) -> Iterator[None]:
    """What is concluded and drawn can be done again at any time: where it fails, a line says so, and the
    arrays stay as they are."""
    try:
        yield
    except (StoreError, OSError):
        raise
    except Exception as error:
        again = f"all arrays are stored, and nfd report {folder} tries again"
        progress.warn(f"no report: {sweep.first_line(error)}; {again}")


def _refuse_what_cannot_fit(config: SweepConfig, workers: int | None, scheduler: str | None) -> None:
    """Raise CellTooLarge before anything runs; a cluster's memory is its own affair."""
    if scheduler is not None:
        return
    lines = [
        f"variants.{name}.{line}" if name else line
        for name, single in config.expand().items()
        for line in sweep.too_large(single, processes=workers or 1)
    ]
    if lines:
        raise sweep.CellTooLarge(lines)


class _Run:
    """One config, one folder. `changed` tells whether anything was computed, concluded or drawn."""

    def __init__(
        self,
        config: SweepConfig,
        folder: Path,
        progress: sweep.Progress,
        helper: "Helper",
        *,
        scheduler: str | None,
        workers: int | None,
    ):
        self.config, self.folder, self.progress, self.helper = config, folder, progress, helper
        self.scheduler, self.workers = scheduler, workers
        self.changed = False

    def run(self, *, fresh: bool, verify: bool, report: bool) -> list[str]:
        """All that is missing; a line for each batch that failed."""
        config, folder, progress = self.config, self.folder, self.progress
        data = config.load_data()
        facts = {
            "outputs": data.targets.shape[2],
            "samples": data.source,
            "attributes": provenance(config),
        }
        with (
            Store.open(folder, config, make_plan=sweep.make_plan, fresh=fresh, **facts) as store,
            progress.logging_to(folder / "log.jsonl"),
        ):
            for line in store.damaged:
                progress.warn(f"damaged, to be computed again: {line}")
            rounding = self._rounding(store) if report else lambda: None
            if report and store.pending():
                Background(_import_what_concludes)
                self.helper.start()
            self._cells(store)
            failed = store.failed() + (self._verified(store) if verify else [])
            if report:
                with _unfailing(progress, folder):
                    self._conclude(store, rounding)
            progress.log("finished", failed=failed)
            return failed

    def _verified(self, store: Store) -> list[str]:
        """A sample computed again, kept for the report; a line where it came out otherwise."""
        found = sweep.verify_sample(self.config, self.folder)
        store.note(VERIFIED, found._asdict())
        self.progress.log(VERIFIED, **found._asdict())
        if found.same:
            self.progress.say(found.text)
        return [] if found.same else [f"verification: {found.text.removeprefix('verified ')}"]

    def _cells(self, store: Store) -> None:
        """Every pending batch computed and stored."""
        progress, pending = self.progress, store.pending()
        if not pending:
            return
        self.changed = True
        progress.begin(*store.progress(), batches=len(pending))
        spread = self.scheduler, self.workers, progress.warn
        with closing(sweep.results(self.config, pending, *spread)) as results:  # no process outlives this
            self._take(results, store)

    def _take(self, results: Iterator[tuple[Batch, dict[str, Named] | str]], store: Store) -> None:
        """Every batch stored as it comes."""
        progress, located = self.progress, 0
        for batch, result in results:
            if isinstance(result, str):
                store.fail(batch, result)
                progress.warn(f"failed: {batch.id}: {result}")
            else:
                store.commit(batch, result)
            diverged = _diverged(result)
            progress.advance(store.progress()[0], batch.id, diverged)
            if diverged and located < LOCATED:
                located += 1
                for line in self._located(batch, result):
                    progress.warn(line)
        progress.end()

    def _located(self, batch: Batch, result: dict[str, Named]) -> list[str]:
        """Where one diverged run of a batch left the finite numbers. Keeping every layer takes memory that
        there may not be."""
        status = result["status/cell"]
        order = "backward_weights", "learning_rate", *(("depth",) if "depth" in status.dims else ()), "seed"
        locate = partial(sweep.locate_nonfinite, at_most=1)
        try:
            return Background(locate, self.config, batch, status.over(order)).result()
        except sweep.CELL_ERRORS as error:
            return [f"{batch.id}: where it diverged could not be found: {sweep.first_line(error)}"]

    def _rounding(self, store: Store) -> Callable[[], Any]:
        """What float32 does to the smallest cell; found out once a store, while the cells are computed."""
        if self.config.precision != "float32":
            return lambda: None
        known = store.noted(ROUNDING)
        if known is not None:
            return lambda: known

        def check() -> dict:
            try:
                return sweep.precision_check(self.config)
            except sweep.CELL_ERRORS as error:
                return {"error": sweep.first_line(error)}

        beside = Background(check)

        def result() -> dict:
            found = beside.result()
            store.note(ROUNDING, found)
            return found

        return result

    def _conclude(self, store: Store, rounding: Callable[[], Any]) -> None:
        """Rates, verdicts and the report, where what they rest on has changed."""
        margin, page = self.config.verdicts.margin, self.folder / "report.html"
        verified = store.noted(VERIFIED)
        basis = f"{store.state()} {margin:g} {version('nfd_jax')} {verified}"
        if store.noted(JUDGED) == basis and store.concluded() and page.is_file():
            self.progress.say(
                f"{self.progress.name}: all cells are stored, and the report is up to date: {page}"
            )
            return
        self.changed = True
        report = _report()
        report.begin(self.folder, self.helper)
        self.progress.stage("fitting rates, judging claims")
        from nfd_jax.verdicts import conclusions

        rates, judged = conclusions(open_results(self.folder), margin=margin)
        if store.progress()[0] and (check := rounding()) is not None:
            rates.attrs[ROUNDING] = check
        if verified is not None:
            rates.attrs[VERIFIED] = verified
        store.write_derived({"rates": rates, "verdicts": judged})
        self.progress.stage("drawing figures, writing the report")
        tree = open_results(self.folder)
        report.write_report(self.folder, self.helper, tree)
        store.note(JUDGED, basis)
        for line in report.summary_lines(tree):
            self.progress.say(line)
        self.progress.say(f"report: {page}")


def _report():
    """Figures and terminal take a second to import: not before they are needed."""
    return import_module("nfd_jax.report")


def _import_what_concludes() -> None:
    """Verdicts and figures take two seconds to import, which pass while cells are computed."""
    import_module("nfd_jax.verdicts")
    import_module("nfd_jax.report._report")


def _diverged(result: dict[str, Named] | str) -> int:
    cells = None if isinstance(result, str) else result.get("status/cell")
    return 0 if cells is None else int((cells.values == DIVERGED).sum())


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
    return "\n".join(sweep.describe(single, name) for name, single in config.expand().items())
