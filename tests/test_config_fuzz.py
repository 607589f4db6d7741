"""Thousands of broken and borderline configs: each is refused in single lines or loads, and none hangs or
crashes.

NFD_EXAMPLES=10000 runs the long version.
"""

import os
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nfd_jax import names
from nfd_jax.config import ConfigError, SweepConfig, load_config

EXAMPLES = int(os.environ.get("NFD_EXAMPLES", "300"))
MEASURES = list(names.MEASURES)
EXAMPLE = SweepConfig.model_validate({"name": "x", "finite": {}, "limit": {}, "measure": MEASURES}).to_yaml()
LINES = [line.partition(":")[0].strip() for line in EXAMPLE.splitlines()]

SECTIONS = ("problem", "finite", "limit", "history", "verdicts", "variants")

WORDS = st.sampled_from(
    [
        *(
            "null",
            "true",
            "false",
            "~",
            "",
            "''",
            "'8'",
            "0",
            "1",
            "-1",
            "4",
            "8",
            "16",
            "17",
            "64",
            "1e-3",
            "1e999",
        ),
        *(
            ".nan",
            ".inf",
            "-.inf",
            "0x10",
            "1_0",
            "1:30",
            "2024-01-01",
            "9" * 30,
            "9" * 5000,
            "é" * 70,
            "\u2028",
            "| ",
        ),
        *(
            "matched",
            "reused",
            "dense",
            "matrix_free",
            "relu",
            "tnh",
            "gaussian",
            "digits",
            "cifar10",
            "x.npz",
            "../..",
        ),
        *(
            "[]",
            "{}",
            "[8]",
            "[8, 16, 32]",
            "[8, 8]",
            "[1, [2]]",
            "{a: 1}",
            "[[[[]]]]",
            "&",
            "*",
            "*a",
            "&a",
            "!x",
            "!!int",
        ),
        *("<<", '"\\0"', '"\\ud800"'),
    ]
)
KEYS = st.sampled_from(
    [
        *LINES,
        *(f"{s}.{k}" for s in SECTIONS for k in LINES),
        *(f"problem.optimizer.{k}" for k in ("name", "momentum", "nesterov", "b1", "weight_decay")),
        *(f"problem.schedule.{k}" for k in ("name", "warmup_steps", "end_factor")),
        "variants",
        "variants.a.seed",
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["matched", "reused"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
EDITS = st.tuples(
    st.sampled_from(["drop", "twice", "value", "insert", "indent", "swap", "cut"]), st.integers(0, 999), WORDS
)
BORDERLINE = st.fixed_dictionaries(
    {},
    optional={
        "seeds": st.sampled_from([1, 100_000, 100_001]),
        "precision": st.sampled_from(["float32", "float64"]),
        "problem.dataset": st.sampled_from(["digits", "gaussian", "none.npz"]),
        "problem.classes": st.sampled_from([None, [0, 1], [3, 1, 2], [9, 10]]),
        "problem.steps": st.sampled_from([1, 4, 64, 100_000]),
        "problem.batch_size": st.sampled_from([1, 4, 256, 300, 2000, 100_000]),
        "problem.loss": st.sampled_from(["squared", "cross_entropy"]),
        "problem.parametrization": st.sampled_from(["depth_mup", "mup", "vanilla"]),
        "problem.learning_rate": st.sampled_from([0, 1e-300, -0.0, [0.1, 1], 10**6]),
        "finite": st.none(),
        "finite.simulator": st.sampled_from(["auto", "dense", "matrix_free"]),
        "finite.backward_weights": st.sampled_from([["reused"], ["independent", "reused"]]),
        "finite.widths": st.sampled_from([[1], [16], [17], [256, 300], [10**7]]),
        "finite.depths": st.sampled_from([[1], [1, 2, 4], [32, 8, 16], [7, 512], [100_000]]),
        "limit": st.none(),
        "limit.particles": st.sampled_from(["matched", None, 1, 16, 17, 10**8]),
        "limit.depth_steps": st.sampled_from([1, 4, 512, 10**6]),
        "measure": st.none() | st.lists(st.sampled_from(MEASURES), unique=True),
        "variants": st.sampled_from(
            [
                {"a": {"limit": None}},
                {"a": {"finite.widths": [8]}, "b": {"problem.steps": 2}},
                {"a": {"problem.optimizer.name": "adam", "limit": None, "finite.simulator": "dense"}},
            ]
        ),
        "problem.batches": st.sampled_from(["fixed", "stream", "epochs"]),
        "problem.pool": st.sampled_from([None, 1, 4, 64, 100_000]),
        "problem.data_seed": st.sampled_from(["fixed", "per_seed"]),
        "problem.optimizer": st.sampled_from(
            [
                None,
                {},
                {"momentum": 0.9, "nesterov": True},
                {"nesterov": True},
                {"name": "sgd", "weight_decay": 0.1},
                {"name": "adam", "momentum": 0.5},
                {"name": "adamw", "b1": 0.5, "eps": 1e-6},
            ]
        ),
        "problem.schedule": st.sampled_from(
            [
                {"name": "cosine", "warmup_steps": 3},
                {"name": "linear", "end_factor": 0.1},
                {"name": "constant", "end_factor": 1.0},
                {"warmup_steps": 64},
            ]
        ),
        "problem.richness": st.sampled_from([0.01, 1, 0, -1.0]),
        "problem.centered": st.booleans(),
        "history.directions": st.sampled_from([None, 1, 4, 16, 300]),
        "history.tolerance": st.sampled_from([0, 0.05, 1]),
        "verdicts.margin": st.sampled_from([0.0025, 0, 0.5]),
        "limit.reference_particles": st.sampled_from([None, 1024, 4096, 10**8]),
        "limit.tolerance": st.sampled_from([None, 1e-3, 1e-7, 0]),
        "limit.max_seconds": st.sampled_from([None, 60]),
        "limit.kernels": st.booleans(),
    },
)  # fmt: skip


@pytest.fixture
def file(tmp_path):
    return tmp_path / "sweep.yaml"


SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=timedelta(seconds=20),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)


def check(file: Path, data: bytes, *overrides: str) -> SweepConfig | None:
    """A ConfigError of single lines, or a config that survives a round trip."""
    try:
        file.write_bytes(data)
        config = load_config(file, overrides)
    except ConfigError as error:
        assert error.problems and all(problem.isprintable() for problem in error.problems)
        assert all(problem.startswith((str(file), "--set ")) for problem in error.problems)
        return None
    assert SweepConfig.from_yaml(config.to_yaml()) == config
    assert all(variant.expand() for variant in config.expand().values())
    return config


def edited(text: str, edits: list[tuple[str, int, str]]) -> str:
    for kind, where, word in edits:
        lines = text.split("\n")
        at = where % len(lines)
        key = lines[at].partition(":")[0]
        if kind == "insert":
            at = where % (len(text) + 1)
            text = text[:at] + word + text[at:]
            continue
        if kind == "cut":
            text = text[: max(40, where)]
            continue
        changed = {
            "drop": [],
            "twice": [lines[at]] * 2,
            "value": [f"{key}: {word}"],
            "indent": [f"  {lines[at]}"],
        }
        changed["swap"] = [lines[at - 1], lines[at]]
        lines[at : at + 1] = changed[kind]
        text = "\n".join(lines)
    return text


@SETTINGS
@given(st.lists(EDITS, min_size=1, max_size=4))
def test_edited_text_loads_or_is_refused(file, edits):
    check(file, edited(EXAMPLE, edits).encode())


@SETTINGS
@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=4))
def test_edited_trees_load_or_are_refused(file, changes):
    tree = yaml.safe_load(EXAMPLE)
    for key, value in changes.items():
        *sections, last = key.split(".", 1)
        place = tree.setdefault(sections[0], {}) if sections else tree
        if isinstance(place, dict):
            place[last] = value
    check(file, yaml.safe_dump(tree, allow_unicode=True).encode(errors="surrogatepass"))


