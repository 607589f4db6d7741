"""The config of a sweep: what a YAML file may say, its defaults, and every reason to refuse it, found at once.

The only reader of YAML; imports nothing numerical. The text is checked in `_yaml`, each value by its field here, what
values imply for one another in `_rules`, and the data files, for `load_config` only, in `data.check_data`.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    field_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from nfd_jax.config import _rules, _yaml
from nfd_jax.config._errors import ConfigError, Problems, explain, in_order, locate, show
from nfd_jax.config._tree import assign, dotted, flat, is_path, make_absolute, without

__all__ = ["ACTIVATIONS", "ConfigError", "FiniteConfig", "LimitConfig", "ProblemConfig", "SweepConfig", "load_config"]

Activation = Literal["tanh", "relu", "erf", "gelu", "linear", "abs", "sin", "softplus", "sigmoid"]
BackwardWeights = Literal["reused", "independent"]
Measure = Literal["limit_error", "coupling", "spectrum", "kernels"]
ACTIVATIONS: tuple[str, ...] = get_args(Activation)
FROM_FOLDER = ("cifar10", "fashion_mnist")
DATASETS = ("digits", *FROM_FOLDER, "gaussian")
EMBEDDED = 256  # samples that any two classes of digits have to spare, so that nobody waits for a look at them
RESERVED = ("figures", "results.zarr", "config.yaml", "report.html", "log.jsonl")  # each variant has a folder beside
LIMIT_PARTICLES = 1024  # of a limit on its own, where no width says how many

_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"
_NAME_RULE = "1 to 64 of the characters A-Z a-z 0-9 . _ - without a leading dot (in quotes if it reads as a number)"
_EXTENDABLE = {"name", "variants", "seeds", "finite.widths", "finite.depths"}  # these name or extend a store


def _integer(default: int, low: int, high: int) -> Any:
    return Field(default=default, strict=True, ge=low, le=high, description=f"an integer from {low} to {high}")


def _integers(default: tuple[int, ...], high: int) -> Any:
    rule = f"a nonempty list of different integers from 1 to {high}, 1000 at most"
    return Field(default=default, min_length=1, max_length=1000, description=rule)


def _options(default: Any, union: Any, template: str = "{}") -> Any:
    return Field(default=default, description=template.format(", ".join(get_args(union))))


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError("repeated values")
    return values


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


def _dataset(value: Any) -> str:
    if not is_path(value) or not (value in DATASETS or value.endswith(".npz")):
        raise ValueError("no such data set")
    return value


def _folder(value: Any) -> str:
    if not is_path(value):
        raise ValueError("no path")
    return value


def _particles(value: Any) -> str | int:
    if value == "matched" or (type(value) is int and 1 <= value <= 10**8):
        return value
    raise ValueError("no number of particles")


Width = Annotated[int, Field(strict=True, ge=1, le=10**7)]
Depth = Annotated[int, Field(strict=True, ge=1, le=10**5)]
Class = Annotated[int, Field(strict=True, ge=0, le=10**6)]
Rate = Annotated[float, Field(strict=True, ge=0, le=10**6, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProblemConfig(_Section):
    """Data, loss, network and SGD; keys and defaults as in the README's example."""

    dataset: Annotated[str, PlainValidator(_dataset)] = Field(
        default="digits", description=f"{', '.join(DATASETS)} or a path that ends in .npz"
    )
    data_dir: Annotated[str, PlainValidator(_folder)] | None = Field(default=None, description="a folder, or null")
    input_dim: int = _integer(32, 1, 10**6)
    classes: Annotated[tuple[Class, ...], AfterValidator(_distinct)] | None = Field(
        default=(0, 1),
        min_length=2,
        max_length=1000,
        description="null, or a list of 2 or more integers, all different, 0 to 1000000",
    )
    steps: int = _integer(4, 1, 10**5)
    batch_size: int = _integer(4, 1, 10**5)
    batches: Literal["fixed", "stream"] = Field(default="fixed", description="fixed, stream")
    loss: Literal["squared", "cross_entropy"] = Field(default="squared", description="squared, cross_entropy")
    activation: Activation = _options("tanh", Activation)
    horizon: float = Field(default=1.0, strict=True, gt=0, le=10**6, allow_inf_nan=False, description="a number above 0, at most 1000000")
    parametrization: Literal["depth_mup", "mup", "vanilla"] = Field(default="depth_mup", description="depth_mup, mup, vanilla")
    train: Literal["all", "hidden"] = Field(default="all", description="all, hidden")
    learning_rate: Annotated[tuple[Rate, ...], BeforeValidator(_as_list), AfterValidator(_distinct)] = Field(
        default=(0.5,),
        min_length=1,
        max_length=1000,
        description="a number from 0 to 1000000, or a list of different ones",
    )

    @property
    def learning_rates(self) -> tuple[float, ...]:
        return self.learning_rate

    @field_serializer("learning_rate")
    def _scalar_if_single(self, rates: tuple[float, ...]) -> float | list[float]:
        return rates[0] if len(rates) == 1 else list(rates)


