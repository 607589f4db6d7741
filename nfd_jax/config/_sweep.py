"""A whole sweep as one object: defaults that depend on other keys are resolved, and every rule has been
checked.
"""

import hashlib
import json
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from nfd_jax import names
from nfd_jax.config import _rules, _yaml
from nfd_jax.config._errors import Problems, closest, explain, hint, show
from nfd_jax.config._measures import applicable, measures
from nfd_jax.config._read import read
from nfd_jax.config._sections import (
    FiniteConfig,
    HistoryConfig,
    LimitConfig,
    ProblemConfig,
    Section,
    VerdictsConfig,
    as_list,
    distinct,
    integer,
    options,
    without_nulls,
)
from nfd_jax.config._tree import assign, dotted, flat, names_first, without
from nfd_jax.data import Data, data_of, reads_folder

RESERVED = frozenset(name.lower() for name in names.RESULT_FILES)  # each variant has a folder beside them
LIMIT_PARTICLES = 1024  # of a limit on its own, where no width says how many

_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"
_NAME_RULE = (
    "1 to 64 of the characters A-Z a-z 0-9 . _ - without a leading dot (in quotes if it reads as a number)"
)
_VARIANTS_RULE = "one to 100 names (as for name), each with a section of dotted keys and their values"
_EXTENDABLE = {"name", "variants", "seeds", "finite.widths", "finite.depths"}  # these name or extend a store
_LATER = {"verdicts.margin", "limit.max_seconds"}  # how results are read, and how long to go on for them


def _measure(name: Any) -> Any:
    if name not in measures():
        text = f"got {show(name)}{hint(closest(name, list(measures())))}, allowed: different ones of "
        text += ", ".join(measures())
        raise PydanticCustomError("in_words", "{text}", {"text": text})
    return name


def _overrides(value: Any) -> Any:
    """Variants with every override under its dotted key."""
    if not isinstance(value, dict):
        return value
    plain = {name: {} if changes is None else changes for name, changes in value.items()}
    return {
        name: dict(flat(changes)) if isinstance(changes, dict) else changes for name, changes in plain.items()
    }


def _name_taken(variant: str, variants: list[str]) -> str | None:
    """What else has the name of a variant, on a file system to which cases of letters are the same."""
    if variant.lower() in RESERVED:
        taken = ", ".join(names.RESULT_FILES)
        return f"the name of a result, allowed: any but {taken} (in small letters or capitals)"
    first = next(other for other in variants if other.lower() == variant.lower())
    if first != variant:
        return f"differs from {first} in the case of letters alone, allowed: names that differ in more"
    return None


