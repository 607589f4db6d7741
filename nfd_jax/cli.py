"""The command line, thin: arguments in, exit status out. Nothing numerical is imported before a command needs
it.

Exit status: 0 done; 2 bad input, one line a problem on stderr; 3 finished with failed cells; 4 store locked,
unwritable or disk full; 130 interrupted.
"""

import errno
import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from nfd_jax._version import __version__
from nfd_jax.config import (
    ConfigError,
    SweepConfig,
    advice,
    find_config,
    load_config,
    shipped_configs,
    summary,
)
from nfd_jax.text import printable

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
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


_DISK = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOTEMPTY,
    errno.EEXIST,
    errno.ELOOP,
}


def _shipped_names(incomplete: str) -> list[str]:
    return [name for name in shipped_configs() if name.startswith(incomplete)]


Config = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG",
        help="A YAML file, or the name of a shipped config (see nfd configs).",
        show_default=False,
        autocompletion=_shipped_names,
    ),
]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="a.b=v", help="Override a key.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A results folder.", show_default=False)]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nfd_jax {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


@app.command()
def run(
    config: Config,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to; by default results/<name>.")
    ] = None,
    set_: Overrides = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over: discard the results in DIR.")] = False,
    scheduler: Annotated[str | None, typer.Option(metavar="ADDR", help="Run on this Dask cluster.")] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=1024, help="Run on N local processes.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Recompute a sample of stored cells and compare.")
    ] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Stop after the arrays.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only problems.")] = False,
) -> None:
    """Run a sweep, or resume it where it stopped."""
    if scheduler is not None and workers is not None:
        _stop(["--scheduler and --workers: both given, allowed: one of them"], Exit.BAD_INPUT)
    sweep = _load(config, set_ or ())
    out = Path("results") / sweep.name if out is None else out
    with _exit_statuses(out):
        from nfd_jax import report

        with report.helper() as helper:
            if not no_report and not (out / "report.html").exists():
                helper.start()  # it imports beside this process
            from nfd_jax.launch import run_sweep

            _LOADED.set()
            outcome = run_sweep(
                sweep,
                out,
                fresh=fresh,
                scheduler=scheduler,
                workers=workers,
                verify=verify,
                report=not no_report,
                quiet=quiet,
                helper=helper,
            )
    if outcome.failed:
        _stop([f"failed: {cell}" for cell in outcome.failed], Exit.FAILED_CELLS)


@app.command()
def plan(config: Config, set_: Overrides = None) -> None:
    """Say what a sweep would do and cost, without starting it."""
    sweep = _load(config, set_ or ())
    with _exit_statuses(config):
        from nfd_jax.launch import describe_plan

        typer.echo(describe_plan(sweep))


@app.command()
def validate(
    configs: Annotated[
        list[Path],
        typer.Argument(
            metavar="CONFIG...",
            help="YAML files, or names of shipped configs.",
            show_default=False,
            autocompletion=_shipped_names,
        ),
    ],
    set_: Overrides = None,
) -> None:
    """Check config files and print every problem in them."""
    problems: list[str] = []
    for config in configs:
        try:
            sweep = _read(config, set_ or ())
        except ConfigError as error:
            problems += error.problems
        else:
            typer.echo(f"{config}: valid")
            for line in advice(sweep):
                typer.echo(f"{config}: {line}")
    if problems:
        _stop(dict.fromkeys(problems), Exit.BAD_INPUT)


@app.command()
def configs() -> None:
    """List the shipped configs, which run, plan and validate take by name."""
    found = shipped_configs()
    if not found:
        _stop(
            ["configs: none here, allowed: a source tree of nfd_jax, installed with pip install -e"],
            Exit.BAD_INPUT,
        )
    for name, file in found.items():
        typer.echo(f"{name:<{max(map(len, found))}}  {summary(file)}".rstrip())


@app.command()
def show(
    folder: Folder,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until interrupted.")] = False,
) -> None:
    """Print the verdicts and the progress of a sweep."""
    if not watch:  # which waits until there is something to see
        _require_store(folder)
    with _exit_statuses(folder):
        from rich.console import Console

        from nfd_jax import report

        _LOADED.set()
        report.show(folder, Console(), watch)


@app.command()
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="A results folder, or several to compare.", show_default=False),
    ],
) -> None:
    """Rewrite report.html and figures/; of several folders, compare what they hold."""
    for folder in folders:
        _require_store(folder)
    with _exit_statuses(folders[0]):
        from nfd_jax import report

        _LOADED.set()
        if len(folders) == 1:
            typer.echo(report.write_report(folders[0]))
        else:
            typer.echo(report.write_comparison(folders))


