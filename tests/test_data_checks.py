"""What is checked before a sweep is what would stop it; and data know which samples they come from, also when
files change.
"""

import hashlib
import os
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _datafiles import make_problem, python3_pickle, write_cifar, write_npz
from typer.testing import CliRunner

from nfd_jax.cli import app
from nfd_jax.config import ProblemConfig, load_config
from nfd_jax.data import DataError, check_data, data_of, input_dim, load_problem_data

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((16, 3)), np.arange(16) % 2
REAL = X[:, :2]
LARGE = np.finfo(np.float64).max


def with_row(x: np.ndarray, row: Any, value: Any) -> np.ndarray:
    x = x.copy()
    x[row] = value
    return x


def extremes(dtype: Any) -> np.ndarray:
    info = np.iinfo(dtype)
    return np.where(X > 0, info.max, info.min).astype(dtype)


USABLE: dict[str, dict[str, np.ndarray]] = {
    "plain": dict(inputs=X, targets=Y),
    "real targets": dict(inputs=X, targets=REAL),
    "booleans": dict(inputs=X > 0, targets=Y > 0),
    "float16": dict(inputs=X.astype(np.float16), targets=Y),
    "extended precision": dict(inputs=X.astype(np.longdouble), targets=REAL.astype(np.longdouble)),
    **{f"extremes of {kind}": dict(inputs=extremes(kind), targets=Y) for kind in ("i1", "u1", "i8", "u8")},
    "large but not too large": dict(inputs=1e150 * X, targets=1e29 * REAL),
    "small but not too small": dict(inputs=1e-140 * X, targets=Y),
    "far away, and varying": dict(inputs=1e6 + X, targets=Y),
    "classes of equal samples": dict(inputs=np.stack([Y, Y], axis=1), targets=Y),
    "one feature varies": dict(inputs=X * [0, 0, 1] + 0.1, targets=Y),
    "three samples": dict(inputs=np.eye(3), targets=REAL[:3]),
    "test samples": dict(inputs=X, targets=Y, heldout_inputs=X[:2], heldout_targets=Y[:2]),
    "one odd sample, test samples": dict(
        inputs=with_row(0 * X, 3, 1), targets=Y, heldout_inputs=X[:2], heldout_targets=Y[:2]
    ),
}
UNUSABLE: dict[str, dict[str, np.ndarray]] = {
    "constant": dict(inputs=np.full((16, 3), 0.1), targets=Y),
    "constant integers": dict(inputs=np.full((16, 3), 2**64 - 1, np.uint64), targets=Y),
    "constant up to rounding": dict(inputs=1e15 + (X > 0), targets=Y),
    "a class alone is constant": dict(inputs=np.where(Y[:, None] < 2, 0.1, X), targets=Y),
    "all but one are equal": dict(inputs=with_row(0 * X, 5, 1), targets=Y),
    "all but four are equal": dict(inputs=with_row(0 * X, slice(4), X[:4]), targets=Y),
    "all but one are equal up to rounding": dict(inputs=with_row(1e15 + (X > 0), 5, 0), targets=Y),
    "all but one are too small": dict(inputs=with_row(1e-300 * X, 5, 1), targets=Y),
    "one is far too large": dict(inputs=with_row(X, 5, 1e60), targets=Y),
    "too small": dict(inputs=1e-300 * X, targets=Y),
    "the smallest": dict(inputs=np.where(X > 0, 5e-324, 0), targets=Y),
    "near the largest": dict(inputs=np.where(X > 0, LARGE, -LARGE), targets=Y),
    "constant near the largest": dict(inputs=np.full((16, 3), LARGE), targets=Y),
    "beyond double precision": dict(inputs=X * np.longdouble(10) ** 400, targets=Y),
    "infinite in half precision": dict(inputs=with_row(X, 0, np.inf).astype(np.float16), targets=Y),
    "targets near the largest": dict(inputs=X, targets=np.full((16, 1), LARGE)),
    "targets beyond single precision": dict(inputs=X, targets=1e39 * REAL),
    "targets beyond double precision": dict(inputs=X, targets=REAL * np.longdouble(10) ** 400),
    "labels beyond 2^63": dict(inputs=X, targets=np.where(Y, 2**64 - 1, 0).astype(np.uint64)),
    "one sample": dict(inputs=X[:1], targets=REAL[:1]),
    "two samples": dict(inputs=X[:2], targets=REAL[:2]),
    "three samples, two equal": dict(inputs=np.eye(3)[[0, 0, 1]], targets=REAL[:3]),
    "one sample, and test samples": dict(
        inputs=X[:1], targets=REAL[:1], heldout_inputs=X, heldout_targets=REAL
    ),
    "a test sample is far too large": dict(
        inputs=X, targets=Y, heldout_inputs=with_row(X, 0, 1e60), heldout_targets=Y
    ),
    "test samples of other classes": dict(inputs=X, targets=Y, heldout_inputs=X, heldout_targets=Y + 2),
    "test targets too large": dict(
        inputs=X, targets=REAL, heldout_inputs=X, heldout_targets=with_row(REAL, 0, 1e39)
    ),
}
MODES = [
    dict(batches=batches, pool=2 if batches == "epochs" else None, data_seed=data_seed, loss=loss)
    for batches, data_seed, loss in product(
        ("fixed", "stream", "epochs"), ("fixed", "per_seed"), ("squared", "cross_entropy")
    )
]


