"""Configs: the README's example loads, everything else is refused in words, with its place, and at once."""

import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nfd_jax import names
from nfd_jax.config import ConfigError, SweepConfig, load_config
from nfd_jax.store import Batch, Store, _records

EXAMPLE = """\
name: depth-rates        # [A-Za-z0-9._-]{1,64}, no leading dot
seed: 0                  # master seed: same file, same numbers
seeds: 8                 # independent repetitions
precision: float32       # float32 | float64
problem:
  dataset: digits        # digits | cifar10 | fashion_mnist | gaussian | a .npz path
  data_dir: null
  input_dim: 32          # gaussian only
  classes: [0, 1]        # null → all, one-hot
  steps: 4
  batch_size: 4
  batches: fixed         # fixed | stream | epochs
  pool: null             # epochs only
  data_seed: fixed       # fixed | per_seed
  loss: squared          # squared | cross_entropy
  activation: tanh
  horizon: 1.0
  parametrization: depth_mup
  train: all             # all | hidden
  learning_rate: 0.5     # a number or a list
  optimizer: {name: sgd}
  schedule: {name: constant}
  richness: 1.0
  centered: false
finite:
  simulator: auto        # auto | dense | matrix_free
  backward_weights: [reused, independent]
  widths: [256, 1024]
  depths: [8, 16, 32]
limit:
  backward_weights: [reused, independent]
  particles: matched
  reference_particles: null
  depth_steps: 512
history: {directions: null, tolerance: 0.05}
verdicts: {margin: 0.0025}
measure: [limit_error, coupling, spectrum, kernels, law, response]
"""
LINES = {line.split(":")[0].strip(): number for number, line in enumerate(EXAMPLE.splitlines(), 1)}
FINITE = "name: x\nfinite: {}\n"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "sweep.yaml"


def load(file: Path, text: str | bytes, *overrides: str) -> SweepConfig:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(file, overrides)


def refused(file: Path, text: str | bytes, *overrides: str) -> list[str]:
    """Problems, with the file's name in place of its path."""
    with pytest.raises(ConfigError) as error:
        load(file, text, *overrides)
    return [problem.replace(str(file), "FILE") for problem in error.value.problems]


def test_example_loads_with_every_value_and_equals_the_defaults(file):
    config = load(file, EXAMPLE)
    assert config.problem.learning_rates == (0.5,)
    assert (config.problem.classes, config.problem.data_dir, config.problem.horizon) == ((0, 1), None, 1.0)
    assert config.finite is not None and config.finite.depths == (8, 16, 32)
    assert config.limit is not None and config.limit.particles == "matched"
    assert config == load(file, "name: depth-rates\nfinite: {}\nlimit: {}\n")


def test_measure_defaults_to_what_applies(file):
    everything = ("limit_error", "coupling", "spectrum", "kernels", "law", "response")
    alone = ("coupling", "spectrum", "kernels", "response")
    uncoupled = ("spectrum", "kernels", "response")
    assert load(file, FINITE).measure == alone
    assert load(file, FINITE, "problem.optimizer.name=adam").measure == uncoupled
    assert load(file, FINITE + "limit: {}").measure == everything
    assert load(file, FINITE + "limit: {particles: 64}").measure == alone
    assert load(file, FINITE, "finite.widths=[15, 256]").measure == uncoupled
    assert load(file, FINITE, "finite.widths=[16, 256]").measure == alone, (
        "16 directions fit into 16 coordinates"
    )
    assert load(file, FINITE, "finite.simulator=dense").measure == uncoupled
    assert load(file, FINITE, "finite.backward_weights=[reused]").measure == uncoupled
    assert load(file, FINITE, "problem.parametrization=mup").measure == ("spectrum", "kernels")
    assert load(file, "name: x\nlimit: {particles: 64}").measure == ("kernels",)
    assert load(file, FINITE, "measure=[]").measure == ()
    assert load(file, FINITE + "limit: {}", "finite.depths=[8]").measure == everything, (
        "a slope is only owed when named"
    )


