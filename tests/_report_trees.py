"""Results trees with everything a report can show, by law: nothing is simulated here."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr
import yaml

from _planted import FLAGS, planted

SEEDS, STEPS = 8, 4


def config(**problem) -> str:
    """A resolved config as it is stored."""
    tree = {
        "name": "lawful",
        "seeds": SEEDS,
        "precision": "float64",
        "problem": {
            "dataset": "gaussian", "steps": STEPS, "batch_size": 2, "batches": "fixed", "loss": "squared", "activation": "tanh",
            "horizon": 1.0, "parametrization": "depth_mup", "train": "all", "learning_rate": 0.5,
        } | problem,
        "finite": {"backward_weights": list(FLAGS), "widths": [64, 128, 256, 512], "depths": [4, 8, 16, 32]},
        "limit": {"backward_weights": list(FLAGS), "particles": "matched", "depth_steps": 512},
    }  # fmt: skip
    return yaml.safe_dump(tree, sort_keys=False)


def whole(*, problem: Mapping | None = None, losses: Mapping[str, float] | None = None, **laws) -> xr.DataTree:
    """A planted world with losses of networks and limits and kernels beside it.

    losses: per flag the share of the loss that an update leaves; a network follows the limit of its own flag.
    """
    world = {"seeds": SEEDS, "steps": STEPS, "depths": (4, 8, 16, 32)} | laws
    tree = planted(**world)
    left = {"reused": 0.5, "independent": 0.6} | dict(losses or {})
    groups = {name: node.to_dataset(inherit=False) for name, node in tree.children.items()}
    rng = np.random.default_rng(0)
    loss = groups["finite"]["feature_shift_ms"].isel(t=0, drop=True)
    share = xr.DataArray([left[flag] for flag in FLAGS], dims="backward_weights", coords={"backward_weights": list(FLAGS)})
    seeds = xr.DataArray(1 + 0.02 * rng.normal(size=loss.sizes["seed"]), dims="seed", coords={"seed": loss["seed"]})
    curve = (share ** loss["step"]) * seeds
    loss = (xr.zeros_like(loss) + curve).transpose(*loss.dims)
    groups["finite"] = groups["finite"].assign(loss=loss, heldout_loss=1.1 * loss)
    solved = loss.isel(depth=0, drop=True).rename(width="particles")
    shift = groups["finite"]["feature_shift_ms"].isel(depth=0, drop=True).rename(width="particles")
    groups["limit"] = xr.Dataset({"loss": solved, "heldout_loss": 1.1 * solved, "feature_shift_ms": shift})
    kernel = loss.expand_dims(source=["finite", "limit"]).expand_dims(t=[0.0, 0.5, 1.0], sample=[0, 1], sample2=[0, 1])
    order = ("source", *loss.dims, "t", "sample", "sample2")
    kernel = kernel.transpose(*order) * (1 + kernel["t"])
    groups["kernels"] = xr.Dataset({"feature_kernel": kernel, "gradient_kernel": kernel})
    groups["/"] = xr.Dataset(
        attrs={
            "config": config(**(problem or {})), "device": "a <device>", "versions": {"jax": "0"}, "config_sha256": "c0ffee",
            "git": "unknown",
        }
    )  # fmt: skip
    return xr.DataTree.from_dict(groups)


def with_rates(tree: xr.DataTree, best: Mapping[float, float] | None = None, rates=(0.125, 0.25, 0.5, 1.0, 2.0)) -> xr.DataTree:
    """The tree at several learning rates; `best` maps depths to the rate of least loss, inf the limit's."""
    groups: dict[str, xr.Dataset] = {"/": xr.Dataset(attrs=tree.attrs)}
    for name, node in tree.children.items():
        dataset = node.to_dataset(inherit=False)
        if "learning_rate" in dataset.dims:
            dataset = dataset.isel(learning_rate=0, drop=True)
            dataset = xr.concat([dataset.assign_coords(learning_rate=rate) for rate in rates], "learning_rate", coords="minimal")
        if best and name in ("finite", "limit"):
            at = dataset["depth"].values if name == "finite" else np.array([np.inf])
            least = xr.DataArray([best[float(depth)] for depth in at], dims="depth", coords={"depth": at})
            bowl = 0.1 + np.log(dataset["learning_rate"] / least) ** 2
            bowl = bowl if name == "finite" else bowl.isel(depth=0, drop=True)
            dataset["loss"] = dataset["loss"] * bowl
        groups[name] = dataset
    return xr.DataTree.from_dict(groups)


def without(tree: xr.DataTree, *groups: str) -> xr.DataTree:
    """The tree less some groups."""
    kept = {name: node.to_dataset(inherit=False) for name, node in tree.children.items() if name not in groups}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=tree.attrs), **kept})


def stored(tree: xr.DataTree, folder: Path) -> Path:
    """The tree as results.zarr in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tree.to_zarr(folder / "results.zarr", mode="w")
    return folder
