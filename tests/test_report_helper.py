"""Figures shared out to a second process: the same figures, whatever becomes of it."""

import subprocess
import sys
import time

import pytest

import nfd_jax as nfd
from nfd_jax import report
from nfd_jax.report import _helper
from nfd_jax.report._draw import Drawn

ANSWER = """import json, sys, time, pickle
def answer(x): pickle.dump(x, sys.stdout.buffer); sys.stdout.buffer.flush()
"""
WORK = {
    "draws": "answer('ready')\nfor line in sys.stdin: answer(json.loads(line)[1].upper())",
    "dies at once": "sys.exit()",
    "dies at work": "answer('ready'); input()",
    "answers nonsense": "print('what?', flush=True)\nfor line in sys.stdin: print(line, flush=True)",
    "imports for ever": "time.sleep(600)",
    "imports long": "time.sleep(1)\nanswer('ready')\n"
    "for line in sys.stdin: answer(json.loads(line)[1].upper())",
}


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(_helper, "cores", lambda: 2)


@pytest.fixture
def other(monkeypatch, two_cores):
    """Has another program stand for the second process."""
    start = subprocess.Popen

    def instead(how):
        command = [sys.executable, "-c", ANSWER + WORK[how]]
        monkeypatch.setattr(_helper.subprocess, "Popen", lambda _, **pipes: start(command, **pipes))

    return instead


@pytest.mark.parametrize("how", WORK)
def test_all_is_drawn_once_whatever_the_second_process_does(tmp_path, other, how):
    other(how)
    names, here = [f"figure{i}" for i in range(100)], []

    def draw(name):
        here.append(name)
        time.sleep(0.02)
        return name.upper()

    with _helper.Helper() as helper:
        found, process = helper.draw(tmp_path, names, draw), helper._process
    assert list(found.items()) == [(name, name.upper()) for name in names]
    assert len(set(here)) == len(here) and (0 < len(here) < 100) == (how in ("draws", "imports long"))
    assert process.poll() is not None  # it ends with the context


def test_what_is_begun_is_drawn_before_it_is_asked_for(tmp_path, other):
    other("draws")
    with _helper.Helper() as helper:
        helper.begin(tmp_path, ["a", "b"])
        helper._work.there.join()
        assert helper.draw(tmp_path, ["a", "b"], lambda name: pytest.fail(name)) == {"a": "A", "b": "B"}


def test_what_nobody_asks_for_is_left(tmp_path, other):
    other("draws")
    with _helper.Helper() as helper:
        helper.begin(tmp_path / "one", [f"of one {i}" for i in range(10**4)])
        found = helper.draw(tmp_path / "two", ["a", "b"], str.upper)
    assert found == {"a": "A", "b": "B"}


def test_a_folder_that_is_done_before_the_second_process_is_ready_costs_the_next_ones_nothing(
    tmp_path, other
):
    other("imports long")
    drawn = []

    def slowly(name):
        drawn.append(name)
        time.sleep(0.1)
        return name.upper()

    with _helper.Helper() as helper:
        for folder, here in (("one", str.upper), ("two", slowly), ("three", slowly)):
            names = [f"{folder}{i}" for i in range(20)]
            found = helper.draw(tmp_path / folder, names, here)
            assert found == {name: name.upper() for name in names}
    assert 0 < len(drawn) < 40 and not all(name in drawn for name in names)


def test_on_one_core_there_is_no_second_process(tmp_path):
    with _helper.Helper() as helper:
        assert helper._process is None and helper.draw(tmp_path, ["a", "b"], str.upper) == {
            "a": "A",
            "b": "B",
        }


def test_the_second_process_draws_what_the_first_would(tmp_path, two_cores, monkeypatch):
    text = "name: two\nseeds: 2\nproblem: {dataset: gaussian, input_dim: 3, steps: 2, batch_size: 1}\n"
    (tmp_path / "two.yaml").write_text(f"{text}finite: {{widths: [4], depths: [1, 2]}}\n")
    out = tmp_path / "out"
    with monkeypatch.context() as alone:
        alone.setattr(_helper, "cores", lambda: 1)
        nfd.run(nfd.load_config(tmp_path / "two.yaml"), out, progress=False)
        report.write_report(out)
    whole = {path: path.read_bytes() for path in (*(out / "figures").iterdir(), out / "report.html")}
    made = []

    def there(self, folder, names, here):
        """All from the second process, which is waited for."""
        self.begin(folder, names)
        self._work.there.join()
        made.extend(self._work.found.items())
        return self._work.found

    monkeypatch.setattr(_helper.Helper, "draw", there)
    report.write_report(out)
    assert sum(isinstance(drawn, Drawn) for _, drawn in made) == len(whole) - 1 > 1
    assert {path: path.read_bytes() for path in whole} == whole