def test_a_limit_to_a_tolerance_has_as_many_particles_as_that_takes(file):
    for text in ("name: x\n", FINITE):
        config = load(file, text + "limit: {tolerance: 0.01}")
        assert config.limit.particles is None and config.limit.alone == 0
        assert SweepConfig.from_yaml(config.to_yaml()).limit.particles is None
        assert "limit_error" not in config.measure and "law" not in config.measure


def test_a_limit_on_its_own_has_a_number_of_particles(file):
    config = load(file, "name: x\nlimit: {}\n")
    assert config.limit is not None and config.limit.particles == 1024
    assert config.finite is None


def test_numbers_in_every_notation(file):
    config = load(
        file, FINITE, "problem.learning_rate=[1e-3, 0, .5, 1E1]", "problem.horizon=2", "seeds=1_000"
    )
    assert config.problem.learning_rates == (1e-3, 0.0, 0.5, 10.0)
    assert (config.problem.horizon, config.seeds) == (2.0, 1000)


REFUSED = [
    ("name=.x", "name", "without a leading dot"),
    ("name=a/../b", "name", "characters"),
    ("name=" + "x" * 65, "name", "1 to 64"),
    ("name=2024", "name", "in quotes"),
    ("seed=-1", "seed", "from 0 to 4294967295"),
    ("seed=4294967296", "seed", "from 0 to 4294967295"),
    ("seed=true", "seed", "got true"),
    ("seed=" + "9" * 5000, "seed", "from 0"),
    ("seeds=0", "seeds", "from 1"),
    ("seeds=8.0", "seeds", "got 8.0, allowed: an integer"),
    ("seeds='8'", "seeds", "got '8'"),
    ("precision=float16", "precision", "float32, float64"),
    ("problem=3", "problem", "a section with the keys dataset"),
    ("problem.dataset=digit", "problem.dataset", "did you mean digits?"),
    ("problem.dataset=cifar10", "problem.dataset", "cifar10"),
    ("problem.dataset=nothing_here.npz", "problem.dataset", "nothing_here.npz"),
    ("problem={dataset: cifar10, data_dir: nowhere}", "problem.data_dir", "nowhere"),
    ("problem={dataset: fashion_mnist, data_dir: " + "a" * 300 + "}", "problem.data_dir", "aaa"),
    ('problem.data_dir="a\\0b"', "problem.data_dir", "a folder, or null"),
    ("problem.input_dim=0", "problem.input_dim", "from 1"),
    ("problem.classes=[0]", "problem.classes", "2 or more"),
    ("problem.classes=[0, 0]", "problem.classes", "different"),
    ("problem.classes=[0, 10]", "problem.classes", "0 to 9"),
    ("problem.steps=1.5", "problem.steps", "an integer"),
    ("problem.batch_size=99999", "problem.dataset", "328 training"),
    ("problem.batches=steam", "problem.batches", "did you mean stream?"),
    ("problem.loss=l2", "problem.loss", "squared, cross_entropy"),
    ("problem={loss: cross_entropy, dataset: gaussian}", "problem.loss", "one output"),
    ("problem.activation=rellu", "problem.activation", "did you mean relu?"),
    ("problem.horizon=0", "problem.horizon", "above 0"),
    ("problem.horizon=.inf", "problem.horizon", "got inf"),
    ("problem.horizon=true", "problem.horizon", "got true"),
    ("problem.horizon=1e999", "problem.horizon", "got inf"),
    ("problem.learning_rate=-0.1", "problem.learning_rate", "from 0"),
    ("problem.learning_rate=.nan", "problem.learning_rate", "got nan"),
    ("problem.learning_rate=[]", "problem.learning_rate", "got []"),
    ("problem.learning_rate=[0.1, 0.1]", "problem.learning_rate", "different"),
    ("problem.learning_rate=fast", "problem.learning_rate", "got 'fast'"),
    ("problem.learning_rate={a: 1}", "problem.learning_rate", "a number"),
    ("problem.parametrization=ntk", "problem.parametrization", "depth_mup, mup, vanilla"),
    ("problem.parametrization=mup", "problem.parametrization", "with a limit section"),
    ("problem.train=both", "problem.train", "all, hidden"),
    ("problem.steps.more=3", "problem.steps", "got {'more': 3}"),
    ("finite.simulator=fast", "finite.simulator", "auto, dense, matrix_free"),
    ("finite.backward_weights=[]", "finite.backward_weights", "one or both"),
    ("finite.backward_weights=[reusd]", "finite.backward_weights", "did you mean reused?"),
    ("finite.widths=[]", "finite.widths", "nonempty"),
    ("finite.widths=wide", "finite.widths", "list"),
    ("finite.widths=[256, 256]", "finite.widths", "different"),
    ("finite.widths=[true, 256]", "finite.widths", "got true"),
    ("finite.widths=[100000000000000000000]", "finite.widths", "to 10000000"),
    ("finite.widths=[15, 256]", "finite.widths", "got 15 for a limit with matched particles"),
    (
        "finite={simulator: matrix_free, widths: [15, 256]}",
        "finite.widths",
        "got 15 for a matrix_free network",
    ),
    ("finite={simulator: dense, widths: [10000000]}", "finite.widths", "TiB"),
    ("finite.depths=[0, 8, 32]", "finite.depths", "got 0"),
    ("finite.wdths=[8]", "finite.wdths", "did you mean widths?"),
    ("limit.particles=all", "limit.particles", "matched, or an integer"),
    ("limit.particles=true", "limit.particles", "matched, or an integer"),
    ("limit.particles=null", "limit.particles", "null with limit.tolerance"),
    ("limit.tolerance=0.01", "limit.tolerance", "got 0.01 with limit.particles matched"),
    ("limit={particles: 64, tolerance: 0.01}", "limit.tolerance", "got 0.01 with limit.particles 64"),
    ("limit.particles=15", "limit.particles", "at least steps*batch_size = 16"),
    ("limit={particles: 100000000, depth_steps: 1000000}", "limit.depth_steps", "TiB"),
    ("limit.depth_steps=500", "limit.depth_steps", "a multiple of every depth, the first of which is 32"),
    ("finite=null", "limit.particles", "without a finite section"),
    ("measure=limits", "measure", "different ones of limit_error"),
    ("measure=[coupling, couplings]", "measure", "did you mean coupling?"),
    ("measure=[kernels, kernels]", "measure", "different"),
    ("variants={}", "variants", "one to 100"),
    ("variants.a=3", "variants.a", "got 3"),
    ("variants..a.b=3", "", "key.path=value"),
    ("variants={a/b: {}}", "variants.a/b", "names"),
    ("variants.figures.seed=1", "variants.figures", "the name of a result"),
    ("variants.next.seed=1", "variants.next", "any but results.zarr, batches, store.json"),
    ("variants={LOCK: {seed: 1}}", "variants.LOCK", "the name of a result"),
    ("variants={a: {}, b: {}, A: {}}", "variants.A", "differs from a in the case of letters alone"),
    ("variants.a.name=b", "variants.a.name", "cannot vary"),
    ("variants.a.problem.activation=rellu", "variants.a.problem.activation", "did you mean relu?"),
    ("variants.a.problem.depth=3", "variants.a.problem.depth", "unknown key"),
    ("variants.a.limit.depth_steps=8", "variants.a.limit.depth_steps", "multiple of every depth"),
    ("problem.batches=epochs", "problem.pool", "at least problem.batch_size = 4"),
    ("problem={batches: epochs, pool: 3}", "problem.pool", "got 3"),
    ("problem.pool=8", "problem.pool", "null, or batches: epochs"),
    ("problem={batches: epochs, pool: 99999}", "problem.dataset", "at least pool = 99999"),
    ("problem.data_seed=seeds", "problem.data_seed", "fixed, per_seed"),
    ("problem.optimizer=sgd", "problem.optimizer", "a section with the keys name"),
    ("problem.optimizer.name=adm", "problem.optimizer.name", "did you mean adam?"),
    ("problem.optimizer.momentum=1", "problem.optimizer.momentum", "below 1"),
    ("problem.optimizer.momentum=-0.1", "problem.optimizer.momentum", "from 0"),
    ("problem.optimizer.momentm=0.9", "problem.optimizer.momentm", "did you mean momentum?"),
    ("problem.optimizer.nesterov=1", "problem.optimizer.nesterov", "true, false"),
    ("problem.optimizer.nesterov=true", "problem.optimizer.nesterov", "a momentum above 0"),
    ("problem.optimizer.b1=0.9", "problem.optimizer.b1", "given with sgd, allowed: name, momentum"),
    ("problem.optimizer={name: adam, momentum: 0.9}", "problem.optimizer.momentum", "given with adam"),
    ("problem.optimizer.name=adam", "problem.optimizer.name", "with a limit section"),
    ("problem.optimizer.weight_decay=-1", "problem.optimizer.weight_decay", "from 0"),
    ("problem.schedule.name=step", "problem.schedule.name", "constant, linear, cosine"),
    ("problem.schedule.warmup_steps=5", "problem.schedule.warmup_steps", "0 to 4 with constant"),
    (
        "problem.schedule={name: cosine, warmup_steps: 4}",
        "problem.schedule.warmup_steps",
        "0 to 3 with cosine",
    ),
    ("problem.schedule.end_factor=0.5", "problem.schedule.end_factor", "given with constant"),
    ("problem.schedule={name: linear, end_factor: 2}", "problem.schedule.end_factor", "from 0 to 1"),
    ("problem.schedule={name: linear, steps: 2}", "problem.schedule.steps", "unknown key"),
    ("problem.richness=0", "problem.richness", "above 0"),
    ("problem.centered=yes", "problem.centered", "true, false"),
    ("history.directions=3", "history.directions", "at least problem.batch_size = 4"),
    ("history.directions=300", "finite.widths", "at least history.directions = 300"),
    ("problem={centered: true, batches: stream, batch_size: 40}", "finite.widths",
     "at least 2*steps*batch_size (centered) = 320"),
    ("history.tolerance=1", "history.tolerance", "below 1"),
    ("verdicts.margin=0", "verdicts.margin", "above 0"),
    ("limit.reference_particles=4095", "limit.reference_particles", "at least 4096"),
    ("limit.tolerance=0", "limit.tolerance", "above 0"),
    ("limit.tolerance=1e-9", "limit.tolerance", "at least 1e-05, or precision: float64"),
    ("limit.max_seconds=60", "limit.max_seconds", "with limit.tolerance"),
    ("limit.kernels=true", "limit.kernels", "with limit.tolerance"),
    ("problem.classes=[one, two]", "problem.classes", "digits names no classes"),
    ("problem={dataset: cifar10, classes: [cat, dogg]}", "problem.classes", "did you mean dog?"),
    ("limt.particles=3", "limt", "did you mean limit?"),
    ("depths", "", "key.path=value"),
    ("name=[", "name", "not valid YAML"),
    ("problem={steps: 1, steps: 2}", "problem.steps", "duplicate"),
]


