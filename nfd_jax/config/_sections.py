"""The sections of a config: their keys, defaults and what each value by itself may be.

All are frozen and hashable, so that they can key caches of what is worked out from them.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    field_serializer,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from nfd_jax import names
from nfd_jax.config._errors import closest, hint, show
from nfd_jax.config._tree import is_path
from nfd_jax.data import DATASETS, class_names

_LARGEST = 10**6


def integer(default: Any, low: int, high: int) -> Any:
    return Field(
        default=default, strict=True, ge=low, le=high, description=f"an integer from {low} to {high}"
    )


def optional_integer(low: int, high: int) -> Any:
    rule = f"null, or an integer from {low} to {high}"
    return Field(default=None, strict=True, ge=low, le=high, description=rule)


def number(default: float | None, rule: str, **bounds: Any) -> Any:
    return Field(default=default, strict=True, allow_inf_nan=False, description=rule, **bounds)


def options(default: Any, union: Any, template: str = "{}") -> Any:
    return Field(default=default, description=template.format(", ".join(get_args(union))))


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError("repeated values")
    return values


def as_list(value: Any) -> Any:
    """A single value stands for a list of one."""
    return value if isinstance(value, list | tuple) else (value,)


def _integers(default: tuple[int, ...], high: int) -> Any:
    rule = f"an integer from 1 to {high}, or a nonempty list of different ones, 1000 at most"
    return Field(default=default, min_length=1, max_length=1000, description=rule)


def _weights() -> Any:
    rule = f"one of {', '.join(names.BACKWARD_WEIGHTS)}, or a list of one or both"
    return Field(default=names.BACKWARD_WEIGHTS, min_length=1, description=rule)


def _dataset(value: Any) -> str:
    if not is_path(value) or not (value in DATASETS or value.endswith(".npz")):
        raise ValueError("no such data set")
    return value


def _folder(value: Any) -> str:
    if not is_path(value):
        raise ValueError("no path")
    return value


def _particles(value: Any) -> str | int | None:
    if value is None or value == "matched" or (type(value) is int and 1 <= value <= 10**8):
        return value
    raise ValueError("no number of particles")


def _class_numbers(value: Any, info: ValidationInfo) -> Any:
    """Names of classes as their numbers, for a data set whose classes have names."""
    dataset = info.data.get("dataset")
    if (
        not isinstance(value, list | tuple)
        or not any(isinstance(item, str) for item in value)
        or dataset is None
    ):
        return value
    known = class_names(dataset)
    number = {name: index for index, name in enumerate(known)}
    allowed = (
        f"numbers, or names among {', '.join(known)}" if known else f"numbers, for {dataset} names no classes"
    )
    numbers = []
    for item in value:
        plain = re.sub(r"[^a-z0-9]+", "_", item.lower()) if isinstance(item, str) else item
        if isinstance(plain, str) and plain not in number:
            meant = hint(closest(plain, list(known)))
            text = f"got {show(item)}{meant}, allowed: {allowed}"
            raise PydanticCustomError("in_words", "{text}", {"text": text})
        numbers.append(number[plain] if isinstance(plain, str) else plain)
    return numbers


Width = Annotated[int, Field(strict=True, ge=1, le=10**7)]
Depth = Annotated[int, Field(strict=True, ge=1, le=10**5)]
Class = Annotated[int, Field(strict=True, ge=0, le=10**6)]
Rate = Annotated[float, Field(strict=True, ge=0, le=_LARGEST, allow_inf_nan=False)]
Weights = Annotated[tuple[names.BackwardWeights, ...], BeforeValidator(as_list), AfterValidator(distinct)]
_SHARE = "a number from 0, below 1"
_RATES = f"a number from 0 to {_LARGEST}, or a list of different ones"
_POSITIVE = f"a number above 0, at most {_LARGEST}"
_SOME_CLASSES = "null, or a list of 2 or more integers or names of classes, all different, 0 to 1000000"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Named(Section):
    """A section whose `name` decides which of its keys mean anything: the others are neither written nor
    read.
    """

    def idle(self) -> tuple[str, ...]:
        """Keys that do not belong to `name`."""
        return ()

    @model_serializer(mode="wrap")
    def _without_idle(self, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {key: value for key, value in write(self).items() if key not in self.idle()}


class OptimizerConfig(_Named):
    """How gradients become updates. sgd: momentum, nesterov, weight_decay; adam, adamw: b1, b2, eps,
    weight_decay.
    """

    name: names.OptimizerName = options("sgd", names.OptimizerName)
    momentum: float = number(0.0, _SHARE, ge=0, lt=1)
    nesterov: bool = Field(default=False, strict=True, description="true, false")
    b1: float = number(0.9, _SHARE, ge=0, lt=1)
    b2: float = number(0.999, _SHARE, ge=0, lt=1)
    eps: float = number(1e-8, "a number above 0, at most 1", gt=0, le=1)
    weight_decay: float = number(0.0, f"a number from 0 to {_LARGEST}", ge=0, le=_LARGEST)

    @property
    def linear(self) -> bool:
        """Whether updates are linear in the gradients, as networks without matrices and limits need it."""
        return self.name in names.LINEAR_OPTIMIZERS

    def idle(self) -> tuple[str, ...]:
        return ("b1", "b2", "eps") if self.name == "sgd" else ("momentum", "nesterov")


class ScheduleConfig(_Named):
    """Factor of the learning rate over the run's steps.

    Up to 1 over `warmup_steps`, from 1/(warmup_steps + 1) on; then constant, or down to `end_factor` at the
    last step.
    """

    name: names.ScheduleName = options("constant", names.ScheduleName)
    warmup_steps: int = integer(0, 0, 10**5)
    end_factor: float = number(0.0, "a number from 0 to 1", ge=0, le=1)

    def idle(self) -> tuple[str, ...]:
        return ("end_factor",) if self.name == "constant" else ()


class ProblemConfig(Section):
    """Data, loss, network and SGD; keys and defaults as in the README's example."""

    dataset: Annotated[str, PlainValidator(_dataset)] = Field(
        default="digits", description=f"{', '.join(DATASETS)} or a path that ends in .npz"
    )
    data_dir: Annotated[str, PlainValidator(_folder)] | None = Field(
        default=None, description="a folder, or null"
    )
    input_dim: int = integer(32, 1, 10**6)
    classes: Annotated[
        Annotated[tuple[Class, ...], AfterValidator(distinct)] | None, BeforeValidator(_class_numbers)
    ] = Field(default=(0, 1), min_length=2, max_length=1000, description=_SOME_CLASSES)
    steps: int = integer(4, 1, 10**5)
    batch_size: int = integer(4, 1, 10**5)
    batches: names.BatchesName = options("fixed", names.BatchesName)
    pool: int | None = optional_integer(1, 10**7)
    data_seed: names.DataSeed = options("fixed", names.DataSeed)
    loss: names.LossName = options("squared", names.LossName)
    activation: names.ActivationName = options("tanh", names.ActivationName)
    horizon: float = number(1.0, _POSITIVE, gt=0, le=_LARGEST)
    parametrization: names.ParametrizationName = options("depth_mup", names.ParametrizationName)
    train: names.TrainedLayers = options("all", names.TrainedLayers)
    learning_rate: Annotated[tuple[Rate, ...], BeforeValidator(as_list), AfterValidator(distinct)] = Field(
        default=(0.5,), min_length=1, max_length=1000, description=_RATES
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    richness: float = number(1.0, _POSITIVE, gt=0, le=_LARGEST)
    centered: bool = Field(default=False, strict=True, description="true, false")

    @model_validator(mode="before")
    @classmethod
    def _absent_if_null(cls, data: Any) -> Any:
        return without_nulls(data, ("optimizer", "schedule"))

    @property
    def learning_rates(self) -> tuple[float, ...]:
        return self.learning_rate

    @property
    def asks_first(self) -> bool:
        """Whether all samples meet the initial weights before training: centered outputs of batches that
        differ."""
        return self.centered and self.batches != "fixed" and self.steps > 1

    @field_serializer("learning_rate")
    def _scalar_if_single(self, rates: tuple[float, ...]) -> float | list[float]:
        return rates[0] if len(rates) == 1 else list(rates)


class FiniteConfig(Section):
    """The grid of finite networks."""

    simulator: names.SimulatorChoice = options("auto", names.SimulatorChoice)
    backward_weights: Weights = _weights()
    widths: Annotated[tuple[Width, ...], BeforeValidator(as_list), AfterValidator(distinct)] = _integers(
        (256, 1024), 10**7
    )
    depths: Annotated[tuple[Depth, ...], BeforeValidator(as_list), AfterValidator(distinct)] = _integers(
        (8, 16, 32), 10**5
    )


class LimitConfig(Section):
    """The limit: on the networks' noise (matched) or on its own, or its averages estimated to a tolerance,
    among them, where asked for, its `kernels`."""

    backward_weights: Weights = _weights()
    particles: Annotated[Literal["matched"] | int | None, PlainValidator(_particles)] = Field(
        default="matched", description="matched, or an integer from 1 to 100000000; null with a tolerance"
    )
    reference_particles: int | None = optional_integer(1, 10**8)
    depth_steps: int = integer(512, 1, 10**6)
    tolerance: float | None = number(None, f"null, or {_POSITIVE}", gt=0, le=_LARGEST)
    max_seconds: float | None = number(
        None, "null, or a number of seconds from 1 to 10000000", ge=1, le=10**7
    )
    kernels: bool = Field(default=False, strict=True, description="true, false")

    @property
    def alone(self) -> int | None:
        """Particles of a limit on its own, 0 where it is estimated to a tolerance; None where it is
        matched.
        """
        return None if self.particles == "matched" else int(self.particles or 0)


class HistoryConfig(Section):
    """How much of the past matrix-free networks and limits remember: `directions` a family, null for all
    (exact).
    """

    directions: int | None = optional_integer(1, 10**7)
    tolerance: float = number(0.05, _SHARE, ge=0, lt=1)


class VerdictsConfig(Section):
    """How verdicts judge: `margin` is the share of what learning moves below which a constant counts as
    none.
    """

    margin: float = number(0.0025, "a number above 0, below 1", gt=0, lt=1)


def without_nulls(data: Any, keys: tuple[str, ...]) -> Any:
    """The section without those of `keys` that are null, which then take their defaults."""
    if not isinstance(data, dict):
        return data
    return {key: value for key, value in data.items() if value is not None or key not in keys}