def problem_of(path: str, mode: dict[str, Any], rows: int = 2) -> Any:
    return make_problem(path, classes=None, batch_size=min(rows, 2), steps=3, **mode)


def refusal(call: Any) -> str | None:
    try:
        call()
    except DataError as error:
        return str(error)
    return None


def compare(path: str, mode: dict[str, Any], rows: int, draws: int = 12) -> bool:
    """Whether data are refused: by the check if and only if for each draw, in the same words."""
    problem = problem_of(path, mode, rows)
    said = refusal(lambda: check_data(problem))
    for draw in range(draws):
        seed, repetition = (0, draw) if mode["data_seed"] == "per_seed" else (draw, None)
        found: list[Any] = []
        assert refusal(lambda: found.append(load_problem_data(problem, seed, repetition))) == said  # noqa: B023
        for data in found:
            for part in (data.inputs, data.targets, data.heldout_inputs, data.heldout_targets):
                assert np.abs(part).max() <= 1e30, "float32 could not hold it"
    return said is not None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", [*USABLE, *UNUSABLE])
def test_the_check_refuses_exactly_what_loading_would(tmp_path: Path, name: str):
    arrays = (USABLE | UNUSABLE)[name]
    path = write_npz(tmp_path / "a.npz", **arrays)
    for mode in MODES:
        single = arrays["targets"].dtype.kind == "f" and arrays["targets"].shape[1] < 2
        if mode["loss"] == "cross_entropy" and single:
            continue
        assert compare(path, mode, len(arrays["inputs"]) - 2) == (name in UNUSABLE)


def test_the_check_refuses_exactly_what_loading_would_of_drawn_data(tmp_path: Path):
    """Nearly constant data of all sizes: what is drawn could leave nothing that varies, or does."""
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(150):
        count, dimension = int(rng.integers(4, 40)), int(rng.integers(1, 4))
        inputs = np.full((count, dimension), rng.choice([0.0, 0.1, 1e9]))
        odd = rng.permutation(count)[: int(rng.integers(0, count))]
        size = rng.choice([1e-160, 1e-12, 1e-3, 1.0, 1e12, 1e40])
        inputs[odd] += size * rng.standard_normal((len(odd), dimension))
        path = write_npz(tmp_path / "a.npz", inputs=inputs, targets=np.arange(count) % 2)
        refused += compare(path, MODES[int(rng.integers(len(MODES)))], 2, draws=6)
    assert 30 < refused < 120


def test_the_check_refuses_exactly_what_loading_would_of_damaged_files(tmp_path: Path):
    rng = np.random.default_rng(2)
    content = Path(write_npz(tmp_path / "a.npz", inputs=X, targets=Y)).read_bytes()
    refused = 0
    for i in range(150):
        damaged = bytearray(content)
        for _ in range(int(rng.integers(1, 4))):
            damaged[int(rng.integers(len(damaged)))] = int(rng.integers(256))
        (tmp_path / "a.npz").write_bytes(
            damaged[: len(damaged) if i % 3 else int(rng.integers(len(damaged)))]
        )
        refused += compare(str(tmp_path / "a.npz"), MODES[i % len(MODES)], 2, draws=1)
    assert refused > 75


