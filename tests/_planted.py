"""Results trees by law, in the form of a run's: laws are functions of (n, L), with noise as seeds and shared
paths make it.

Every seed has a factor of its own, shared by all points of a quantity (lognormal, or χ²₁ as a single output's
error has it), and every point a small Gaussian one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

FLAGS = ("reused", "independent")
Law = Callable[[np.ndarray, np.ndarray], np.ndarray]

TRAJECTORY = ("backward_weights", "learning_rate", "width", "depth", "seed", "step")
COMPARED = ("backward_weights", "limit_backward_weights", *TRAJECTORY[1:])


def coupling_of_theory(n, L):
    """What reuse adds at initialization."""
    return 0.3 / n


@dataclass
class World:
    """Laws of every quantity. error(network, limit, n, L) and bias likewise; M is the limit's number of
    steps, or None.
    """

    effect: Law = lambda n, L: 0.4 / L
    layer: Law = lambda n, L: 0.4 / L**2 + 0.02 / (n * L)
    start: Law = coupling_of_theory
    error: Callable = lambda network, limit, n, L: 0.5 / L + 0.3 / n
    reference: Law | None = lambda n, L: 0.5 / L + 0.3 / n
    bias: Callable | None = lambda network, limit, n, L: 0.2 / L + 0.3 / n
    w2: Callable | None = lambda network, limit, n, L: 0.1 / L**2
    initial: Law | None = lambda n, L: 0.2 / L + 0.3 / n
    gain: Mapping[str, float] | None = field(default_factory=lambda: {"reused": 0.5, "independent": 0.5})
    predicted: Mapping[str, float] = field(default_factory=lambda: {"reused": 0.5, "independent": 0.5})
    eigenvalue: float = 1e-2
    signal: float = 1.0
    widths: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (8, 16, 32, 64)
    seeds: int = 30
    steps: int = 3
    rates: tuple[float, ...] = (0.5,)
    noise: str = "gaussian"
    common: float = 0.2
    own: float = 0.02
    seed: int = 0
    M: int | None = None
    attrs: Mapping[str, object] | None = None

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        n, L = np.meshgrid(np.array(self.widths, float), np.array(self.depths, float), indexing="ij")
        self.n, self.L = n, L
        self.sizes = {
            "backward_weights": 2,
            "limit_backward_weights": 2,
            "learning_rate": len(self.rates),
            "width": len(self.widths),
            "depth": len(self.depths),
            "seed": self.seeds,
            "step": self.steps,
        }
        self.coords = {
            "backward_weights": list(FLAGS),
            "limit_backward_weights": list(FLAGS),
            "learning_rate": list(self.rates),
            "width": list(self.widths),
            "depth": list(self.depths),
            "seed": list(range(self.seeds)),
            "step": list(range(self.steps)),
            "quantity": ["h", "b", "f"],
            "direction": ["forward", "backward"],
            "kind": ["feature", "gradient"],
            "scope": ["step", "joint"],
        }

    def factors(self) -> np.ndarray:
        """(seeds,) of mean 1."""
        if self.noise == "chi2":
            return self.rng.normal(size=self.seeds) ** 2
        return np.exp(self.common * self.rng.normal(size=self.seeds) - self.common**2 / 2)

    def draw(self, law: Law | float) -> np.ndarray:
        """(width, depth, seed) of one quantity."""
        mean = law(self.n, self.L) if callable(law) else law
        mean = np.broadcast_to(np.asarray(mean, float), self.n.shape)
        return (
            mean[..., None]
            * self.factors()
            * (1 + self.own * self.rng.normal(size=(*self.n.shape, self.seeds)))
        )

    def cell(self, first: Law | float, later: Law | float) -> np.ndarray:
        """(learning_rate, width, depth, seed, step): one law at step 0, the other afterwards, on the same
        noise.
        """
        start, end = self.draw(first), self.draw(later)
        steps = np.stack([start] + [end] * (self.steps - 1), -1)
        return np.broadcast_to(steps, (len(self.rates), *steps.shape)).copy()

    def array(self, values: np.ndarray, *dims: str) -> xr.DataArray:
        return xr.DataArray(
            values, {dim: self.coords[dim] for dim in dims if dim in self.coords}, dims, attrs={"units": "1"}
        )

    def compared(self, law: Callable, first: Callable, labels: str) -> xr.DataArray:
        """Over both flags and a quantity."""
        values = np.stack(
            [
                np.stack(
                    [
                        np.stack(
                            [
                                self.cell(
                                    lambda n, L, a=a, c=c: first(a, c, n, L),
                                    lambda n, L, a=a, c=c: law(a, c, n, L),
                                )
                                for _ in labels
                            ],
                            -1,
                        )
                        for c in FLAGS
                    ]
                )
                for a in FLAGS
            ]
        )
        coords = {dim: self.coords[dim] for dim in COMPARED} | {"quantity": list(labels)}
        return xr.DataArray(values, coords, (*COMPARED, "quantity"), attrs={"units": "1"})

    def biases(self, *extra: int) -> np.ndarray:
        """(both flags, learning_rate, width, depth, seed, step, …): a mean by law along a fixed pattern,
        noise around it.
        """
        pattern = np.ones(extra)
        shape = (len(self.rates), *self.n.shape, self.seeds, self.steps, *extra)
        out = np.zeros((2, 2, *shape))
        lift = (None,) * (2 + len(extra))
        for i, a in enumerate(FLAGS):
            for j, c in enumerate(FLAGS):
                mean = np.broadcast_to(self.bias(a, c, self.n, self.L), self.n.shape)[(..., *lift)]
                shared = self.rng.normal(size=(self.seeds, 1, *extra))
                own = self.rng.normal(size=shape[1:])
                width = self.n[(..., *lift)] ** -0.5
                out[i, j] = mean * pattern + 0.3 * width * (shared + 0.1 * own)
        return out

    def initial_biases(self) -> np.ndarray:
        """(flag, learning_rate, width, depth, seed, 2, 2): the same at every learning rate."""
        mean = np.broadcast_to(self.initial(self.n, self.L), self.n.shape)[..., None, None, None]
        shared, own = (
            self.rng.normal(size=size) for size in ((self.seeds, 2, 2), (*self.n.shape, self.seeds, 2, 2))
        )
        one = mean + 0.3 * self.n[..., None, None, None] ** -0.5 * (shared + 0.1 * own)
        return np.broadcast_to(one, (2, len(self.rates), *one.shape)).copy()

    def finite(self) -> xr.Dataset:
        shift = np.stack([self.cell(0.0, self.signal) for _ in FLAGS])
        out = np.zeros((*shift.shape, 2, 1))
        out[:, ..., 1:, :, :] = np.sqrt(shift[..., 1:])[..., None, None]
        return xr.Dataset(
            {
                "output": self.array(out, *TRAJECTORY, "sample", "component"),
                "feature_shift_ms": self.array(shift[..., None] * np.linspace(0.5, 1, 3), *TRAJECTORY, "t"),
                "gradient_shift_ms": self.array(shift[..., None] * np.linspace(1, 0.5, 3), *TRAJECTORY, "t"),
            }
        )

    def tree(self) -> xr.DataTree:
        cell = TRAJECTORY[1:]
        groups: dict[str, xr.Dataset] = {"/finite": self.finite()}
        compare = {"limit_error_ms": self.compared(self.error, lambda a, c, n, L: 0.2 / L + 0.3 / n, "hbf")}
        if self.reference is not None:
            again = lambda a, c, n, L: self.reference(n, L)
            compare["reference_error_ms"] = self.compared(again, again, "hbf")
        groups["/compare"] = xr.Dataset(compare)
        stack = lambda first, later, count: np.stack([self.cell(first, later) for _ in range(count)], -1)
        effect = stack(self.start, self.effect, 3)
        effect[..., 0, 0] = effect[..., 0, 2] = 0.0  # before the first backward pass nothing is coupled but b
        groups["/coupling"] = xr.Dataset(
            {
                "coupling_effect_ms": self.array(effect, *cell, "quantity"),
                "coupling_layer_ms": self.array(
                    stack(lambda n, L: self.start(n, L) / L, self.layer, 2), *cell, "direction"
                ),
                "coupling_displacement_ms": self.array(stack(self.start, self.effect, 2), *cell, "direction"),
            }
        )
        t = np.arange(5) / 4
        smallest = np.stack([self.cell(self.eigenvalue, self.eigenvalue) for _ in range(8)]).reshape(
            2, 2, 2, *[self.sizes[d] for d in cell]
        )
        smallest = smallest[..., None] * np.where((t == 0) | (t == 1), 0.0, 1 + t)
        dims = ("kind", "scope", *TRAJECTORY, "t")
        groups["/spectrum"] = xr.Dataset(
            {
                "min_eigenvalue": self.array(smallest, *dims),
                "max_eigenvalue": self.array(np.ones_like(smallest), *dims),
            }
        ).assign_coords(t=t)
        if self.bias is not None:
            groups["/law"] = xr.Dataset(
                {
                    "output_bias": self.array(self.biases(2, 1), *COMPARED, "sample", "component"),
                    "feature_kernel_bias": self.array(self.biases(2, 2), *COMPARED, "sample", "sample2"),
                    "gradient_kernel_bias": self.array(self.biases(2, 2), *COMPARED, "sample", "sample2"),
                }
            )
        if self.w2 is not None:
            null = self.compared(lambda a, c, n, L: 0.1 / n, lambda a, c, n, L: 0.1 / n, "hb")
            excess = self.compared(self.w2, lambda a, c, n, L: 0 * n, "hb")
            noisy = null * (1 + 0.1 * self.rng.normal(size=null.shape))
            law = groups.setdefault("/law", xr.Dataset())
            law = law.drop_vars("quantity", errors="ignore")
            groups["/law"] = law.assign(marginal_w2=excess + noisy, marginal_w2_null=null)
        if self.gain is not None:
            shape = (*self.n.shape, self.seeds)
            noise = 0.05 * self.rng.normal(size=(2, *shape)) * self.n[..., None] ** -0.5
            expand = lambda values: (
                np.array([values[flag] for flag in FLAGS])[:, None, None, None] * np.ones(shape)
            )
            dims = ("backward_weights", "width", "depth", "seed")
            groups["/response"] = xr.Dataset(
                {
                    "first_step_gain": self.array(expand(self.gain) * (1 + noise), *dims),
                    "first_step_gain_predicted": self.array(expand(self.predicted), *dims),
                }
            )
        if self.initial is not None:
            law = groups.setdefault("/law", xr.Dataset())
            dims = ("backward_weights", *cell[:-1], "sample", "sample2")
            for name in ("initial_feature_kernel_bias", "initial_gradient_kernel_bias"):
                law[name] = self.array(self.initial_biases(), *dims)
        dims = ("backward_weights", *cell[:-1])
        groups["/status"] = xr.Dataset(
            {"cell": self.array(np.ones([self.sizes[dim] for dim in dims], np.int8), *dims)}
        )
        steps = "" if self.M is None else f"limit: {{depth_steps: {self.M}}}\n"
        attrs = (
            {"config": f"precision: float64\nproblem: {{batches: stream}}\n{steps}"}
            if self.attrs is None
            else dict(self.attrs)
        )
        return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **groups})


def planted(**laws) -> xr.DataTree:
    """A results tree of a world: see `World` for what can be planted."""
    return World(**laws).tree()


def keep(tree: xr.DataTree, *groups: str) -> xr.DataTree:
    """Only these groups, with what verdicts on them need."""
    wanted = {"finite", "status", *groups}
    kept = {f"/{name}": node.to_dataset() for name, node in tree.children.items() if name in wanted}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=tree.attrs), **kept})