class FiniteConfig(_Section):
    """The grid of finite networks."""

    simulator: Literal["auto", "dense", "matrix_free"] = Field(default="auto", description="auto, dense, matrix_free")
    backward_weights: Annotated[tuple[BackwardWeights, ...], AfterValidator(_distinct)] = Field(
        default=("reused", "independent"), min_length=1, description="a list of one or both of reused, independent"
    )
    widths: Annotated[tuple[Width, ...], AfterValidator(_distinct)] = _integers((256, 1024), 10**7)
    depths: Annotated[tuple[Depth, ...], AfterValidator(_distinct)] = _integers((8, 16, 32), 10**5)


class LimitConfig(_Section):
    """The limit, on the networks' noise (matched) or on its own."""

    backward_weights: Annotated[tuple[BackwardWeights, ...], AfterValidator(_distinct)] = Field(
        default=("reused", "independent"), min_length=1, description="a list of one or both of reused, independent"
    )
    particles: Annotated[Literal["matched"] | int, PlainValidator(_particles)] = Field(
        default="matched", description="matched, or an integer from 1 to 100000000"
    )
    depth_steps: int = _integer(512, 1, 10**6)


def _overrides(value: Any) -> Any:
    """Variants with every override under its dotted key."""
    if not isinstance(value, dict):
        return value
    plain = {name: {} if changes is None else changes for name, changes in value.items()}
    return {name: dict(flat(changes)) if isinstance(changes, dict) else changes for name, changes in plain.items()}