@SETTINGS
@given(KEYS, WORDS | st.text(max_size=20))
def test_overrides_load_or_are_refused(file, key, text):
    check(file, EXAMPLE.encode(), f"{key}={text}")
    check(file, EXAMPLE.encode(), text)


@SETTINGS
@given(st.integers(0, len(EXAMPLE)), st.binary(max_size=64))
def test_bytes_load_or_are_refused(file, at, junk):
    data = EXAMPLE.encode()
    check(file, data[:at] + junk + data[at:])


@SETTINGS
@given(BORDERLINE)
def test_borderline_values_load_or_are_refused(file, values):
    tree: dict = {"name": "x", "finite": {}, "limit": {}}
    for key, value in values.items():
        *sections, last = key.split(".")
        place = tree.setdefault(sections[0], {}) if sections else tree
        if place is not None:
            place[last] = value
    config = check(file, yaml.safe_dump(tree).encode())
    if config and config.finite and config.limit:
        assert all(config.limit.depth_steps % depth == 0 for depth in config.finite.depths)
    if config and config.finite and config.finite.simulator == "matrix_free":
        assert min(config.finite.widths) >= config.directions
    if config and config.problem.optimizer.name != "sgd":
        assert config.limit is None and config.finite and config.finite.simulator != "matrix_free"
    if config and config.problem.batches == "epochs":
        assert config.problem.pool and config.problem.pool >= config.problem.batch_size
    if config and config.limit and config.limit.reference_particles:
        assert config.limit.reference_particles >= 4 * max(config.finite.widths)
