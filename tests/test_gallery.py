"""The gallery's notebooks hold the outputs of the scripts beside them, and the scripts run."""

import importlib.util
import json
import re
from pathlib import Path

import jax
import pytest

GALLERY = Path(__file__).parent.parent / "scripts" / "gallery"
SCRIPTS = sorted(path for path in GALLERY.glob("*.py") if path.name != "build.py")
NUMBER = re.compile(r"-?\d+\.\d+")


def build():
    spec = importlib.util.spec_from_file_location("gallery_build", GALLERY / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stored(path: Path) -> dict:
    return json.loads(path.with_suffix(".ipynb").read_text(encoding="utf-8"))


def printed(notebook: dict) -> list[str]:
    return [
        out["text"]
        for cell in notebook["cells"]
        for out in cell.get("outputs", ())
        if out["output_type"] == "stream"
    ]


def test_there_are_six():
    assert len(SCRIPTS) == 6


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_notebooks_are_those_of_the_scripts(path):
    notebook = stored(path)
    assert path.with_suffix(".ipynb").stat().st_size < build().MOST_BYTES
    assert [(cell["cell_type"], cell["source"]) for cell in notebook["cells"]] == build().cells(
        path.read_text(encoding="utf-8")
    )
    assert notebook["cells"][0]["source"].startswith("# ")
    images = [
        out
        for cell in notebook["cells"]
        for out in cell.get("outputs", ())
        if "image/png" in out.get("data", {})
    ]
    assert images and printed(notebook)
    assert "backward_weights" in path.read_text(encoding="utf-8")


@pytest.mark.long
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_print_what_the_notebooks_hold(path):
    with jax.enable_x64(False):
        again = printed(build().notebook(path))
    before = printed(stored(path))
    assert [NUMBER.sub("#", text) for text in again] == [NUMBER.sub("#", text) for text in before]
    for ours, theirs in zip(NUMBER.findall("".join(again)), NUMBER.findall("".join(before)), strict=True):
        digits = len(theirs.partition(".")[2])
        assert abs(float(ours) - float(theirs)) <= 2.001 * 10.0**-digits, (ours, theirs)
