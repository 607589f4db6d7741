"""What training curves say, in sentences: the gap between backward weights, the transfer of learning rates,
the size of updates. Every number is one of `nfd_jax.verdicts`."""

import math

import xarray as xr

from nfd_jax.report._numbers import Estimate, count, listed, number, percent, percents, slope
from nfd_jax.report._pick import estimate, largest, matched, pick
from nfd_jax.report._plot import OTHER, SYMBOL
from nfd_jax.verdicts import (
    View,
    coordinate_check,
    covered,
    gap_constants,
    relative_gap,
    section,
    spread,
    transfer,
)

FLAGS = ("reused", "independent")


def learning_words(view: View) -> list[str]:
    """A line on the gap of losses and one on learning rates, where a run can say something of them."""
    best = best_rates(view)
    lines = [" ".join(gap_words(view))]
    if best is not None:
        said = [f"Learning rates: {rate_words(best)}.", shift_words(best), untrained_words(best)]
        lines.append(" ".join(filter(None, said)))
    return [line for line in lines if line]


def gap_words(view: View) -> list[str]:
    """What the losses of networks with reused and with independent backward weights say at the end, a
    sentence or two for at most three learning rates, largest width and depth."""
    found = relative_gap(view.tree)
    if found is None or "gap" not in found:
        return []
    found = found.assign_attrs(limit=grid_of(view))
    constants = gap_constants(view.tree, steps=2)
    return [_gap_at(found, constants, rate) for rate in spread(list(found["learning_rate"].values), 3)]


def _gap_at(found: xr.Dataset, constants: xr.Dataset | None, rate: float) -> str:
    seen = found["left_reused"].sel(learning_rate=rate).isel(step=-1)
    if not seen.notnull().any():
        if (found["reason"].sel(learning_rate=rate) == "too many diverged").any():
            return f"At η = {rate:g} more than 10 % of the seeds diverged: losses are not compared."
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
            f"{start} both kinds of networks have learned nearly everything ({left[0]} of the first loss is "
            f"left with reused and {left[1]} with independent weights): curves that close up there say "
            "nothing of what reuse does."
        )
    if reason == "the gap vanished":
        text = (
            f"{start} networks with independent and with reused backward weights have the same loss within "
            f"±{margin} of what has been learned, {percents(gap)}, with {left[0]} of the first loss left"
        )
    elif reason == "they differ":
        who = f"{start} networks with independent backward weights have "
        if gap.value > 0:
            text = f"{who}yet to learn {percents(gap)} of what reused ones have learned"
        else:
            text = (
                f"{who}learned more than reused ones: the gap of losses is {percents(gap)} of what is learned"
            )
    else:
        text = (
            f"{start} the gap of losses, {percents(gap)} of what has been learned, may lie within "
            f"±{margin} or beyond: more seeds would tell"
        )
    at = {"learning_rate": rate, "step": where["step"]}
    own = [limit_gap(found, rate, where["width"], end) for end in ("", "_low", "_high")]
    if own[0] is not None and own[0].sel(step=where["step"]).notnull():
        theirs = Estimate(*(float(end.sel(step=where["step"])) for end in own))
        text += f"; the limits' own gap ({found.attrs['limit']}) is {percents(theirs)}"
    if constants is not None and where["step"] in constants["step"]:
        return f"{text}. {_constant(constants.sel(at), found.sizes['width'] > 1, found['depth'].values)}."
    along = found["gap"].sel(at | {"width": where["width"]})
    known = covered(along, "depth")
    if len(known) > 1:
        ends = [f"{percent(float(along.sel(depth=depth)))} at L = {depth}" for depth in (known[0], known[-1])]
        text += f". It goes from {ends[0]} to {ends[1]}"
    return f"{text}."


def limit_gap(found: xr.Dataset, rate: float, width: int, end: str = "") -> xr.DataArray | None:
    """The limits' own gap, or an `end` of its interval ("_low", "_high"), of as many particles as the network
    is wide or of most; None where there is none."""
    if "limit_gap" not in found:
        return None
    values = pick(found[f"limit_gap{end}"], learning_rate=rate)
    return None if values is None else matched(values, width)


def _constant(found: xr.Dataset, wide: bool, depths) -> str:
    """What is left at infinite depth, and from which depth on single runs would not show the gap."""
    to, left = "n, L → ∞" if wide else "L → ∞", estimate(found, "constant")
    text = {
        "remains": f"As {to} a gap of {percents(left)} remains",
        "vanishes": f"As {to} no gap remains, {percents(left)}",
        "undecided": f"Whether a gap remains as {to} is undecided"
        + (f", {percents(left)}" if math.isfinite(left.low) else ""),
    }[str(found["verdict"].item())]
    drop, scatter = float(found["drop_depth"]), percent(float(found["scatter"]))
    if math.isnan(drop) or found["verdict"] == "undecided":
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
            return found.assign_attrs(backward_weights=flag, limit=grid_of(view))
    return None


def grid_of(view: View) -> str:
    """How fine the limits are: their Euler steps, or what they were estimated to."""
    tolerance = section(view.config, "limit").get("tolerance")
    return f"M = {view.reference}" if tolerance is None else f"to {tolerance:g}"


def cut(found: xr.Dataset, axis: str) -> dict[str, int]:
    """The largest size on the other axis, and the sizes on this one that have a best rate."""
    return {OTHER[axis]: int(largest(found["optimum"], OTHER[axis])[OTHER[axis]])}


def rate_words(found: xr.Dataset) -> str:
    """Where the best learning rate lies, shallow, deep and in the limit, and whether the limit's serves."""
    axis = "depth" if found.sizes["depth"] > 1 or found.sizes["width"] < 2 else "width"
    at = found.sel(cut(found, axis))
    sizes = at[axis].values[at["optimum"].notnull().values]
    ends = list(dict.fromkeys([sizes[0], sizes[-1]]))
    said = [f"{rate_word(at, {axis: size})} at {SYMBOL[axis]} = {size}" for size in ends]
    least = [at["loss"].sel({axis: size}).min() for size in ends]
    if (limit := limit_rate(found)) is not None:
        said.append(f"{rate_word(found, limit, 'limit_')} in the limit ({found.attrs['limit']})")
        least.append(found["limit_loss"].sel(limit).min())
    losses = listed(number(float(loss)) for loss in least)
    text = f"best η {', '.join(said)} (least {'loss' if len(least) == 1 else 'losses'} {losses})"
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


def rate_word(found: xr.Dataset, where: dict, prefix: str = "") -> str:
    """A best rate; where it is no vertex, the rates of the list that it lies between."""
    best = estimate(found, f"{prefix}optimum", **where)
    if bool(found[f"{prefix}inner"].sel(where)):
        return number(best.value)
    if math.isinf(best.high):
        return f"above {number(best.low)}"
    return (
        f"between {number(best.low)} and {number(best.high)}"
        if best.low > 0
        else f"below {number(best.high)}"
    )


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


def untrained_words(found: xr.Dataset) -> str:
    """The least rate at which networks of some size have seeds that do not train, and how many."""
    shares = found["untrained"].max(["width", "depth"])
    if not (shares > 0).any():
        return ""
    first = shares["learning_rate"][shares > 0].min().item()
    share = percent(float(shares.sel(learning_rate=first)))
    return f"At η = {first:g} up to {share} of a network's seeds diverge or end above their first loss."


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
