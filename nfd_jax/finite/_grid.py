"""Networks with weight matrices, many at once: a width's depths, seeds, learning rates and backward-weight
flags in one program.

One network is written in `_matrices`; here it is mapped over. One program serves

    every depth         a traced loop bound; layers have keys of their own, so all depths share one draw. A
                        CPU takes depths in turn; an accelerator takes those of a group side by side, whose
                        loops visit as many layers as the deepest has
    narrower widths     arrays have `size` coordinates, those from `width` on (traced) zero
    every rate, flag    W(0) is drawn once a seed, and stays unbatched where networks share it
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nfd_jax import observables
from nfd_jax._sizes import Sizes
from nfd_jax.activations import resolve
from nfd_jax.finite._draws import Initial, draw
from nfd_jax.finite._hidden import at_start
from nfd_jax.finite._matrices import Seen, train
from nfd_jax.finite._updates import Ends
from nfd_jax.losses import accuracy, loss_function
from nfd_jax.problem import Heldout, Problem


@dataclass(frozen=True)
class Shape:
    """What a program is compiled for, besides the shapes of its arguments.

    It holds `size` coordinates and `layers` layers. `rates` learning rates run side by side, the others in
    turn. `together`: places of the depths that run side by side, group by group; () where all go in turn.
    Features are looked at on `grid` intervals of t; `probe` follows the inputs of step 0 instead of the
    current ones. `record` names what to hand out of every step: "features", "gradients", "kernels".
    `precision` is that of matrix products.
    """

    form: str
    flags: tuple[str, ...]
    size: int
    layers: int
    rates: int
    grid: int
    probe: bool = False
    record: tuple[str, ...] = ()
    precision: str = "highest"
    together: tuple[tuple[int, ...], ...] = ()

    @property
    def independent(self) -> bool:
        """Whether some network has backward weights of its own."""
        return "independent" in self.flags


def observer(problem: Problem, heldout: Heldout | None, width: Array, shape: Shape):
    """What a sweep keeps of each step; it remembers h and b of step 0, whose shift is measured."""
    loss, phi, rows = loss_function(problem.loss), resolve(problem.activation).value, problem.batch_size
    inside = jnp.arange(shape.size) < width
    ms = lambda x: jnp.sum(x * x, axis=(-2, -1)) / (rows * width)

    def observe(memory, seen: Seen):
        aim = problem.targets[seen.step]
        own = seen.features[:, -rows:], seen.gradients[:, -rows:]
        memory = jax.tree.map(lambda first, now: jnp.where(seen.step == 0, now, first), memory, own)
        out = {"loss": seen.loss, "output": seen.output, "accuracy": accuracy(seen.output, aim)}
        for name, now, first in zip(("feature", "gradient"), own, memory, strict=True):
            out[f"{name}_shift_ms"] = ms(now - first)
        if heldout is not None:
            out["heldout_loss"] = loss.value(seen.heldout, heldout.targets)
            out["heldout_accuracy"] = accuracy(seen.heldout, heldout.targets)
        for name, x in (("feature", seen.features[:, :rows]), ("gradient", seen.gradients[:, :rows])):
            if f"{name}s" in shape.record:
                out[f"{name}s"] = x
            if "kernels" in shape.record:
                x = jnp.where(inside, phi(x), 0) if name == "feature" else x
                out[f"{name}_kernel"] = observables.kernel(x) * (shape.size / width.astype(x.dtype))
        return memory, out

    start = jnp.zeros((shape.grid + 1, rows, shape.size), problem.dtype)
    return observe, (start, start)


def program(
    problem: Problem,
    heldout: Heldout | None,
    key: Array,
    seeds: Array,
    rates: Float[Array, " R"],
    width: Array,
    depths: Array,
    shape: Shape,
) -> dict[str, Array]:
    """Everything of a width: `train` at every depth and rate; leading axes (D, S, R, F, K). `key` is the
    master key's data.

    loss, accuracy, feature_shift_ms and gradient_shift_ms (G), output (P, C), with `heldout` its loss and
    accuracy, and what `shape.record` names: features and gradients (G, P, n), feature_kernel and
    gradient_kernel (G, P, P).
    """
    with jax.default_matmul_precision(shape.precision):
        initial = draw(
            problem,
            jax.random.wrap_key_data(key),
            seeds,
            width,
            size=shape.size,
            layers=shape.layers,
            independent=shape.independent,
        )
        chunks = rates.reshape(-1, shape.rates)
        reuse = jnp.asarray([flag == "reused" for flag in shape.flags], problem.dtype)
        # Flags run side by side where they read one W(0); where each rewrites matrices of its own, in turn.
        flags = reuse[None] if shape.form == "factored" else reuse[:, None]
        inner = jnp.arange(chunks.shape[0]), jnp.arange(flags.shape[0])

        def run(depth, r, f, bound):
            return _side_by_side(problem, heldout, initial, chunks[r], flags[f], width, depth, bound, shape)

        def group(places: tuple[int, ...]) -> dict[str, Array]:
            """Depths side by side, leading axes (depth, chunk × flags)."""
            mine, at = depths[np.asarray(places)], tuple(map(jnp.ravel, jnp.meshgrid(*inner, indexing="ij")))
            every: Any = jax.vmap(run, (0, None, None, None))
            found = jax.lax.map(lambda rf: every(mine, *rf, mine.max()), at)
            return {name: jnp.moveaxis(x, 1, 0) for name, x in found.items()}

        if shape.together:
            order = np.argsort(np.concatenate(shape.together))
            found = [group(places) for places in shape.together]
            out = {name: jnp.concatenate([part[name] for part in found])[order] for name in found[0]}
            out = {name: x.reshape(-1, *x.shape[2:]) for name, x in out.items()}
        else:
            every = jnp.meshgrid(jnp.arange(depths.size), *inner, indexing="ij")
            at = tuple(map(jnp.ravel, every))

            def in_turn(at):
                d, r, f = at
                depth = depths[d]
                return run(depth, r, f, depth)

            out = jax.lax.map(in_turn, at)

    def arranged(x: Array) -> Array:
        """(D × chunk × flags, S, R in chunk, F in flags, …) to (D, S, R, F, …)."""
        x = x.reshape(depths.size, chunks.shape[0], flags.shape[0], *x.shape[1:])
        x = jnp.moveaxis(x, (3, 1, 4, 2, 5), (1, 2, 3, 4, 5))
        return x.reshape(*x.shape[:2], rates.size, reuse.size, *x.shape[6:])

    return {name: arranged(x) for name, x in out.items()}


def _side_by_side(
    problem, heldout, initial: Initial, rates, reuse, width, depth, bound, shape: Shape
) -> dict[str, Array]:
    """Networks of one depth, mapped over seed, rate and flag; leading axes (S, R, F, K). Loops visit `bound`
    layers."""
    kinds = 2 if shape.independent else 1
    places = jnp.arange(shape.grid + 1) * (depth // shape.grid)
    seeds = initial.U.shape[0]
    drawn = initial.hidden[: kinds * shape.layers].reshape(kinds, shape.layers, *initial.hidden.shape[1:])
    own = None if kinds == 1 or shape.form == "factored" else drawn[1] - drawn[0]
    back = None
    if shape.form == "factored":
        order = tuple(0 if flag == "reused" else 1 for flag in shape.flags)
        back = drawn if order == tuple(range(kinds)) else jnp.stack([drawn[i] for i in order])

    def one(U, V, drawn, back, gap, rate, reuse):
        learning = problem.at_rate(rate)
        hidden = at_start(shape.form, drawn, back, gap, reuse, problem.samples, width)
        sizes = Sizes.of(width, depth, problem.dtype, room=shape.size, bound=bound)
        observe, memory = observer(learning, heldout, width, shape)
        options = {
            "heldout": None if heldout is None else heldout.inputs,
            "probe": shape.probe,
            "skip_last": True,
        }
        return train(learning, Ends(U, V), hidden, sizes, observe, memory, places=places, **options)[0]

    def of_one_flag(U, V, drawn, back, gap, rate, reuse):
        """Unbatched: networks that reuse their weights then read no second matrix."""
        return jax.tree.map(lambda x: x[None], one(U, V, drawn, back, gap, rate, reuse[0]))

    both = shape.form == "factored"
    over_flags = jax.vmap(one, (None, None, None, 0, None, None, 0)) if both else of_one_flag
    over_rates = jax.vmap(over_flags, (None, None, None, None, None, 0, None))
    if seeds > 1:
        axes = 0, 0, 2, None if back is None else 2, None if own is None else 1, None, None
        return jax.vmap(over_rates, axes)(initial.U, initial.V, drawn, back, own, rates, reuse)
    first = lambda x, axis: None if x is None else jnp.squeeze(x, axis)
    found = over_rates(
        initial.U[0], initial.V[0], first(drawn, 2), first(back, 2), first(own, 1), rates, reuse
    )
    return jax.tree.map(lambda x: x[None], found)