@pytest.mark.parametrize(("override", "key", "words"), REFUSED, ids=[case[0][:40] for case in REFUSED])
def test_refusals_name_the_override_the_key_and_what_is_allowed(file, override, key, words):
    problems = refused(file, EXAMPLE, override)
    place = f"--set {override if len(override) <= 200 else override[:197] + '...'}: {key}"
    own = [problem for problem in problems if problem.startswith(place)]
    own = own or [
        problem for problem in problems if f": {key}: " in problem
    ]  # a rule may blame a line of the file
    assert any(words in problem for problem in own), problems
    assert all("allowed" in problem or "expected" in problem or "needs" in problem or "not valid" in problem
               or "keep one" in problem for problem in own)  # fmt: skip


def test_measures_that_cannot_apply_or_carry_no_slope(file):
    def named(measure: str, *overrides: str) -> str:
        return "\n".join(refused(file, EXAMPLE, f"measure=[{measure}]", *overrides))

    assert "no common noise when particles is 512" in named("limit_error", "limit.particles=512")
    assert "no common noise when the limit has a tolerance" in named(
        "law", "limit={particles: null, tolerance: 0.01}"
    )
    assert "with a limit section" in named("limit_error", "limit=null")
    assert "3 or more finite.depths over a factor of 4" in named("limit_error", "finite.depths=[8, 32]")
    assert "3 or more finite.depths over a factor of 4" in named("coupling", "finite.depths=[8, 12, 16]")
    assert "2 finite.widths" in named("coupling", "finite.widths=[256]")
    assert "both flags" in named("coupling", "finite.backward_weights=[reused]")
    centered = "problem={centered: true, batches: stream}"
    assert "needs innovations, which dense networks" in named("law", centered, "finite.simulator=dense")
    bounded = refused(file, EXAMPLE, centered, "history.directions=16")
    assert "history.directions: got 16 with centered outputs of batches that differ" in "".join(bounded)
    assert "matrix-free" in named("coupling", "finite.simulator=dense")
    assert "impossible at width 15" in named("coupling", "limit=null", "finite.widths=[15, 256]")
    assert "parametrization vanilla" in named("coupling", "limit=null", "problem.parametrization=vanilla")
    assert "with a finite section" in named("spectrum", "finite=null", "limit.particles=512")
    assert load(file, EXAMPLE, "measure=[limit_error]", "finite.widths=[256]").measure == ("limit_error",)