class SweepConfig(_Section):
    """A whole sweep. Construction checks all but the data files; it raises pydantic's ValidationError, a ValueError.

    `measure` is resolved: where none is named, what applies. `variants` maps names to dotted keys and the values they
    take in place of the config's own; `expand` gives each as a config.
    """

    name: str = Field(strict=True, pattern=_NAME, description=_NAME_RULE)
    seed: int = _integer(0, 0, 2**32 - 1)
    seeds: int = _integer(8, 1, 10**5)
    precision: Literal["float32", "float64"] = Field(default="float32", description="float32, float64")
    problem: ProblemConfig = ProblemConfig()
    finite: FiniteConfig | None = None
    limit: LimitConfig | None = None
    measure: Annotated[tuple[Measure, ...], AfterValidator(_distinct)] = _options((), Measure, "a list of different ones of {}")
    variants: (
        Annotated[
            dict[Annotated[str, Field(pattern=_NAME)], dict[str, Any]],
            Field(min_length=1, max_length=100),
            BeforeValidator(_overrides),
        ]
        | None
    ) = Field(default=None, description="one to 100 names (as for name), each with a section of dotted keys and their values")

    @model_validator(mode="before")
    @classmethod
    def _absent_if_null(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value is not None or key not in ("problem", "measure")}

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> "SweepConfig":
        """Resolves defaults that depend on other keys (past `frozen`, so that they stay unset); checks the rules."""
        if self.limit and not self.finite and "particles" not in self.limit.model_fields_set:
            limit = self.limit.model_copy()
            object.__setattr__(limit, "particles", LIMIT_PARTICLES)
            object.__setattr__(self, "limit", limit)
        if "measure" not in self.model_fields_set:
            object.__setattr__(self, "measure", _rules.applicable(self))
        skip = (info.context or {}).get("skip", frozenset())
        problems = _rules.broken_rules(self, skip)
        for variant, changes in (self.variants or {}).items():
            if variant in RESERVED:
                allowed = f"any but {', '.join(RESERVED)}"
                problems.append((f"variants.{variant}", f"the name of a result, allowed: {allowed}"))
            fixed = [key for key in changes if key.partition(".")[0] in ("name", "variants")]
            found = [(key, "cannot vary, allowed: any key but name and variants") for key in fixed]
            found += _validate(self._varied(variant), skip - changes.keys())[1] if not fixed else []
            problems += [(f"variants.{variant}.{key}", text) for key, text in found if (key, text) not in problems]
        if problems:
            text = "; ".join(f"{key}: {message}" for key, message in problems)
            raise PydanticCustomError("inconsistent", "{text}", {"text": text, "problems": problems})
        return self

    def _varied(self, variant: str) -> dict[str, Any]:
        """What a variant's file would say; defaults stay unset, to be resolved anew."""
        tree = self.model_dump(exclude_unset=True, exclude={"variants"})
        for key, value in (self.variants or {})[variant].items():
            assign(tree, key, value)
        return tree

    def expand(self) -> "dict[str, SweepConfig]":
        """{"": self} without variants, otherwise each variant's name with its full config, which has none."""
        if self.variants is None:
            return {"": self}
        return {variant: SweepConfig.model_validate(self._varied(variant)) for variant in self.variants}

    def to_yaml(self) -> str:
        """Every key with its value; reading it gives the same config. A `measure` nobody named is a comment."""
        tree = self.model_dump(mode="json")
        named = "measure" in self.model_fields_set
        resolved = "" if named else f"# measure: [{', '.join(tree.pop('measure'))}]  (what applies)\n"
        return _yaml.dump({key: value for key, value in tree.items() if key != "variants" or value}) + resolved

    @classmethod
    def from_yaml(cls, text: str) -> "SweepConfig":
        """Reads what `to_yaml` wrote, without a look at data files. Raises ConfigError."""
        return _read(text.encode(), "config", (), None)

    def digest(self) -> str:
        """sha256 of everything that affects a cell's results; further seeds, widths and depths leave it as it is."""
        return hashlib.sha256(json.dumps(self._relevant(), sort_keys=True).encode()).hexdigest()

    def difference(self, other: "SweepConfig") -> list[str]:
        """One line for each key of the digest in which `other` (now) differs from this (stored)."""
        lines = []
        stored, now = self._relevant(), other._relevant()
        if stored.keys() != now.keys():
            lines.append(f"variants: stored {show(list(self.variants or ()))}, now {show(list(other.variants or ()))}")
        for variant in (variant for variant in stored if variant in now):
            old, new = stored[variant], now[variant]
            for key in (key for key in old | new if key not in old or key not in new or old[key] != new[key]):
                was, is_ = (show(side[key]) if key in side else "absent" for side in (old, new))
                lines.append(f"{f'variants.{variant}.{key}' if variant else key}: stored {was}, now {is_}")
        return lines

    def _relevant(self) -> dict[str, dict[str, Any]]:
        """Of each variant, the dotted keys that its results depend on."""
        return {variant: config._own() for variant, config in self.expand().items()}

    def _own(self) -> dict[str, Any]:
        idle = {"problem.input_dim"} if self.problem.dataset != "gaussian" else {"problem.classes"}
        if self.problem.dataset not in FROM_FOLDER:
            idle.add("problem.data_dir")
        return {key: value for key, value in flat(self.model_dump(mode="json")) if key not in _EXTENDABLE | idle}


