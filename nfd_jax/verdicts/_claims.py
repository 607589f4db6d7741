"""Verdicts on the claims."""

import numpy as np
import xarray as xr

from nfd_jax.verdicts._row import Row, to_dataset
from nfd_jax.verdicts._words import ARGUMENTS, CLAIMS, READINGS, STATEMENTS


def _rows(tree, margin):
    return [
        Row(f"{claim} {reading} h", claim, reading, "h", "both", "constant", reason="add limit_error to measure")
        for claim in CLAIMS for reading in READINGS
    ]


def rates(tree: xr.DataTree, *, margin: float = 0.0025) -> xr.Dataset:
    return to_dataset(_rows(tree, margin), margin)


def judge(tree: xr.DataTree, *, margin: float = 0.0025) -> xr.Dataset:
    shape = (len(CLAIMS), len(READINGS))
    statements = np.array([[STATEMENTS[claim].sentence()] * len(READINGS) for claim in CLAIMS])
    text = {"verdict": np.full(shape, "not measured"), "reason": np.full(shape, "add it"), "statement": statements}
    data = {name: (("claim", "reading"), values, {"long_name": name, "units": "1"}) for name, values in text.items()}
    attrs = {f"reading_{key}": f"{name}. {pro} {con}" for key, (name, pro, con) in ARGUMENTS.items()}
    return xr.Dataset(data, {"claim": list(CLAIMS), "reading": list(READINGS)}, attrs)
