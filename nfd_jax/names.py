"""The vocabulary: every word that a config, an argument or a stored array may use. Imports nothing of the
package.

Types are `Literal`s, for signatures; the tuples beside them hold the same words in the same order. Data sets
are named where they are defined, in `nfd_jax.data`, so that a new one touches one file.
"""

from enum import IntEnum
from typing import Literal, get_args

ParametrizationName = Literal["depth_mup", "mup", "vanilla"]
BackwardWeights = Literal["reused", "independent"]
Simulator = Literal["dense", "matrix_free"]
SimulatorChoice = Literal["auto", "dense", "matrix_free"]
TrainedLayers = Literal["all", "hidden"]
LossName = Literal["squared", "cross_entropy"]
ActivationName = Literal["tanh", "relu", "erf", "gelu", "linear", "abs", "sin", "softplus", "sigmoid"]
RecordName = Literal["features", "gradients", "coupling", "weights"]
MeasureName = Literal["limit_error", "coupling", "spectrum", "kernels", "law", "response"]
PrecisionName = Literal["float32", "float64"]
MatmulPrecision = Literal["highest", "tensorfloat32", "bfloat16"]
BatchesName = Literal["fixed", "stream", "epochs"]
DataSeed = Literal["fixed", "per_seed"]
OptimizerName = Literal["sgd", "adam", "adamw"]
ScheduleName = Literal["constant", "linear", "cosine"]

PARAMETRIZATIONS: tuple[ParametrizationName, ...] = get_args(ParametrizationName)
BACKWARD_WEIGHTS: tuple[BackwardWeights, ...] = get_args(BackwardWeights)
SIMULATORS: tuple[Simulator, ...] = get_args(Simulator)
TRAINED_LAYERS: tuple[TrainedLayers, ...] = get_args(TrainedLayers)
LOSSES: tuple[LossName, ...] = get_args(LossName)
ACTIVATIONS: tuple[ActivationName, ...] = get_args(ActivationName)
RECORDS: tuple[RecordName, ...] = get_args(RecordName)
MEASURES: tuple[MeasureName, ...] = get_args(MeasureName)
MATMUL_PRECISIONS: tuple[MatmulPrecision, ...] = get_args(MatmulPrecision)
BATCHES: tuple[BatchesName, ...] = get_args(BatchesName)

LINEAR_OPTIMIZERS: tuple[OptimizerName, ...] = ("sgd",)
"""Their updates are linear in the gradients: matrix-free networks and limits can follow them; others need
matrices.
"""


LEAST_TOLERANCE = {"float32": 1e-5, "float64": 1e-13}
"""Of an estimated limit, by precision: about a hundred roundings."""

KERNEL_NAMES = ("feature_kernel", "gradient_kernel")
"""⟨φ(h) φ(h')⟩ and ⟨b b'⟩, averages over coordinates."""

RESULT_FILES = (
    "results.zarr",
    "batches",
    "store.json",
    "notes.json",
    "config.yaml",
    "variants.json",
    "lock",
    "next",
    "next.tmp",
    "discarded",
    "log.jsonl",
    "report.html",
    "figures",
    "comparison",
)
"""Every name that a run or a report, of this version or an earlier one, gives to something that stays in a
results folder. (Names of what is there for a moment start with a dot.) Variants have folders in there, too:
none may be called like one of these.
"""


class CellStatus(IntEnum):
    """`cell` of the group /status."""

    PENDING = 0
    DONE = 1
    DIVERGED = 2
    FAILED = 3


PENDING, DONE, DIVERGED, FAILED = CellStatus


def signed(classes: int, loss: str) -> bool:
    """Whether targets are signs, −1 for the first class and +1 for the second, in place of one-hot rows."""
    return classes == 2 and loss == "squared"