def test_one_value_stands_for_a_list_of_one(file):
    single = ["finite.widths=128", "finite.depths=8", "finite.backward_weights=reused", "measure=law"]
    config = load(file, EXAMPLE, *single)
    assert config.finite is not None and (config.finite.widths, config.finite.depths) == ((128,), (8,))
    assert (config.finite.backward_weights, config.measure) == (("reused",), ("law",))


def test_classes_by_name(tmp_path, file):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 3072), dtype=np.uint8)
    np.savez(tmp_path / "cifar.npz", train_images=images, train_labels=np.arange(40) % 10)
    config = load(
        file, FINITE + "problem: {dataset: cifar10, data_dir: ., batch_size: 2, classes: [Cat, airplane]}\n"
    )
    assert config.problem.classes == (3, 0)
    assert SweepConfig.from_yaml(config.to_yaml()) == config


def test_widths_may_equal_the_directions_and_a_dense_network_may_be_narrower(file):
    assert load(file, EXAMPLE, "finite.widths=[16, 256]").directions == 16
    assert load(file, FINITE, "finite={simulator: dense, widths: [3]}").finite is not None
    bounded = load(file, EXAMPLE, "problem.steps=100", "history.directions=32", "finite.widths=[32, 64]")
    assert (bounded.directions, bounded.history.tolerance) == (32, 0.05)