class SweepConfig(Section):
    """A whole sweep. Construction checks all but the data files; it raises pydantic's ValidationError, a
    ValueError.

    `measure` is resolved: where none is named, what applies. `variants` maps names to dotted keys and the
    values they take in place of the config's own; `expand` gives each as a config.
    """

    name: str = Field(strict=True, pattern=_NAME, description=_NAME_RULE)
    seed: int = integer(0, 0, 2**32 - 1)
    seeds: int = integer(8, 1, 10**5)
    precision: names.PrecisionName = options("float32", names.PrecisionName)
    problem: ProblemConfig = ProblemConfig()
    finite: FiniteConfig | None = None
    limit: LimitConfig | None = None
    history: HistoryConfig = HistoryConfig()
    verdicts: VerdictsConfig = VerdictsConfig()
    measure: Annotated[
        tuple[Annotated[str, PlainValidator(_measure)], ...],
        BeforeValidator(as_list),
        AfterValidator(distinct),
    ] = Field(default=(), description=f"one, or a list of different ones, of {', '.join(names.MEASURES)}")
    variants: (
        Annotated[
            dict[Annotated[str, Field(pattern=_NAME)], dict[str, Any]],
            Field(min_length=1, max_length=100),
            BeforeValidator(_overrides),
        ]
        | None
    ) = Field(default=None, description=_VARIANTS_RULE)

    @model_validator(mode="before")
    @classmethod
    def _absent_if_null(cls, data: Any) -> Any:
        return without_nulls(data, ("problem", "history", "verdicts", "measure"))

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> "SweepConfig":
        """Resolves defaults that depend on other keys (past `frozen`, so that they stay unset); checks the
        rules.
        """
        if self.limit and "particles" not in self.limit.model_fields_set:
            estimated = self.limit.tolerance is not None
            if estimated or not self.finite:
                limit = self.limit.model_copy()
                object.__setattr__(limit, "particles", None if estimated else LIMIT_PARTICLES)
                object.__setattr__(self, "limit", limit)
        if "measure" not in self.model_fields_set:
            object.__setattr__(self, "measure", applicable(self))
        skip = (info.context or {}).get("skip", frozenset())
        problems = _rules.broken_rules(self, skip)
        for variant, changes in (self.variants or {}).items():
            if found := _name_taken(variant, list(self.variants or ())):
                problems.append((f"variants.{variant}", found))
            fixed = [key for key in changes if key.partition(".")[0] in ("name", "variants")]
            found = [(key, "cannot vary, allowed: any key but name and variants") for key in fixed]
            found += validate(self._varied(variant), skip - changes.keys())[1] if not fixed else []
            problems += [
                (f"variants.{variant}.{key}", text) for key, text in found if (key, text) not in problems
            ]
        if problems:
            text = "; ".join(f"{key}: {message}" for key, message in problems)
            raise PydanticCustomError("inconsistent", "{text}", {"text": text, "problems": problems})
        return self

    @property
    def directions(self) -> int:
        """How many directions a basis may have to hold, and so how many coordinates it needs at least."""
        samples = self.problem.steps * self.problem.batch_size * (2 if self.problem.asks_first else 1)
        return samples if self.history.directions is None else self.history.directions

    @property
    def directions_rule(self) -> str:
        """The keys that `directions` follows from."""
        if self.history.directions is not None:
            return "history.directions"
        return "2*steps*batch_size (centered)" if self.problem.asks_first else "steps*batch_size"

    @property
    def needs_matrices(self) -> bool:
        """Whether the optimizer's updates can only be followed where matrices are held: in dense networks."""
        return not self.problem.optimizer.linear

    def _varied(self, variant: str) -> dict[str, Any]:
        """What a variant's file would say; defaults stay unset, to be resolved anew."""
        tree = self.model_dump(exclude_unset=True, exclude={"variants"})
        for key, value in names_first((self.variants or {})[variant].items()):
            assign(tree, key, value)
        return tree

    def load_data(self, repetition: int = 0) -> Data:
        """The data that one repetition learns from, kept for the next who asks; raises DataError."""
        return data_of(self.problem, self.seed, repetition)

    def expand(self) -> "dict[str, SweepConfig]":
        """{"": self} without variants, otherwise each variant's name with its full config, which has none."""
        if self.variants is None:
            return {"": self}
        return {variant: SweepConfig.model_validate(self._varied(variant)) for variant in self.variants}

    def to_yaml(self) -> str:
        """Every key with its value; reading it gives the same config. A `measure` nobody named is a
        comment.
        """
        tree = self.model_dump(mode="json")
        named = "measure" in self.model_fields_set
        resolved = "" if named else f"# measure: [{', '.join(tree.pop('measure'))}]  (what applies)\n"
        return (
            _yaml.dump({key: value for key, value in tree.items() if key != "variants" or value}) + resolved
        )

    @classmethod
    def from_yaml(cls, text: str) -> "SweepConfig":
        """Reads what `to_yaml` wrote, without a look at data files. Raises ConfigError."""
        return read(text.encode(), "config", (), None, validate)

    def digest(self) -> str:
        """sha256 of everything that affects a cell's results; further seeds, widths and depths leave it as it
        is.
        """
        return hashlib.sha256(json.dumps(self._relevant(), sort_keys=True).encode()).hexdigest()

    def difference(self, other: "SweepConfig") -> list[str]:
        """One line for each key of the digest in which `other` (now) differs from this (stored)."""
        lines = []
        stored, now = self._relevant(), other._relevant()
        if stored.keys() != now.keys():
            lines.append(
                f"variants: stored {show(list(self.variants or ()))}, now {show(list(other.variants or ()))}"
            )
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
        if not reads_folder(self.problem.dataset):
            idle.add("problem.data_dir")
        if self.history.directions is None:
            idle.add("history.tolerance")
        if self.limit is not None and not self.limit.kernels:
            idle.add("limit.kernels")
        tree = flat(self.model_dump(mode="json"))
        return {key: value for key, value in tree if key not in _EXTENDABLE | _LATER | idle}


def validate(tree: dict[str, Any], skip: frozenset[str] = frozenset()) -> tuple[SweepConfig | None, Problems]:
    """The config, or all that is wrong with it: values first, then, with those left out, the rules that still
    apply.
    """
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
        problems += validate({"name": "unnamed"} | without(tree, wrong), frozenset(doubtful))[1]
    return None, problems
