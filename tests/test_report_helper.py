"""Figures shared out to a second process: the same figures, whatever becomes of it."""

import pickle
import subprocess
import sys
import time

import pytest

import nfd_jax as nfd
from nfd_jax import report
from nfd_jax.report import _helper
from nfd_jax.report._draw import Drawn

ANSWER = "import sys, pickle\ndef answer(x): pickle.dump(x, sys.stdout.buffer); sys.stdout.buffer.flush()\n"
WORK = {
    "draws": "input(); answer('ready')\nfor line in sys.stdin: answer(line.strip().upper())",
    "dies at once": "sys.exit()",
    "dies at work": "input(); answer('ready'); input()",
    "answers nonsense": "for line in sys.stdin: print(line, flush=True)",
}


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(_helper, "cores", lambda: 2)


@pytest.mark.parametrize("how", WORK)
def test_all_is_drawn_once_whatever_the_second_process_does(tmp_path, monkeypatch, two_cores, how):
    start = subprocess.Popen
    other = [sys.executable, "-c", ANSWER + WORK[how]]
    monkeypatch.setattr(_helper.subprocess, "Popen", lambda command, **pipes: start(other, **pipes))
    names, here = [f"figure{i}" for i in range(100)], []

    def draw(name):
        here.append(name)
        time.sleep(0.02)
        return name.upper()

    with _helper.Helper() as helper:
        found, process = helper.draw(tmp_path, names, draw), helper._process
    assert list(found.items()) == [(name, name.upper()) for name in names]
    assert len(set(here)) == len(here) and (0 < len(here) < 100) == (how == "draws")
    assert process.poll() is not None  # it ends with the context


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
        """All from the second process, where its first answer is waited for."""
        self._tell(str(folder.resolve()))
        pickle.load(self._process.stdout)
        for name in names:
            self._tell(name)
            made.append((name, pickle.load(self._process.stdout)))
        return dict(made)

    monkeypatch.setattr(_helper.Helper, "draw", there)
    report.write_report(out)
    assert sum(isinstance(drawn, Drawn) for _, drawn in made) == len(whole) - 1 > 1
    assert {path: path.read_bytes() for path in whole} == whole
