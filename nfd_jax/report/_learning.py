"""What training curves say, in sentences: the gap between backward weights, the transfer of learning rates,
the size of updates. Every number is one of `nfd_jax.verdicts`."""

import math

import xarray as xr

from nfd_jax.report._numbers import Estimate, count, number, percent, percents, slope
from nfd_jax.report._pick import estimate, largest, matched, pick
from nfd_jax.report._plot import OTHER, SYMBOL
from nfd_jax.verdicts import View, coordinate_check, gap_constants, relative_gap, spread, transfer

FLAGS = ("reused", "independent")


def learning_words(view: View) -> list[str]:
    """A line on the gap of losses and one on learning rates, where a run can say something of them."""
    best = best_rates(view)
    lines = [
        " ".join(gap_words(view)),
        "" if best is None else f"Learning rates: {rate_words(best)}. {shift_words(best)}",
    ]
    return [line.strip() for line in lines if line]


def gap_words(view: View) -> list[str]:
    """What the losses of networks with reused and with independent backward weights say at the end, a
    sentence or two for at most three learning rates, largest width and depth."""
    found = relative_gap(view.tree)
    if found is None or "gap" not in found:
        return []
    constants = gap_constants(view.tree, steps=2)
    return [_gap_at(found, constants, rate) for rate in spread(list(found["learning_rate"].values), 3)]


def _gap_at(found: xr.Dataset, constants: xr.Dataset | None, rate: float) -> str:
    seen = found["left_reused"].sel(learning_rate=rate).isel(step=-1)
    if not seen.notnull().any():
        return f"At η = {rate:g} no pair of networks has a loss."
    corner = largest(seen, "width", "depth")
    where = {dim: corner[dim].item() for dim in ("learning_rate", "width", "depth", "step")}
    gap, reason = estimate(found, "gap", **where), str(found["reason"].sel(where).item())
    left = [percent(float(found[f"left_{flag}"].sel(where))) for flag in FLAGS]
    margin = f"{100 * found.attrs['margin']:g} %"
    start = f"At η = {rate:g}, after {count(int(where['step']), 'update')} (n = {where['width']}, "
    start += f"L = {where['depth']}),"
    if reason == "":
        return f"{start} the loss has hardly dropped: there is no gap to speak of yet."
    if reason == "both learned everything":
        return (
            f"{start} both kinds of networks have learned everything ({' and '.join(left)} of the first "
            "loss is left): that their losses meet says nothing of what reuse does."
        )
    if reason == "the gap vanished":
        text = (
            f"{start} networks with independent and with reused backward weights have the same loss within "
            f"±{margin} of what has been learned, {percents(gap)}, with {left[0]} of the first loss left"
        )
    elif reason == "they differ":
        text = f"{start} networks with independent backward weights have "
        if gap.value > 0:
            text += f"yet to learn {percents(gap)} of what reused ones have learned"
        else:
            gap = Estimate(-gap.value, -gap.high, -gap.low)
            text += f"learned {percents(gap)} more than reused ones"
    else:
        text = (
            f"{start} the gap of losses, {percents(gap)} of what has been learned, may lie within "
            f"±{margin} or beyond: more seeds would tell"
        )
    at = {"learning_rate": rate, "step": where["step"]}
    limit = limit_gap(found, rate, where["width"])
    if limit is not None and limit.sel(step=where["step"]).notnull():
        text += f"; the limits' own gap is {percent(float(limit.sel(step=where['step'])))}"
    if constants is not None and where["step"] in constants["step"]:
        scatter = percent(float(found["scatter"].sel(where)))
        text += f". {_constant(constants.sel(at), found.sizes['width'] > 1, scatter, found['depth'].values)}"
    return f"{text}."


def limit_gap(found: xr.Dataset, rate: float, width: int) -> xr.DataArray | None:
    """The limits' own gap, of as many particles as the network is wide or of most; None where there is
    none."""
    if "limit_gap" not in found:
        return None
    values = pick(found["limit_gap"], learning_rate=rate)
    return None if values is None else matched(values, width)


def _constant(found: xr.Dataset, wide: bool, scatter: str, depths) -> str:
    """What is left at infinite depth, and from which depth on single runs would not show the gap."""
    to, left = "n, L → ∞" if wide else "L → ∞", estimate(found, "constant")
    text = {
        "remains": f"As {to} a gap of {percents(left)} remains",
        "vanishes": f"As {to} no gap remains, {percents(left)}",
        "undecided": f"Whether a gap remains as {to} is undecided"
        + (f", {percents(left)}" if math.isfinite(left.low) else ""),
    }[str(found["verdict"].item())]
    drop = float(found["drop_depth"])
    if math.isnan(drop):
        return text
    if drop == math.inf:
        return f"{text}; at no depth does it drop below the scatter of seeds, {scatter}"
    if drop <= min(depths):
        return (
            f"{text}; at every depth it is below the scatter of seeds, {scatter}: single runs do not show it"
        )
    return f"{text}; below the scatter of seeds, {scatter}, it drops at about L = {drop:.2g}"


