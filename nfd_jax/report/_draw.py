"""Figures to files: each is drawn once, kept whole as PNG, and handed to the page panel by panel, which a
narrow screen stacks."""

import base64
import os
from collections.abc import Collection, Iterable
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from nfd_jax.report._plot import Drawing, styled

COLORS = 96  # of the palette: lines and text need no more, and files stay a third as large


class Drawn(NamedTuple):
    """A drawing, and data URIs of its panels with their widths and heights in pixels."""

    drawing: Drawing
    panels: tuple[tuple[str, int, int], ...]


def draw_all(folder: Path, made: Iterable[Drawing]) -> dict[str, Drawn]:
    """Writes every drawing to folder/NAME.png and removes what earlier reports wrote; by name, what a page
    embeds.

    The same data give the same files, byte for byte.
    """
    with styled():
        saved = {drawing.name: drawn(folder, drawing) for drawing in made}
    remove_others(folder, saved)
    return saved


def drawn(folder: Path, drawing: Drawing) -> Drawn:
    """Writes folder/NAME.png."""
    whole, panels = rendered(drawing)
    folder.mkdir(parents=True, exist_ok=True)
    path, temporary = folder / f"{drawing.name}.png", folder / f".{drawing.name}.png.tmp"
    temporary.write_bytes(whole)
    os.replace(temporary, path)
    return Drawn(drawing, panels)


def remove_others(folder: Path, saved: Collection[str]) -> None:
    """Removes what earlier reports drew and this one does not."""
    for old in (*folder.glob("*.svg"), *folder.glob("*.png")):
        if _ours(old) and not (old.suffix == ".png" and old.stem in saved):
            old.unlink()


def rendered(drawing: Drawing) -> tuple[bytes, tuple[tuple[str, int, int], ...]]:
    """(PNG of the whole, panels as `Drawn` has them)."""
    canvas = FigureCanvasAgg(drawing.figure)
    canvas.draw()
    rgb = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    image = Image.fromarray(rgb).quantize(COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    wide, high = image.size
    panels = []
    for left, bottom, width, height in drawing.boxes:
        box = (left * wide, (1 - bottom - height) * high, (left + width) * wide, (1 - bottom) * high)
        part = image.crop(tuple(round(edge) for edge in box))
        panels.append((f"data:image/png;base64,{base64.b64encode(_png(part)).decode()}", *part.size))
    return _png(image), tuple(panels)


def _png(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, "png", optimize=False, compress_level=6)
    return stream.getvalue()


def _ours(path: Path) -> bool:
    from nfd_jax.report._figures import NAMES

    return path.stem.partition("-")[0] in NAMES