def test_an_optimizer_of_another_name_starts_from_its_own_defaults(file):
    text = FINITE + "problem: {optimizer: {name: sgd, momentum: 0.9}}\n"
    variant = load(file, text + "variants: {a: {problem.optimizer.name: adam}}\n").expand()["a"]
    assert (variant.problem.optimizer.name, variant.problem.optimizer.b1) == ("adam", 0.9)
    adam = load(file, text, "problem.optimizer={b1: 0.5, name: adam}").problem.optimizer
    assert (adam.name, adam.b1, adam.b2) == ("adam", 0.5, 0.999)
    assert load(file, text, "problem.optimizer.nesterov=true").problem.optimizer.momentum == 0.9
    assert set(adam.model_dump()) == {"name", "b1", "b2", "eps", "weight_decay"}


def test_sections_key_caches(file):
    one, two = load(file, EXAMPLE), load(file, EXAMPLE, "problem.optimizer.momentum=0.9")
    assert len({one.problem, load(file, EXAMPLE).problem, two.problem}) == 2
    assert hash(one.history) == hash(two.history) and hash(one.limit) == hash(two.limit)


def test_neither_section(file):
    assert refused(file, "name: x\n") == [
        "FILE:1: finite: neither finite nor limit is given, allowed: at least one of the two sections"
    ]


