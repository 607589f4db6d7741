"""The README's Python example runs, and its YAML is a valid config with the contract's keys."""

import re
from pathlib import Path

import pytest
import yaml

from nfd_jax.config import SweepConfig, load_config

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def test_python_example(capsys):
    (example,) = blocks("python")
    names: dict = {}
    exec(compile(example, str(README), "exec"), names)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["4", "8", "16"]
    assert names["dense"].shape == (5, 3)
    assert names["kernels"].preactivation.shape == (5, 4, 4)


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


def test_config_table_names_what_is_shipped():
    shipped = {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    assert shipped <= set(re.findall(r"(\w+)\.yaml", README.read_text()))