CONFIG = """\
name: x
problem:
  classes: null
  batch_size: 2
  dataset: a.npz
finite: {widths: 16, depths: 2}
"""


@pytest.mark.parametrize("command", ["validate", "run", "plan"])
@pytest.mark.parametrize("name", UNUSABLE)
def test_commands_say_in_one_line_what_is_wrong_with_data(tmp_path: Path, name: str, command: str):
    write_npz(tmp_path / "a.npz", **UNUSABLE[name])
    (tmp_path / "sweep.yaml").write_text(CONFIG)
    out = ["--out", str(tmp_path / "out")] if command == "run" else []
    result = CliRunner().invoke(app, [command, str(tmp_path / "sweep.yaml"), *out])
    assert result.exit_code == 2 and not (tmp_path / "out").exists()
    place = f"{tmp_path / 'sweep.yaml'}:5: problem.dataset: {tmp_path / 'a.npz'}: "
    assert result.stderr.startswith(place) and result.stderr.count("\n") == 1


def test_data_that_are_gone_when_a_sweep_starts_are_bad_input(tmp_path: Path, monkeypatch: Any):
    """Checked, and then taken away: the command ends as it does for other bad input."""
    path = write_npz(tmp_path / "a.npz", inputs=X, targets=Y)
    (tmp_path / "sweep.yaml").write_text(CONFIG)

    def run_sweep(config: Any, *_: Any, **options: Any) -> None:
        os.unlink(path)
        config.load_data()

    monkeypatch.setattr("nfd_jax.launch.run_sweep", run_sweep)
    result = CliRunner().invoke(app, ["run", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "out")])
    told = f"problem.dataset: {path}: no such file; expected a .npz"
    assert result.exit_code == 2 and result.stderr.startswith(told)
    assert result.stderr.count("\n") == 1


def write_all(path: Path, order: Any = "C", **changes: Any) -> str:
    """40 samples of 4 classes and 12 to test, with some numbers changed: {array: (index, value)}."""
    rng = np.random.default_rng(0)
    arrays = dict(inputs=rng.standard_normal((40, 2, 3)), targets=np.arange(40) % 4)
    arrays |= dict(heldout_inputs=rng.standard_normal((12, 2, 3)), heldout_targets=np.arange(12) % 4)
    for name, (index, value) in changes.items():
        arrays[name][index] = value
    return write_npz(path, **{name: np.asarray(array, order=order) for name, array in arrays.items()})


def source(path: str, seed: int = 0, repetition: int = 0, **changes: Any) -> str:
    return load_problem_data(make_problem(path, **changes), seed, repetition).source


def test_the_source_is_that_of_the_samples_and_not_of_the_draw(tmp_path: Path):
    path = write_all(tmp_path / "a.npz")
    drawn = [dict(), dict(seed=1), dict(batch_size=2), dict(steps=9), dict(batches="stream")]
    drawn += [dict(batches="epochs", pool=8), dict(loss="cross_entropy")]
    drawn += [dict(data_seed="per_seed", repetition=i) for i in range(3)]
    found = {source(path, **changes) for changes in drawn}
    found.add(source(write_all(tmp_path / "b.npz")))
    found.add(source(write_all(tmp_path / "fortran.npz", order="F")))
    found.add(source(write_all(tmp_path / "others.npz", inputs=(2, 9.0), heldout_inputs=(3, 9.0))))
    assert len(found) == 1 and len(found.pop()) == 64


def test_the_source_changes_with_every_number_that_could_be_drawn(tmp_path: Path):
    path = write_all(tmp_path / "a.npz")
    last = np.random.default_rng(0).standard_normal((40, 2, 3))[37, 1, 2]
    changed = [
        dict(inputs=((37, 1, 2), np.nextafter(last, 9))),
        dict(inputs=((0, 0, 0), 0.5)),
        dict(targets=(36, 1)),
        dict(heldout_inputs=((8, 0, 0), 0.5)),
        dict(heldout_targets=(8, 1)),
        dict(targets=(2, 0)),
    ]
    found = [source(path), source(path, classes=(1, 0)), source(path, classes=(0, 2))]
    found.append(source(path, classes=None))
    for i, change in enumerate(changed):
        found.append(source(write_all(tmp_path / f"{i}.npz", **change)))
    assert len(set(found)) == len(found)


