"""Runs the gallery's scripts and writes each beside itself as a notebook with its outputs.

    python scripts/gallery/build.py [NAME …]

A script is cells apart by lines that begin with "# %%"; "# %% [markdown]" starts a cell of text in comments.
Cells run one
after the other in one namespace, without a kernel: what they print and the figures they leave open are their
outputs.
"""

import base64
import contextlib
import io
import json
import sys
import time
from pathlib import Path

import matplotlib

HERE = Path(__file__).parent
MOST_BYTES = 400 * 1024


def cells(source: str) -> list[tuple[str, str]]:
    """(kind, text) of every cell; text cells without their comment signs."""
    found = []
    for part in source.split("# %%")[1:]:
        head, _, body = part.partition("\n")
        body = body.strip("\n")
        if "[markdown]" in head:
            lines = [line.removeprefix("#").removeprefix(" ") for line in body.splitlines()]
            found.append(("markdown", "\n".join(lines)))
        else:
            found.append(("code", body))
    return found


def run(code: str, names: dict, place: str) -> list[dict]:
    """Outputs of a cell in the notebook format."""
    import matplotlib.pyplot as plt

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, place, "exec"), names)
    outputs: list[dict] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": printed.getvalue()})
    for number in plt.get_fignums():
        raw = io.BytesIO()
        plt.figure(number).savefig(raw, format="png", dpi=90, bbox_inches="tight")
        image = base64.b64encode(raw.getvalue()).decode()
        outputs.append({"output_type": "display_data", "data": {"image/png": image}, "metadata": {}})
    plt.close("all")
    return outputs


def notebook(path: Path) -> dict:
    """The executed notebook of a script."""
    matplotlib.use("Agg")
    names: dict = {"__name__": "__main__"}
    made, count = [], 0
    for i, (kind, text) in enumerate(cells(path.read_text(encoding="utf-8"))):
        cell = {"cell_type": kind, "id": f"{path.stem}-{i}", "metadata": {}, "source": text}
        if kind == "code":
            count += 1
            cell |= {"execution_count": count, "outputs": run(text, names, f"{path.name}, cell {count}")}
        made.append(cell)
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": made, "metadata": {"kernelspec": python}, "nbformat": 4, "nbformat_minor": 5}


def main(chosen: list[str]) -> None:
    for path in sorted(HERE.glob("*.py")):
        if path == Path(__file__).resolve() or (chosen and path.stem not in chosen):
            continue
        began = time.monotonic()
        text = json.dumps(notebook(path), ensure_ascii=False, indent=1) + "\n"
        path.with_suffix(".ipynb").write_text(text, encoding="utf-8")
        print(f"{path.stem}: {time.monotonic() - began:.0f} s, {len(text.encode()) / 1024:.0f} KiB")
        if len(text.encode()) > MOST_BYTES:
            raise SystemExit(f"{path.stem}: larger than {MOST_BYTES // 1024} KiB")


if __name__ == "__main__":
    main(sys.argv[1:])