def load_config(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> SweepConfig:
    """The config in a YAML file, with overrides "a.b=v" (v in YAML) applied; looks at data files, but loads none.

    Relative paths in it are resolved against the file's folder. Raises ConfigError with every problem there is.
    """
    file = Path(path)
    try:
        if not file.is_file():  # neither a folder, nor a pipe to wait at
            wrong = "not a file" if file.exists() else "no such file"
            raise ConfigError([f"{file}: {wrong}, allowed: the path of a YAML file"])
        with file.open("rb") as stream:
            data = stream.read(_yaml.MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{file}: {error.strerror}, allowed: the path of a YAML file"]) from None
    return _read(data, str(file), overrides, file.parent)


def _read(data: bytes, file: str, overrides: Iterable[str], folder: Path | None) -> SweepConfig:
    """The config; with a folder to start from, paths are resolved and data files looked at. Raises ConfigError."""
    try:
        tree, lines, duplicates = _yaml.parse(data)
    except _yaml.YamlError as error:
        raise ConfigError([f"{file}:{error.line}: {error}"]) from None
    if not isinstance(tree, dict):
        got = "empty" if tree is None else f"only {show(tree)}"
        raise ConfigError([f"{file}:1: the file is {got}, allowed: name, a finite or a limit section, and more keys"])
    places = {key: f"{file}:{line}" for key, line in lines.items()}
    problems = [f"{file}:{line}: {key}: {message}" for key, line, message in duplicates]
    problems += [problem for override in overrides for problem in _set(tree, places, override)]
    if folder is not None:
        make_absolute(tree, folder)
    config, found = _validate(tree)
    if folder is not None:
        found += _data_problems(tree, config)
    problems += [locate(key, message, places) for key, message in found]
    if config is None or problems:
        raise ConfigError(in_order(problems, file))
    return config


def _validate(tree: dict[str, Any], skip: frozenset[str] = frozenset()) -> tuple[SweepConfig | None, Problems]:
    """The config, or all that is wrong with it: values first, then, with those left out, the rules that still apply."""
    try:
        return SweepConfig.model_validate(tree, context={"skip": skip}), []
    except ValidationError as error:
        errors = error.errors(include_url=False)
    problems, wrong, doubtful = [], [], set(skip)
    for error in errors:
        if error["type"] == "inconsistent":
            problems += error.get("ctx", {})["problems"]
            continue
        if any(error["loc"] == other["loc"][: len(error["loc"])] for other in errors if other is not error):
            continue  # a list is too short only for its wrong elements
        message, meant = explain(SweepConfig, error)
        wrong.append(error["loc"])
        problems.append((dotted(error["loc"]), message))
        doubtful |= {dotted(loc) for loc in (error["loc"], meant) if loc}
    if wrong:
        problems += _validate({"name": "unnamed"} | without(tree, wrong), frozenset(doubtful))[1]
    return None, problems


def _data_problems(tree: dict[str, Any], config: SweepConfig | None) -> Iterator[tuple[str, str]]:
    from nfd_jax.data import DataError, check_data

    try:
        own = ProblemConfig.model_validate(tree.get("problem") or {})
    except ValidationError:
        return
    checked = set()
    for variant, varied in config.expand().items() if config else [("", None)]:
        problem = varied.problem if varied else own
        needs = (problem.dataset, problem.data_dir, problem.classes, problem.batch_size, problem.loss)
        if needs in checked or (problem.dataset == "digits" and problem.batch_size <= EMBEDDED):
            continue
        checked.add(needs)
        try:
            check_data(problem)
        except (DataError, OSError) as error:
            key = "data_dir" if problem.data_dir and problem.dataset in FROM_FOLDER else "dataset"
            yield f"variants.{variant}.problem.{key}" if variant else f"problem.{key}", str(error)


def _set(tree: dict[str, Any], places: dict[str, str], override: str) -> list[str]:
    """Applies "a.b=v" to the tree and its places; the problems with its text."""
    place = f"--set {override if len(override) <= 200 else override[:197] + '...'}"
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        return [f"{place}: not an override, allowed: key.path=value"]
    try:
        value, _, duplicates = _yaml.parse(text.encode(errors="surrogateescape"))
    except _yaml.YamlError as error:
        return [f"{place}: {key}: {error}"]
    for leaf, new in flat(value, key):
        for stale in [old for old in places if f"{old}.".startswith(f"{leaf}.")]:
            del places[stale]
        places |= dict.fromkeys([leaf, *assign(tree, leaf, new)], place)
    return [f"{place}: {key}.{inner}: {message}" for inner, _, message in duplicates]
