"""At the terminal: Ctrl-C at any moment, platforms that are not there, names that would steer it."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from test_cli import nfd

from nfd_jax import __main__, pace, report
from nfd_jax.pace import Pace
from nfd_jax.report._page_variants import _anchor
from nfd_jax.store import StoreError
from nfd_jax.text import printable

HEARD = [
    *(sys.executable, "-S", "-c"),
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.argv[1], sys.argv[1:])",
]
"""Runs a command as a terminal does, whatever the tests were started by."""
CONFIGS = Path(__file__).resolve().parents[1] / "configs"


PROGRAM = "print('there', flush=True); from nfd_jax.__main__ import main; main()"
"""As `nfd` starts, once Python itself is there."""


@pytest.mark.parametrize("seconds", [0.03, 0.15, 0.4])
def test_ctrl_c_is_heard_from_the_first_moment_on(tmp_path, seconds):
    command = [sys.executable, "-c", PROGRAM, "run", str(CONFIGS / "quickstart.yaml"), "--out", "here"]
    process = subprocess.Popen(
        [*HEARD, *command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "there\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "interrupted" in said and len(said.splitlines()) == 1
    assert not (tmp_path / "here").exists()


def test_who_ignores_ctrl_c_still_does(monkeypatch):
    monkeypatch.setattr("nfd_jax.cli.main", lambda: None)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        __main__.main()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_platform_that_is_not_there_is_bad_input(tmp_path):
    command = [sys.executable, "-m", "nfd_jax", "plan", str(CONFIGS / "quickstart.yaml")]
    environment = os.environ | {"JAX_PLATFORMS": "nonsense"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("JAX_PLATFORMS=nonsense: ") and len(done.stderr.splitlines()) == 1


def test_show_watches_a_folder_before_there_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert nfd("show", "later").exit_code == 2
    looks = []

    def stop(seconds):
        looks.append(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr("nfd_jax.report._show.time.sleep", stop)
    result = nfd("show", "later", "--watch")
    assert result.exit_code == 0 and looks and "later: no results yet" in result.stdout


ESCAPE = "\x1b[31mred\x1b]0;title\x07\u202e"


def test_names_cannot_steer_a_terminal(tmp_path):
    assert printable(ESCAPE + "\n\udcff") == r"\x1b[31mred\x1b]0;title\x07\u202e" + "\n" + r"\udcff"
    assert printable("plain – φ, 数") == "plain – φ, 数"
    result = nfd("validate", f"{ESCAPE}.yaml")
    assert result.exit_code == 2 and "\x1b" not in result.stderr and "\\x1b[31m" in result.stderr
    folder = tmp_path / "sweep"
    (folder / ESCAPE / "results.zarr").mkdir(parents=True)
    shown = io.StringIO()
    report.show(folder, Console(file=shown, width=200))
    assert "\x1b" not in shown.getvalue() and "\u202e" not in shown.getvalue()
    with pytest.raises(StoreError):
        report.show(tmp_path / "none", Console(file=shown))


def test_ids_of_a_page_are_plain_and_differ():
    names = ["a b", "a-b", "a'b", "a><script>", "ä", "ü", 'x" onload="y', "a.b", "a_b"]
    ids = [_anchor(name) for name in names]
    assert len(set(ids)) == len(ids)
    assert all(c.isascii() and (c.isalnum() or c in "._-") for word in ids for c in word)


def test_time_left_is_right_again_at_once_after_a_stop(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pace, "monotonic", lambda: now[0])
    found = Pace(0)
    assert found.rate is None and found.left(100) == ""
    for done in range(1, 9):
        now[0] += 2.0
        found.update(done)
    assert found.rate == pytest.approx(0.5) and found.left(28) == "about 40 s left"
    now[0] += 7200.0  # stopped for two hours
    found.update(9)
    assert found.rate == pytest.approx(0.5)
    found.update(9)
    now[0] += 2.0
    found.update(10)
    assert found.left(30) == "about 40 s left" and found.left(10) == ""


def test_a_pace_that_changes_is_followed(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pace, "monotonic", lambda: now[0])
    found, done = Pace(0), 0
    for seconds in [1.0] * 50 + [10.0] * 14:
        now[0] += seconds
        done += 2
        found.update(done)
    assert found.rate == pytest.approx(0.2)
