"""The command line, thin: arguments in, exit status out. Nothing numerical is imported before a command needs it.

Exit status: 0 done; 2 bad input, one line a problem on stderr; 3 finished with failed cells; 4 store locked, unwritable
or disk full; 130 interrupted.
"""

import errno
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from nfd_jax.config import ConfigError, SweepConfig, load_config

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Finite ResNets and Neural Feature Dynamics side by side: sweeps described by YAML files.",
)


class Exit(IntEnum):
    BAD_INPUT = 2
    FAILED_CELLS = 3
    STORE = 4
    INTERRUPTED = 130


_DISK = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOTDIR, errno.EEXIST}

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file.", show_default=False)]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A results folder.", show_default=False)]


@app.command()
def run(
    config: Config,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to; by default results/<name>.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="a.b=v", help="Override a key.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over: discard the results in DIR.")] = False,
    scheduler: Annotated[str | None, typer.Option(metavar="ADDR", help="Run on this Dask cluster.")] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", min=1, max=1024, help="Run on N local processes.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Recompute a sample of stored cells and compare.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only problems.")] = False,
) -> None:
    """Run a sweep, or resume it where it stopped."""
    if scheduler is not None and workers is not None:
        _stop(["--scheduler and --workers: both given, allowed: one of them"], Exit.BAD_INPUT)
    sweep = _load(config, set_ or ())
    out = Path("results") / sweep.name if out is None else out
    with _exit_statuses(out):
        from nfd_jax.launch import run_sweep

        outcome = run_sweep(sweep, out, fresh=fresh, scheduler=scheduler, workers=workers, verify=verify, quiet=quiet)
    if not quiet:
        typer.echo(f"results: {outcome.store}")
    if outcome.failed:
        _stop([f"failed: {cell}" for cell in outcome.failed], Exit.FAILED_CELLS)


@app.command()
def plan(config: Config) -> None:
    """Say what a sweep would do and cost, without starting it."""
    sweep = _load(config)
    with _exit_statuses(config):
        from nfd_jax.launch import describe_plan

        typer.echo(describe_plan(sweep))


@app.command()
def validate(
    configs: Annotated[list[Path], typer.Argument(metavar="CONFIG...", help="YAML files.", show_default=False)],
) -> None:
    """Check config files and print every problem in them."""
    problems: list[str] = []
    for config in configs:
        try:
            load_config(config)
        except ConfigError as error:
            problems += error.problems
        else:
            typer.echo(f"{config}: valid")
    if problems:
        _stop(problems, Exit.BAD_INPUT)


@app.command()
def show(
    folder: Folder,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until interrupted.")] = False,
) -> None:
    """Print the verdicts and the progress of a sweep."""
    _require_store(folder)
    with _exit_statuses(folder):
        from rich.console import Console

        from nfd_jax import report

        report.show(folder, Console(), watch)


@app.command()
def report(folder: Folder) -> None:
    """Rewrite report.html and figures/."""
    _require_store(folder)
    with _exit_statuses(folder):
        from nfd_jax import report

        typer.echo(report.write_report(folder))


@app.command()
def bench(
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write every sample to FILE.")] = None,
) -> None:
    """Run the benchmarks on whatever device JAX sees."""
    with _exit_statuses(json or Path()):
        from nfd_jax import bench as benchmarks

        benchmarks.main(json)


def _load(path: Path, overrides: Iterable[str] = ()) -> SweepConfig:
    try:
        return load_config(path, overrides)
    except ConfigError as error:
        _stop(error.problems, Exit.BAD_INPUT)


def _require_store(folder: Path) -> None:
    if not (folder / "results.zarr").is_dir() and not any(folder.glob("*/results.zarr")):  # a variant each
        _stop([f"{folder}: no results.zarr in it, allowed: a folder that nfd run has written"], Exit.BAD_INPUT)


@contextmanager
def _exit_statuses(place: Path) -> Iterator[None]:
    """What goes wrong while a command works, as its exit status and lines on stderr."""
    try:
        from nfd_jax.store import ConfigChanged, StoreError

        try:
            yield
        except (ConfigError, ConfigChanged) as error:
            _stop(error.problems, Exit.BAD_INPUT)
        except StoreError as error:
            _stop([str(error)], Exit.STORE)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        _stop([f"{error.filename or place}: {os.strerror(error.errno or 0)}"], Exit.STORE)
    except KeyboardInterrupt:
        command = shlex.join(["nfd", *sys.argv[1:]])
        _stop([f"interrupted; what is finished is kept, and the same command resumes: {command}"], Exit.INTERRUPTED)


def _stop(lines: Iterable[str], status: Exit) -> NoReturn:
    for line in lines:
        typer.echo(line, err=True)
    raise typer.Exit(status)


def main() -> None:
    try:
        app()
    except SystemExit as stop:
        if stop.code == Exit.INTERRUPTED:  # threads compute on, and Python would wait until they have done all they were given
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(Exit.INTERRUPTED)
        raise