def test_all_problems_at_once_in_order_with_their_lines(file):
    text = (
        EXAMPLE.replace("name:", "nmae:", 1)
        .replace("steps: 4", "steps: many", 1)
        .replace("depths: [8, 16, 32]", "depths: [8, 16, 0]")
        .replace("particles: matched", "particles: 5")
        .replace("batch_size: 4", "batch_size: 4\n  batch_size: 8")
    )
    problems = refused(file, text)
    assert [problem.split(": ")[:2] for problem in problems] == [
        ["FILE:1", "name"],
        ["FILE:1", "nmae"],
        [f"FILE:{LINES['steps']}", "problem.steps"],
        [f"FILE:{LINES['batch_size'] + 1}", "problem.batch_size"],
        [f"FILE:{LINES['depths'] + 1}", "finite.depths.2"],
    ]
    assert "did you mean name?" in problems[1]
    assert f"first given on line {LINES['batch_size']}" in problems[3]


def test_rules_are_checked_beside_wrong_values_that_they_do_not_read(file):
    problems = refused(file, EXAMPLE, "seed=x", "limit.depth_steps=500")
    assert [problem.split(": ")[1] for problem in problems] == ["seed", "limit.depth_steps"]
    problems = refused(file, EXAMPLE, "finite.depths=[x]", "limit.depth_steps=500")
    assert [problem.split(": ")[1] for problem in problems] == ["finite.depths"]
    text = EXAMPLE.replace("depths:", "dephts:").replace("512", "500")
    problems = refused(file, text)
    assert [problem.split(": ")[1] for problem in problems] == ["finite.dephts"], (
        "no guess from a default the file meant"
    )