def best_rates(view: View) -> xr.Dataset | None:
    """`nfd_jax.verdicts.transfer` of the networks there are, reused ones first."""
    for flag in FLAGS:
        found = transfer(view.tree, backward_weights=flag)
        if found is not None and "optimum" in found and found["optimum"].notnull().any():
            return found.assign_attrs(backward_weights=flag)
    return None


def cut(found: xr.Dataset, axis: str) -> dict[str, int]:
    """The largest size on the other axis, and the sizes on this one that have a best rate."""
    return {OTHER[axis]: int(largest(found["optimum"], OTHER[axis])[OTHER[axis]])}


def rate_words(found: xr.Dataset) -> str:
    """Where the best learning rate lies, shallow, deep and in the limit, and whether the limit's serves."""
    axis = "depth" if found.sizes["depth"] > 1 or found.sizes["width"] < 2 else "width"
    at = found.sel(cut(found, axis))
    sizes = at[axis].values[at["optimum"].notnull().values]
    ends = list(dict.fromkeys([sizes[0], sizes[-1]]))
    said = [f"{_rate(at, {axis: size})} at {SYMBOL[axis]} = {size}" for size in ends]
    if (limit := limit_rate(found)) is not None:
        said.append(f"{_rate(found, limit, 'limit_')} in the limit")
    text = f"best η {', '.join(said)}"
    cost = estimate(at, "cost", **{axis: sizes[-1]}) if "cost" in at else None
    if cost is not None and math.isfinite(cost.value):
        over = [max(round(end - 1, 6), 0.0) for end in cost]
        text += f"; at the limit's η the loss of {SYMBOL[axis]} = {sizes[-1]} is {percent(over[0])}"
        text += " above its best"
        if over[2] > over[1]:
            text += f" [{percent(over[1])}, {percent(over[2])}]"
    return text


def limit_rate(found: xr.Dataset) -> dict[str, int] | None:
    """The place of the limit's best rate: of as many particles as the widest network, or of most."""
    if "limit_optimum" not in found or not found["limit_optimum"].notnull().any():
        return None
    counts = found["particles"].values[found["limit_optimum"].notnull().values]
    width = found["width"].values[-1] if "width" in found.dims else 0
    return {"particles": width if width in counts else counts[-1]}


def _rate(found: xr.Dataset, where: dict, prefix: str = "") -> str:
    """A best rate; one at an end of the list is a bound."""
    best, inner = found[f"{prefix}optimum"].sel(where), bool(found[f"{prefix}inner"].sel(where))
    low = float(found[f"{prefix}optimum_low"].sel(where))
    return f"{'' if inner else '≤ ' if low == 0 else '≥ '}{number(float(best))}"


def shift_words(found: xr.Dataset) -> str:
    """How the best rate moves with depth and width, as powers."""
    said = []
    for axis in OTHER:
        other = cut(found, axis)
        power = estimate(found, f"{axis}_shift", **other)
        if math.isfinite(power.value):
            ((name, size),) = other.items()
            said.append(f"like {SYMBOL[axis]}^p with p = {slope(power)} (at {SYMBOL[name]} = {size})")
    return f"Best rates move {', '.join(said[::-1])}." if said else ""


def checked(view: View) -> xr.Dataset | None:
    """`nfd_jax.verdicts.coordinate_check` of the networks there are, reused ones first, at one rate; None
    where the movement of features was not measured."""
    for flag in FLAGS:
        found = coordinate_check(view.tree, backward_weights=flag)
        if found is not None and found["size"].sel(quantity="h").notnull().any():
            found = found.assign_attrs(backward_weights=flag)
            return (
                found.sel(learning_rate=view.rate) if view.rate is not None else found.isel(learning_rate=-1)
            )
    return None


def check_words(found: xr.Dataset) -> tuple[str, str]:
    """The verdict of the coordinate check on each axis, and the powers that it rests on."""
    said, powers = [], []
    for axis in OTHER:
        verdicts = {
            quantity: word
            for quantity in map(str, found["quantity"].values)
            if (word := str(found[f"{axis}_verdict"].sel(quantity=quantity).item()))
        }
        said += [f"with {axis} {', '.join(map(' '.join, verdicts.items()))}"] if verdicts else []
        for quantity in verdicts:
            power = estimate(found, f"{axis}_slope", quantity=quantity)
            powers.append(f"{quantity} like {SYMBOL[axis]} to the power {slope(power)}")
    return "; ".join(said), ", ".join(powers)
