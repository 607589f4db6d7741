"""What every row of a tree needs to know, and the fits that several rows share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import xarray as xr

from nfd_jax.config import SweepConfig, lacking
from nfd_jax.verdicts._family import Fits, fit_laws
from nfd_jax.verdicts._laws import Law
from nfd_jax.verdicts._sample import NotMeasured, Sample, labelled, sample, variable
from nfd_jax.verdicts._seeds import LEVEL
from nfd_jax.verdicts._tree import FLOOR, section, settings

T = TypeVar("T")

MEASURE = {
    "coupling": "coupling",
    "compare": "limit_error",
    "law": "law",
    "response": "response",
    "spectrum": "spectrum",
}
"""What to add to `measure` for a group."""


@dataclass
class Context:
    """A results tree with its margin; `reference` is the limit's number of Euler steps, None where
    unknown.
    """

    tree: xr.DataTree
    margin: float
    config: dict = field(default_factory=dict)
    known: dict = field(default_factory=dict)

    @classmethod
    def of(cls, tree: xr.DataTree, margin: float) -> "Context":
        if not isinstance(tree, xr.DataTree):
            raise TypeError(
                f"give an xarray.DataTree, as open_results(path) returns it; received {type(tree).__name__}"
            )
        if not 0 < margin < 1:
            raise ValueError(f"margin is {margin}: give a share of what learning moves, between 0 and 1")
        return cls(tree, margin, settings(tree))

    @property
    def floor(self) -> float:
        return FLOOR.get(self.config.get("precision", "float64"), FLOOR["float64"])

    @property
    def reference(self) -> int | None:
        steps = section(self.config, "limit").get("depth_steps")
        return steps if isinstance(steps, int) and steps > 1 else None

    @property
    def repeated(self) -> bool:
        """Whether every step sees the same batch: joint Gram matrices are then nearly singular by
        construction.
        """
        return section(self.config, "problem").get("batches") == "fixed" if self.config else False

    @property
    def per_seed(self) -> bool:
        return section(self.config, "problem").get("data_seed") == "per_seed"

    @property
    def level(self) -> float:
        """0.05 over the number of looks, the tree's attribute `looks`."""
        try:
            looks = max(1, int(self.tree.attrs.get("looks", 1)))
        except (TypeError, ValueError):
            looks = 1
        return LEVEL / looks

    def law(self, path: str) -> Law:
        """How a variable falls with depth: against a limit of M steps, by the law of coarsening."""
        if path.startswith("compare"):
            return Law(self.reference)
        bias = path.endswith("bias")
        if path.startswith("law/initial"):  # against L = ∞ itself
            return Law(signed=True, squares=True)
        return Law(self.reference, signed=bias, squares=bias) if path.startswith("law") else Law()

    def once(self, key: object, make: Callable[[], T]) -> T:
        """make() the first time, and its result or its NotMeasured again later."""
        if key not in self.known:
            try:
                self.known[key] = make()
            except NotMeasured as lacking:
                self.known[key] = lacking
        found = self.known[key]
        if isinstance(found, NotMeasured):
            raise found
        return found

    def fits(self, key: object, found: Sample, law: Law, **options: bool) -> Fits:
        """The laws fitted to these samples; the key stands for them."""
        return self.once(
            ("fits", key), lambda: fit_laws(found.values, found.widths, found.depths, law, **options)
        )

    def advice(self, measure: str) -> str:
        """How to get a measure that is not there: what to add, and what the config would have to be."""
        add, own = f"add {measure} to measure", "limit.reference_particles"
        if measure == "reference_error":
            add = f"add {own}, at least four times the largest width"
        try:
            needs = lacking(SweepConfig.model_validate(self.config), measure) or ""
        except ValueError:  # a tree without a whole config
            needs = ""
        return f"{add}, which {needs}" if needs and own not in needs else add

    def sample(
        self, path: str, select: dict[str, str], quantity: str, training: bool, less: str = ""
    ) -> Sample:
        """The samples of a variable at these labels, with the signal of h, b or f; `less` is subtracted where
        it is there.
        """

        group = path.split("/")[0]

        def make() -> Sample:
            if path.startswith("law/") and self.per_seed:
                raise NotMeasured("set data_seed: fixed: laws are told from seeds with the same samples")
            add = self.advice("reference_error" if path.endswith("reference_error_ms") else MEASURE[group])
            values = labelled(variable(self.tree, path, add), select, add)
            if less:
                chance = labelled(variable(self.tree, less, add), select, add)
                # A seed that was computed alone has none of its own.
                values = values - chance.fillna(chance.mean("seed"))
            flag = select.get("backward_weights", "reused")
            return sample(
                self.tree, values, training=training, quantity=quantity, flag=flag, known_signals=self.known
            )

        return self.once(("sample", path, tuple(sorted(select.items())), quantity, training), make)