@app.command()
def bench(
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every sample to FILE.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Run this benchmark alone; may be repeated.")
    ] = None,
) -> None:
    """Run the benchmarks on whatever device JAX sees."""
    with _exit_statuses(json or Path()):
        from nfd_jax import bench as benchmarks

        _LOADED.set()
        benchmarks.main(json, only or ())


def _read(name: Path, overrides: Iterable[str]) -> SweepConfig:
    """The config of a file or of a shipped name. Raises ConfigError."""
    path = find_config(name)
    if path.suffix == "" and not path.exists() and (found := shipped_configs()):
        shipped = ", ".join(found)
        raise ConfigError(
            [f"{name}: no such file, allowed: the path of a YAML file, or a shipped config: {shipped}"]
        )
    return load_config(path, overrides)


def _load(path: Path, overrides: Iterable[str] = ()) -> SweepConfig:
    try:
        return _read(path, overrides)
    except ConfigError as error:
        _stop(error.problems, Exit.BAD_INPUT)


def _require_store(folder: Path) -> None:
    if not (folder / "results.zarr").is_dir() and not any(folder.glob("*/results.zarr")):  # a variant each
        _stop(
            [f"{folder}: no results.zarr in it, allowed: a folder that nfd run has written"], Exit.BAD_INPUT
        )


@contextmanager
def _exit_statuses(place: Path) -> Iterator[None]:
    """What goes wrong while a command works, as its exit status and lines on stderr."""
    try:
        from nfd_jax.data import DataError
        from nfd_jax.store import ConfigChanged, StoreError

        try:
            _require_platform()
            yield
        except (ConfigError, ConfigChanged) as error:
            _stop(error.problems, Exit.BAD_INPUT)
        except DataError as error:  # of files that were there when the config was read
            _stop([f"problem.dataset: {error}"], Exit.BAD_INPUT)
        except StoreError as error:
            _stop([str(error)], Exit.STORE)
    except OSError as error:
        if error.errno not in _DISK and not _below(place, error.filename):
            raise
        _stop([f"{error.filename or place}: {os.strerror(error.errno or 0)}"], Exit.STORE)
    except KeyboardInterrupt:
        _stop([_resumes()], Exit.INTERRUPTED)


_LOADED = threading.Event()
"""Set once there is something to end in order: before, Ctrl-C ends the process."""

_UNHEARD = ("_xla_gc_callback", "__del__", "cb")
"""Functions that Python calls by the way, ignoring what they raise."""


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C. Modules that load may swallow KeyboardInterrupt, or turn it into errors of their own."""
    if not _LOADED.is_set():
        os.write(2, f"{_resumes()}\n".encode())
        os._exit(Exit.INTERRUPTED)
    if frame is not None and frame.f_code.co_name in _UNHEARD:
        threading.Timer(0.02, signal.raise_signal, [number]).start()
        return
    raise KeyboardInterrupt


def _resumes() -> str:
    again = [word for word in sys.argv[1:] if word != "--fresh"]  # which would start over
    same = "the same command" if again == sys.argv[1:] else "this command"
    return f"interrupted; what is finished is kept, and {same} resumes: {shlex.join(['nfd', *again])}"


def _below(place: Path, name: object) -> bool:
    """Whether a file lies in the folder that a command works on, where others may remove it meanwhile."""
    return isinstance(name, str | os.PathLike) and Path(name).absolute().is_relative_to(place.absolute())


def _require_platform() -> None:
    """Ends where JAX_PLATFORMS names what this machine has not."""
    asked = os.environ.get("JAX_PLATFORMS")
    if not asked:
        return
    import jax

    try:
        jax.devices()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        _stop([f"JAX_PLATFORMS={asked}: {reason}, allowed: cpu, cuda, tpu, or unset"], Exit.BAD_INPUT)


def _stop(lines: Iterable[str], status: Exit) -> NoReturn:
    for line in lines:
        typer.echo(printable(line), err=True)
    raise typer.Exit(status)


def main() -> None:
    warnings.showwarning = lambda message, *_: typer.echo(f"warning: {printable(message)}", err=True)
    present = signal.getsignal(signal.SIGINT)
    if present is signal.default_int_handler or getattr(present, "before_start", False):
        signal.signal(signal.SIGINT, _interrupt)
    try:
        app(prog_name="nfd")
    except SystemExit as stop:
        status = stop.code or 0
        if isinstance(status, int) and (status or _still_computing()):
            # Threads compute on: Python would wait for some, and end others inside compiled code, which
            # aborts.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        raise


def _still_computing() -> bool:
    """Whether something goes on behind a command that is done."""
    runtime = sys.modules.get("nfd_jax.runtime")  # which loads JAX
    return runtime is not None and any(
        thread.name == runtime.Background.BEHIND for thread in threading.enumerate()
    )
