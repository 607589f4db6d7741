"""The README's blocks run and print what it says they print; its YAML is a valid config with the contract's
keys.
"""

import re
from pathlib import Path

import jax
import matplotlib
import numpy as np
import pytest
import yaml

from nfd_jax.config import SweepConfig, load_config

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
NUMBER = re.compile(r"[-−]?\d+(?:\.\d+)?")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def examples() -> list[tuple[str, list[str]]]:
    """Every Python block with the lines it is said to print: in the text block right after it, or beside it
    after →.
    """
    found = re.findall(
        r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", README.read_text(encoding="utf-8"), re.DOTALL
    )
    return [(code, said.splitlines() or re.findall(r"# → (.*)", code)) for code, said in found]


def same(printed: str, said: str) -> bool:
    """Words alike; numbers to two units of the last digit shown."""
    if NUMBER.sub("#", " ".join(printed.split())) != NUMBER.sub("#", " ".join(said.split())):
        return False
    for ours, theirs in zip(NUMBER.findall(printed), NUMBER.findall(said), strict=True):
        digits = len(theirs.partition(".")[2])
        step = 10.0**-digits if digits else 0.0
        if abs(float(ours.replace("−", "-")) - float(theirs.replace("−", "-"))) > 2.001 * step:
            return False
    return True


def run(chosen, capsys, tmp_path, monkeypatch) -> dict:
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code, said in chosen:
        with jax.enable_x64(False):  # as a user's session has it
            exec(compile(code, str(README), "exec"), names)
        printed = capsys.readouterr().out.splitlines()
        assert len(printed) == len(said), (printed, said)
        for line, expected in zip(printed, said, strict=True):
            assert same(line, expected), f"{line!r} where the README says {expected!r}"
    return names


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_the_first_example(capsys, tmp_path, monkeypatch):
    names = run(examples()[:2], capsys, tmp_path, monkeypatch)
    assert (tmp_path / "loss.png").stat().st_size > 5000
    assert names["network"].features.shape[-1] == 512


@pytest.mark.long
def test_every_example(capsys, tmp_path, monkeypatch):
    run(examples(), capsys, tmp_path, monkeypatch)
    assert len(examples()) >= 10


def test_numbers_are_compared():
    assert (
        same("a 0.0149 b", "a 0.0150 b")
        and not same("a 0.0149 b", "a 0.0159 b")
        and not same("a 0.1", "c 0.1")
    )
    assert same("(6, 4, 1) True", "(6, 4, 1) True") and not same("(6, 3, 1)", "(6, 4, 1)")


def test_it_is_a_front_page():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 200
    assert "pip install -e . && nfd run configs/quickstart.yaml\n" in text
    assert 'pip install -e ".[test]" && pytest\n' in text
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_backward_weights_are_said_each_time():
    for code, _ in examples():
        calls = re.findall(r"nfd\.(?:train_finite|solve_limit|estimate_limit|train_grid)\(.*", code)
        assert all("backward_weights" in code for _ in calls)


def test_yaml_example(tmp_path):
    (example,) = blocks("yaml")
    path = tmp_path / "example.yaml"
    path.write_text(example)
    assert load_config(path).name == "depth-rates"
    assert set(yaml.safe_load(example)) == set(SweepConfig.model_fields) - {"variants"}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_are_valid(path):
    if "cifar10" in path.read_text() and not (ROOT.parent / "shared" / "data").exists():
        pytest.skip("no CIFAR-10 data beside the checkout")
    load_config(path)


def test_the_terminal_output_is_in_the_report_s_words():
    (said,) = [block for block in blocks("text") if "Claims C1–C6" in block]
    lines = said.splitlines()
    assert any("the reused limit" in line for line in lines) and any("NFD" in line for line in lines)
    held, failed, rest = re.search(
        r"in mean square: (\d) holds?.*? (\d) fails?.*? (\d) (?:is|are) open", said
    ).groups()
    assert int(held) + int(failed) + int(rest) == 6
    assert np.all([len(line) < 200 for line in lines])