def test_the_source_is_the_same_on_every_machine_and_in_every_version(tmp_path: Path):
    """Stores keep it: another way to work it out would call every store's data changed."""
    inputs, targets = np.arange(24.0).reshape(8, 3), np.arange(8) % 2
    path = write_npz(tmp_path / "a.npz", inputs=inputs, targets=targets.astype(np.int8))
    expected = hashlib.sha256(b"(0, 1)<f8 (8, 3)" + inputs.tobytes() + b"<i8 (8,)" + targets.tobytes())
    assert source(path, batch_size=2) == expected.hexdigest()
    digits = "5808573ff9f88188d5e024d96a67bcd24750570362d33465ec328851f672f2f8"
    assert source("digits") == digits and source("gaussian") == "gaussian"


def own(path: str | Path, **changes: Any) -> ProblemConfig:
    return ProblemConfig(**{"dataset": str(path), "batch_size": 4, "steps": 2, **changes})


def test_samples_are_identified_once_for_all_repetitions(tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr("nfd_jax.data._source.SETTLED_NS", 0)
    problem = own(write_all(tmp_path / "a.npz"), data_seed="per_seed")
    from nfd_jax.data import _choice

    counted, digest = [], _choice.digest
    monkeypatch.setattr("nfd_jax.data._choice.digest", lambda *x: counted.append(1) or digest(*x))
    first, *others = (data_of(problem, 0, repetition) for repetition in range(5))
    assert len(counted) == 1 and {data.source for data in others} == {first.source}
    assert not np.array_equal(first.inputs, others[0].inputs)
    assert data_of(problem, 0, 0) is first, "what is unchanged is kept"


@pytest.mark.parametrize("settled", [True, False])
def test_a_file_that_is_rewritten_is_read_again(tmp_path: Path, monkeypatch: Any, settled: bool):
    """By another of the same size and, where it can be set, the same time; at once, and when times have gone
    on.
    """
    if settled:
        monkeypatch.setattr("nfd_jax.data._source.SETTLED_NS", 0)
    path = tmp_path / "a.npz"
    np.savez(path, inputs=X, targets=Y)
    before, problem = path.stat(), own(path)
    first = data_of(problem, 0)
    if settled:
        time.sleep(0.05)
    np.savez(path, inputs=2 * X**3, targets=Y)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_ino) == (before.st_size, before.st_ino)
    second = data_of(problem, 0)
    assert second.source != first.source and not np.array_equal(second.inputs, first.inputs)
    assert np.array_equal(second.inputs, load_problem_data(problem, 0).inputs)
    if settled:
        time.sleep(0.05)
    np.savez(path, inputs=np.hstack([X, X]), targets=Y)
    assert input_dim(problem) == 6 and data_of(problem, 0).inputs.shape == (2, 4, 6)
    os.unlink(path)
    with pytest.raises(DataError, match="no such file"):
        data_of(problem, 0)


def test_a_config_that_is_held_sees_the_files_of_now(tmp_path: Path):
    """As a notebook does: one config, and its data written anew between two runs."""
    write_npz(tmp_path / "a.npz", inputs=X, targets=Y)
    (tmp_path / "sweep.yaml").write_text(CONFIG)
    config = load_config(tmp_path / "sweep.yaml")
    first = config.load_data()
    write_npz(tmp_path / "a.npz", inputs=X[::-1] ** 3, targets=Y)
    assert not np.array_equal(config.load_data().inputs, first.inputs)


def test_files_that_go_first_are_found_when_they_appear(tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr("nfd_jax.data._source.SETTLED_NS", 0)
    images = np.random.default_rng(9).integers(0, 256, (40, 3072), dtype=np.uint8)
    write_npz(tmp_path / "cifar.npz", train_images=images, train_labels=np.arange(40) % 4)
    problem = own("cifar10", data_dir=str(tmp_path), classes=(0, 2))
    first = data_of(problem, 0)
    write_cifar(tmp_path / "cifar-10-batches-py", python3_pickle)
    assert data_of(problem, 0).source != first.source
