"""Bad input is refused in single lines and starts nothing; the exit status says what happened."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from nfd_jax import __version__, launch
from nfd_jax.cli import app
from nfd_jax.store import ConfigChanged, StoreError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
GOOD = "name: good\nfinite: {widths: [32, 64], depths: [2, 4, 8]}\nlimit: {depth_steps: 16}\n"
BAD = "name: bad\nseed: x\nfinite: {widhts: [8]}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text(GOOD)
    Path("bad.yaml").write_text(BAD)
    return tmp_path


def nfd(*arguments: str):
    return CliRunner().invoke(app, arguments)


def started(monkeypatch, result) -> list:
    """Puts a stand-in for the sweep in place: it notes its calls and returns or raises `result`."""
    calls = []

    def run_sweep(config, out, **options):
        calls.append((config, out, options))
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setattr(launch, "run_sweep", run_sweep)
    return calls


def test_help_lists_the_commands():
    result = nfd("--help")
    assert result.exit_code == 0
    assert all(
        command in result.stdout
        for command in ("run", "plan", "validate", "show", "report", "bench", "configs")
    )
    assert nfd("-h").stdout == result.stdout and nfd("run", "-h").exit_code == 0


def test_validate_reports_every_file():
    assert nfd("validate", "good.yaml").exit_code == 0
    result = nfd("validate", "bad.yaml", "good.yaml", "missing.yaml")
    assert result.exit_code == 2
    assert result.stdout == "good.yaml: valid\n"
    lines = result.stderr.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["bad.yaml:2:", "bad.yaml:3:", "missing.yaml:"]
    assert "did you mean widths?" in lines[1]


def test_validate_applies_overrides_to_every_file():
    result = nfd("validate", "good.yaml", "--set", "limit.depth_steps=12")
    assert result.exit_code == 2 and "limit.depth_steps" in result.stderr


def test_validate_says_what_a_missing_limit_costs():
    result = nfd("validate", "good.yaml", "--set", "limit=null")
    first, second = result.stdout.splitlines()
    assert result.exit_code == 0 and result.stderr == "" and first == "good.yaml: valid"
    assert second.startswith("good.yaml: limit: left out") and "C4" in second
    without = nfd("validate", "good.yaml", "--set", "limit=null", "--set", "problem.parametrization=mup")
    assert without.stdout == "good.yaml: valid\n", "only depth_mup has a limit to leave out"


def test_shipped_configs_are_found_by_name_after_local_files(monkeypatch):
    calls = started(monkeypatch, SimpleNamespace(failed=[], store=Path("results/x")))
    assert nfd("run", "quickstart").exit_code == 0
    assert calls[-1][0].name == "quickstart" and calls[-1][1] == Path("results/quickstart")
    Path("quickstart").write_text(GOOD)
    assert nfd("run", "quickstart").exit_code == 0 and calls[-1][0].name == "good"
    assert "quickstart" in nfd("run", "quickstarts").stderr
    listed = nfd("configs").stdout.splitlines()
    assert {line.split()[0] for line in listed} == {file.stem for file in CONFIGS.glob("*.yaml")}
    assert all(len(line.split()) > 3 for line in listed), "a line each says what it is for"


def test_version_and_module():
    assert nfd("--version").stdout == f"nfd_jax {__version__}\n"
    command = [sys.executable, "-m", "nfd_jax", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"nfd_jax {__version__}\n"


def test_several_folders_are_compared(monkeypatch):
    from nfd_jax import report

    seen = []
    monkeypatch.setattr(
        report, "write_comparison", lambda folders: seen.append(folders) or "there", raising=False
    )
    monkeypatch.setattr(report, "write_report", lambda folder: seen.append(folder) or "here")
    for name in "ab":
        Path(name, "results.zarr").mkdir(parents=True)
    assert nfd("report", "a", "b").stdout == "there\n" and nfd("report", "a").stdout == "here\n"
    assert seen == [[Path("a"), Path("b")], Path("a")]


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "bad.yaml"],
        ["run", "missing.yaml"],
        ["run", "."],
        ["run", "good.yaml", "--set", "seeds=0"],
        ["run", "good.yaml", "--set", "seeds"],
        ["run", "good.yaml", "--workers", "0"],
        ["run", "good.yaml", "--workers", "two"],
        ["run", "good.yaml", "--workers", "2", "--scheduler", "tcp://localhost:1"],
        ["run", "good.yaml", "--nonsense"],
        ["run"],
        ["run", "quickstarts"],
        ["plan", "bad.yaml"],
        ["plan", "good.yaml", "--set", "seeds=0"],
        ["validate"],
        ["validate", "."],
        ["show", "missing"],
        ["show", "."],
        ["report", "."],
        ["report", "missing", "."],
        ["report"],
        ["report", "good.yaml"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_bad_input_exits_2_and_starts_nothing(arguments, folder, monkeypatch):
    calls = started(monkeypatch, AssertionError("started"))
    before = sorted(folder.iterdir())
    result = nfd(*arguments)
    assert result.exit_code == 2 and not calls
    assert result.stderr and "Traceback" not in result.stderr and result.stdout == ""
    assert sorted(folder.iterdir()) == before, "something was written"


def test_run_hands_over_what_was_asked(monkeypatch):
    calls = started(monkeypatch, SimpleNamespace(failed=[], store=Path("results/good")))
    assert nfd("run", "good.yaml").exit_code == 0
    options = [
        "--set",
        "seeds=3",
        "--set",
        "problem.horizon=2",
        "--out",
        "here",
        "--fresh",
        "--workers",
        "2",
        "--verify",
        "--no-report",
    ]
    assert nfd("run", "good.yaml", *options, "--quiet").stdout == ""
    (config, out, given), (other, there, asked) = calls
    assert given.pop("helper")._process is asked.pop("helper")._process is None  # on one core
    assert (config.seeds, out) == (8, Path("results/good"))
    assert given == {
        "fresh": False,
        "scheduler": None,
        "workers": None,
        "verify": False,
        "report": True,
        "quiet": False,
    }
    assert (other.seeds, other.problem.horizon, there) == (3, 2.0, Path("here"))
    assert asked == {
        "fresh": True,
        "scheduler": None,
        "workers": 2,
        "verify": True,
        "report": False,
        "quiet": True,
    }


def test_the_second_process_starts_first_where_a_report_is_to_be_written(monkeypatch):
    from nfd_jax.report import _helper

    begun = []
    monkeypatch.setattr(_helper.Helper, "start", lambda self: begun.append("helper"))
    monkeypatch.setitem(sys.modules, "nfd_jax.launch", SimpleNamespace(run_sweep=lambda *a, **b: begin()))
    begin = lambda: begun.append("run") or SimpleNamespace(failed=[], store=Path("results/good"))
    assert nfd("run", "good.yaml").exit_code == 0 and begun == ["helper", "run"]
    Path("results/good").mkdir(parents=True)
    Path("results/good/report.html").touch()
    for arguments in (["--out", "elsewhere", "--no-report"], []):
        begun.clear()
        assert nfd("run", "good.yaml", *arguments).exit_code == 0 and begun == ["run"]


def test_failed_cells_exit_3_and_are_listed(monkeypatch):
    started(monkeypatch, SimpleNamespace(failed=["width 32 depth 4 seed 0"], store=Path("results/good")))
    result = nfd("run", "good.yaml")
    assert result.exit_code == 3
    assert result.stderr == "failed: width 32 depth 4 seed 0\n"


def test_a_store_that_cannot_be_written_exits_4(monkeypatch):
    for error in (StoreError("locked"), PermissionError(13, "denied", "here"), OSError(28, "no space")):
        started(monkeypatch, error)
        result = nfd("run", "good.yaml")
        assert result.exit_code == 4 and len(result.stderr.splitlines()) == 1


def test_a_fault_of_the_program_is_not_blamed_on_the_disk(monkeypatch):
    started(monkeypatch, ConnectionRefusedError(111, "refused"))
    assert isinstance(nfd("run", "good.yaml").exception, ConnectionRefusedError)


def test_a_changed_config_exits_2(monkeypatch):
    changed = ConfigChanged(["problem.learning_rate: stored 0.5, now 0.25"])
    started(monkeypatch, changed)
    result = nfd("run", "good.yaml")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == list(changed.problems)


def test_interruption_exits_130_and_says_how_to_resume(monkeypatch):
    started(monkeypatch, KeyboardInterrupt())
    monkeypatch.setattr(sys, "argv", ["nfd", "run", "a file.yaml"])
    result = nfd("run", "good.yaml")
    assert result.exit_code == 130
    assert result.stderr == (
        "interrupted; what is finished is kept, and the same command resumes: nfd run 'a file.yaml'\n"
    )
    monkeypatch.setattr(sys, "argv", ["nfd", "run", "good.yaml", "--fresh", "--out", "there"])
    said = nfd("run", "good.yaml").stderr
    assert said.endswith("this command resumes: nfd run good.yaml --out there\n")  # not what starts over


COMPUTING = """
import sys, threading, time
from pathlib import Path
import jax, jax.numpy as jnp
from nfd_jax import cli, launch
from nfd_jax.runtime import Background

def run_sweep(*arguments, **options):
    begun = threading.Event()

    def compute():
        for size in range(10, 10_000):
            jax.jit(lambda x: jnp.tanh(x @ x).sum())(jnp.ones((size, size)))
            begun.set()

    Background(compute)
    begun.wait()
    return launch.Outcome(Path("out"))

launch.run_sweep = run_sweep
sys.argv = ["nfd", "run", sys.argv[1], "--out", sys.argv[2], "--no-report"]
cli.main()
"""


def test_what_still_computes_does_not_abort_a_command_that_is_done(tmp_path):
    config = CONFIGS / "quickstart.yaml"
    for attempt in range(3):
        command = [sys.executable, "-c", COMPUTING, str(config), str(tmp_path / "out")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, ""), attempt
