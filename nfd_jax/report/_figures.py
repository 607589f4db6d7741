"""The figures of one sweep, those its results have data for, and their files."""

import base64
import re
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.image import imsave

from nfd_jax.report._figures_rates import coupling, joint_limits, limit_error
from nfd_jax.report._figures_spectrum import eigenvalues
from nfd_jax.report._figures_training import kernels, losses
from nfd_jax.report._plot import Drawing, styled
from nfd_jax.verdicts._view import View

NAMES = (
    "limit_error_depth", "limit_error_width", "coupling", "eigenvalues", "joint_limits", "kernels", "loss",
    "heldout_loss", "variants", "parametrizations", "phase_map",
)  # fmt: skip
"""Names a report's figures may have; phase_map is followed by a hyphen and more."""


def drawings(tree: xr.DataTree) -> Iterator[Drawing]:
    """Every figure there is data for, one at a time; to be drawn within `styled`."""
    view = View.of(tree)
    made = (
        lambda: limit_error(view, "depth"),
        lambda: limit_error(view, "width"),
        lambda: coupling(view),
        lambda: eigenvalues(view),
        lambda: joint_limits(view),
        lambda: kernels(view),
        lambda: losses(view, held_out=False),
        lambda: losses(view, held_out=True),
    )
    for make in made:
        drawing = make()
        if drawing is not None:
            yield drawing


def draw_all(folder: Path, made: Iterable[Drawing]) -> dict[str, tuple[Drawing, str]]:
    """Writes every drawing as PNG and SVG and removes those of earlier reports; by name, with a data URI of it.

    The same data give the same files, byte for byte.
    """
    folder.mkdir(parents=True, exist_ok=True)
    saved = {}
    with styled():
        for drawing in made:
            png, svg = rendered(drawing.figure)
            (folder / f"{drawing.name}.png").write_bytes(png)
            (folder / f"{drawing.name}.svg").write_bytes(svg)
            saved[drawing.name] = (drawing, _embedded(png, svg.decode()))
    for old in (*folder.glob("*.svg"), *folder.glob("*.png")):
        if old.stem not in saved and old.stem.partition("-")[0] in NAMES:
            old.unlink()
    return saved


def rendered(figure: Figure) -> tuple[bytes, bytes]:
    """(PNG, SVG). Drawn twice in all, where savefig, which lays out anew each time, would draw four times."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    figure.set_layout_engine("none")
    png, svg = BytesIO(), BytesIO()
    imsave(png, np.asarray(canvas.buffer_rgba()), format="png", metadata={"Software": "nfd_jax"})
    FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": None})
    return png.getvalue(), re.sub(rb"\b([1-9]\d*\.\d\d)\d+", rb"\1", svg.getvalue())


def _embedded(png: bytes, svg: str) -> str:
    """The data URI of whichever is shorter; SVG readable but for what HTML and URIs forbid, which beats base64."""
    body = re.sub(r"<!--.*?-->|\s+", " ", svg[svg.index("<svg") :].replace('"', "'"), flags=re.DOTALL)
    vector = "data:image/svg+xml," + re.sub("[%#<>&:]", lambda found: f"%{ord(found[0]):02X}", body)
    raster = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return min(vector, raster, key=len)