BROKEN = {
    "empty": b"",
    "only a comment": b"# nothing\n",
    "a list": b"- name\n",
    "a scalar": b"name",
    "two documents": b"name: x\n---\nname: y\n",
    "syntax": b"name: x\nfinite: [\n",
    "tab": b"name: x\nfinite:\n\twidths: [8]\n",
    "not UTF-8": b"name: x\nseed: \xff\n",
    "UTF-16": EXAMPLE.encode("utf-16"),
    "NUL": b"name: \x00\n",
    "escape out of range": b'name: "\\UFFFFFFFF"\n',
    "directive out of range": b"%YAML 1." + b"9" * 5000 + b"\n---\nname: x\n",
    "object": b"name: !!python/object/apply:os.system ['exit 1']\n",
    "set": b"finite: !!set {a, b}\n",
    "anchor": b"name: &a x\n",
    "billion laughs": b"a: &a [x, x]\n"
    + b"".join(b"%c: &%c [*%c, *%c]\n" % (c, c, c - 1, c - 1) for c in range(98, 123)),
    "recursive": b"&a [*a]\n",
    "deep": b"[" * 500_000,
    "deep sections": b"{a: " * 100_000,
    "many keys": b"".join(b"k%d: 1\n" % i for i in range(60_000)),
    "many lines": b"#\n" * 2**19,
    "long scalar": b"a\n" * 2**19,
    "long key": b"? " + b"k" * 500_000 + b"\n: 1\n",
    "complex key": b"[a]: b\n",
    "too large": b"#" * (2**20 + 1),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_text_is_one_clear_line_and_quick(file, kind):
    start = time.process_time()
    (problem,) = refused(file, BROKEN[kind])
    assert time.process_time() - start < 10
    assert problem.startswith("FILE:") and len(problem) < 400


def test_lines_of_broken_text(file):
    assert refused(file, BROKEN["not UTF-8"])[0].startswith("FILE:2: byte 0xff is not UTF-8")
    assert refused(file, BROKEN["tab"])[0].startswith("FILE:3: not valid YAML")
    assert "aliases" in refused(file, EXAMPLE + "extra: *name\n")[0]
    assert refused(file, EXAMPLE + "extra: *name\n")[0].startswith(f"FILE:{len(EXAMPLE.splitlines()) + 1}:")


def test_places_that_hold_no_config(tmp_path):
    for path in (
        tmp_path,
        tmp_path / "missing.yaml",
        tmp_path / ("a" * 300),
        Path("/dev/zero"),
        Path("a\0b"),
    ):
        with pytest.raises(ConfigError, match="allowed: the path of a YAML file"):
            load_config(path)


def test_relative_paths_start_at_the_files_folder(file, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    data = file.parent / "data" / "own.npz"
    data.parent.mkdir()
    rng = np.random.default_rng(0)
    np.savez(data, inputs=rng.normal(size=(80, 3)), targets=np.arange(80) % 2)
    text = FINITE + "problem: {dataset: data/own.npz}\nvariants: {a: {problem.dataset: ./data/own.npz}}\n"
    config = load(file, text)
    assert config.problem.dataset == str(data)
    assert config.expand()["a"].problem.dataset == str(data)
    assert SweepConfig.from_yaml(config.to_yaml()) == config


def test_variants_expand_and_resolve_their_own_defaults(file):
    text = EXAMPLE.partition("measure:")[0] + (
        "variants:\n  relu: {problem.activation: relu}\n"
        "  mup:\n    problem: {parametrization: mup}\n    limit: null\n  plain:\n"
    )
    config = load(file, text)
    expanded = config.expand()
    assert list(expanded) == ["relu", "mup", "plain"]
    assert expanded["relu"].problem.activation == "relu" and expanded["relu"].variants is None
    assert expanded["mup"].measure == ("spectrum", "kernels") and expanded["mup"].limit is None
    assert expanded["plain"] == load(file, EXAMPLE.partition("measure:")[0])
    assert expanded["plain"].expand() == {"": expanded["plain"]}
    bad = text.replace("activation: relu", "activation: rellu").replace("    limit: null\n", "")
    problems = refused(file, bad)
    first = len(EXAMPLE.partition("measure:")[0].splitlines()) + 2
    assert problems[0].startswith(f"FILE:{first}: variants.relu.problem.activation: got 'rellu'")
    assert problems[1].startswith(
        f"FILE:{first + 2}: variants.mup.problem.parametrization: got mup with a limit"
    )
    assert len(problems) == 2


@pytest.mark.parametrize("convert", [str.lower, str.upper, str.title])
def test_no_variant_has_the_name_of_something_in_a_results_folder(file, convert):
    """On some file systems Lock is lock."""
    for name in names.RESULT_FILES:
        problems = refused(file, FINITE + f"variants:\n  fine: {{}}\n  {convert(name)}: {{seed: 1}}\n")
        allowed = f"any but {', '.join(names.RESULT_FILES)}"
        assert len(problems) == 1 and problems[0].startswith(f"FILE:5: variants.{convert(name)}: the name of")
        assert allowed in problems[0]
    similar = ("results", "next2", "batch", "locks", "figures.png")
    assert set(load(file, FINITE + f"variants: {{{': {}, '.join(similar)}: {{}}}}\n").expand()) == set(
        similar
    )


def test_what_a_results_folder_holds_is_named(tmp_path):
    """What a store is made of by its own words, and what one has created."""
    own = {getattr(_records, name) for name in ("RESULTS", "BATCHES", "MANIFEST", "CONFIG", "NOTES")}
    own |= {_records.VARIANTS}
    passing = {_records.NEXT, _records.BUILDING, _records.DISCARDED}
    assert all(name.startswith(".") for name in passing), "no variant has such a name"
    config = SweepConfig.model_validate({"name": "x", "problem": {"dataset": "gaussian"}, "limit": {}})
    make_plan = lambda config, covered: [Batch("limit", 1024, (), tuple(range(config.seeds)))]
    with Store.open(tmp_path / "out", config, outputs=1, make_plan=make_plan, attributes={}):
        found = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"results.zarr", "lock"} <= found and own | found <= set(names.RESULT_FILES)


def test_a_problem_of_the_base_is_not_repeated_for_each_variant(file):
    problems = refused(
        file, EXAMPLE + "variants: {a: {problem.horizon: 2}, b: {seed: 1}}\n", "limit.depth_steps=500"
    )
    assert len(problems) == 1


def test_overrides_alone_may_make_a_section(file):
    assert (
        load(file, FINITE, "limit.depth_steps=64").limit
        == load(file, FINITE + "limit: {depth_steps: 64}").limit
    )
    config = load(file, EXAMPLE, "problem={horizon: 2, steps: 2}")
    assert (config.problem.horizon, config.problem.steps, config.problem.batch_size) == (2.0, 2, 4)


@pytest.mark.parametrize(
    "extra", ["", "measure: [kernels]\n", "variants: {a: {seed: 1}, '1e3': {limit: null}}\n"]
)
def test_round_trips(file, extra):
    config = load(file, EXAMPLE.partition("measure:")[0] + extra, "name='089'")
    text = config.to_yaml()
    again = SweepConfig.from_yaml(text)
    assert again == config and again.to_yaml() == text and again.digest() == config.digest()
    assert load(file, text) == config
    assert (
        again.model_fields_set >= {"measure"}
        if "measure" in extra
        else "measure" not in again.model_fields_set
    )
    assert pickle.loads(pickle.dumps(config)) == config
    error = ConfigError(["a", "b\nc"])
    assert pickle.loads(pickle.dumps(error)).problems == error.problems == ("a", "b\\nc")


def test_digest_covers_what_changes_a_cell_and_nothing_else(file):
    config = load(file, EXAMPLE)
    same = ["name=y", "seeds=16", "finite.widths=[256, 1024, 4096]", "finite.depths=[8, 16, 32, 64]"]
    assert load(file, EXAMPLE, *same, "problem.input_dim=7", "problem.data_dir=.").digest() == config.digest()
    assert config.difference(load(file, EXAMPLE, *same)) == []
    read = ["verdicts.margin=0.01", "history.tolerance=0.1"]  # how results are read; what nothing depends on
    assert load(file, EXAMPLE, *read).digest() == config.digest()
    estimated = ["measure=[kernels]", "limit={particles: null, tolerance: 0.01}"]
    coarser = load(file, EXAMPLE, *estimated, "limit.tolerance=0.1")
    longer = load(file, EXAMPLE, *estimated, "limit.max_seconds=9")
    assert longer.digest() == load(file, EXAMPLE, *estimated).digest()
    assert longer.difference(coarser) == ["limit.tolerance: stored 0.01, now 0.1"]
    more = load(file, EXAMPLE, *estimated, "limit.kernels=true")
    assert longer.difference(more) == ["limit.kernels: stored absent, now true"]
    for change in (
        "seed=1", "precision=float64", "problem.classes=[1, 0]", "problem.steps=3", "problem.batches=stream",
        "problem.data_seed=per_seed", "problem.optimizer.momentum=0.9",
        "problem.schedule.warmup_steps=1", "problem.richness=2",
        "problem.centered=true", "limit.reference_particles=4096",
        "problem.activation=relu", "problem.learning_rate=[0.5, 0.1]", "finite.simulator=matrix_free",
        "limit.backward_weights=[reused]", "limit.depth_steps=1024", "measure=[kernels]", "variants.a.seed=1",
    ):  # fmt: skip
        other = load(file, EXAMPLE, change)
        assert other.digest() != config.digest(), change
        assert len(config.difference(other)) == 1, change
    bounded = load(file, EXAMPLE, "history.directions=16")  # and now the tolerance counts, too
    changed = [line.split(":")[0] for line in config.difference(bounded)]
    assert changed == ["history.directions", "history.tolerance"]
    rates = [load(file, EXAMPLE, f"problem.learning_rate=[1, 2, 3, 4, 5, 6, 7, {last}]") for last in (8, 9)]
    assert len(rates[0].difference(rates[1])) == 1
    assert config.difference(load(file, EXAMPLE, "problem.learning_rate=0.25")) == [
        "problem.learning_rate: stored 0.5, now 0.25"
    ]


def test_python_construction_checks_the_same():
    with pytest.raises(ValueError, match="multiple of every depth"):
        SweepConfig.model_validate({"name": "x", "finite": {"depths": [7]}, "limit": {}})
    with pytest.raises(ValueError, match="frozen"):
        SweepConfig.model_validate({"name": "x", "finite": {}}).seed = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_nothing_numerical_is_imported(file):
    file.write_text(EXAMPLE)
    code = (
        "import sys; from nfd_jax.config import load_config; import nfd_jax.cli;"
        "load_config(sys.argv[1]).expand();"
        "heavy = ('jax', 'scipy', 'xarray', 'sklearn', 'matplotlib', 'zarr');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
