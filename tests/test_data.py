"""Readers on files written here, refusal of damaged and malicious ones, standardization, batches,
determinism.
"""

import gzip
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _datafiles import (
    ROWS,
    binary,
    cifar_rows,
    idx,
    make_problem,
    python2_pickle,
    python3_pickle,
    write_cifar,
    write_fashion,
    write_npz,
)

from nfd_jax.data import DATASETS, DataError, check_data, input_dim, load_problem_data
from nfd_jax.data._cifar import read_cifar_pickle
from nfd_jax.data._formats import read_cifar_binary, read_idx
from nfd_jax.data._npz import read_npz

CIFAR_SUBSET = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "cifar10_subset.npz"


def norms(inputs: np.ndarray) -> np.ndarray:
    return np.mean(inputs**2, axis=-1)


@pytest.fixture
def points(tmp_path: Path) -> str:
    """40 samples of 4 classes; the first feature is the class, the second tells samples apart, the last is
    constant.
    """
    labels = np.arange(40) % 4
    inputs = np.stack([labels, np.linspace(-300, 900, 40), np.full(40, 0.1)], axis=1)
    return write_npz(tmp_path / "points.npz", inputs=inputs, targets=labels)


def test_digits_are_there_without_files():
    data = load_problem_data(make_problem(), seed=0)
    assert data.inputs.shape == (3, 4, 64) and data.targets.shape == (3, 4, 1)
    assert data.heldout_inputs.shape == (32, 64) and data.heldout_targets.shape == (32, 1)
    assert data.inputs.dtype == data.targets.dtype == np.float64
    assert (data.name, data.classes) == ("digits", (0, 1))
    assert sorted(data.targets[0, :, 0]) == [-1, -1, 1, 1] and data.heldout_targets.sum() == 0
    assert np.array_equal(data.inputs[0], data.inputs[2])


@pytest.mark.parametrize(
    ("folder", "write", "suffix"),
    [
        ("cifar-10-batches-py", python2_pickle, ""),
        ("cifar-10-batches-py", python3_pickle, ""),
        ("cifar-10-batches-bin", binary, ".bin"),
    ],
)
def test_cifar10_folders(tmp_path: Path, folder: str, write: Any, suffix: str):
    """The folder itself, its parent, an .npz of the same samples and the .npz's folder give the same data."""
    inner = write_cifar(tmp_path / folder, write, suffix)
    batches = [cifar_rows(number) for number in range(6)]
    (tmp_path / "one").mkdir()
    npz = write_npz(
        tmp_path / "one" / "any.npz",
        train_images=np.concatenate([images for images, _ in batches[:5]]).reshape(-1, 3, 32, 32),
        train_labels=np.concatenate([labels for _, labels in batches[:5]]),
        test_images=batches[5][0].reshape(-1, 3, 32, 32),
        test_labels=batches[5][1],
    )
    first, *others = (
        load_problem_data(make_problem("cifar10", data_dir=place, classes=(0, 2), batches="stream"), seed=3)
        for place in (inner, tmp_path, npz, tmp_path / "one")
    )
    assert first.heldout_inputs.shape == (2 * ROWS // 3, 3072)
    for other in others:
        assert np.array_equal(first.inputs, other.inputs) and np.array_equal(first.targets, other.targets)
        assert np.array_equal(first.heldout_inputs, other.heldout_inputs)
        assert np.array_equal(first.heldout_targets, other.heldout_targets)


@pytest.mark.parametrize("suffix", [".gz", ""])
@pytest.mark.parametrize("inner", [".", "data/fashion", "FashionMNIST/raw"])
def test_fashion_mnist_layouts(tmp_path: Path, suffix: str, inner: str):
    write_fashion(tmp_path / "root" / inner, suffix)
    problem = make_problem("fashion_mnist", data_dir=tmp_path / "root", classes=None, batch_size=10)
    data = load_problem_data(problem, seed=0)
    assert data.inputs.shape == (3, 10, 784) and data.heldout_inputs.shape == (20, 784)
    assert np.array_equal(data.targets[0].sum(axis=0), np.ones(10))  # a batch of 10 has every class once
    assert data.classes == tuple(range(10))


def test_fashion_mnist_of_debian_is_found_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "nfd_jax.data._datasets.DEBIAN_FASHION_MNIST", write_fashion(tmp_path / "debian", ".gz")
    )
    assert load_problem_data(make_problem("fashion_mnist"), seed=0).inputs.shape == (3, 4, 784)


def test_gaussian_targets_are_those_of_one_teacher():
    data = load_problem_data(make_problem("gaussian", input_dim=2, batch_size=500, batches="stream"), seed=5)
    assert data.targets.shape == (3, 500, 1) and set(np.unique(data.targets)) == {-1, 1}
    batches = (data.inputs * data.targets).reshape(-1, 2)
    reflected = np.concatenate([batches, data.heldout_inputs * data.heldout_targets])
    angles = np.sort(np.arctan2(reflected[:, 1], reflected[:, 0]))
    assert np.diff(angles, append=angles[0] + 2 * np.pi).max() >= np.pi  # x·y all lie in one half-plane
    assert abs(norms(data.inputs).mean() - 1) < 4 * np.sqrt(2 / data.inputs.size)
    assert load_problem_data(make_problem("gaussian", loss="cross_entropy"), seed=5).targets.shape == (
        3,
        4,
        2,
    )


def test_real_valued_targets_pass_unchanged(tmp_path: Path):
    inputs = np.random.default_rng(0).standard_normal((30, 5))
    targets = inputs[:, :2] / 2
    heldout = {"heldout_inputs": inputs[:3], "heldout_targets": targets[:3]}
    path = write_npz(tmp_path / "a.npz", inputs=inputs, targets=targets, **heldout)
    data = load_problem_data(make_problem(path, classes=None, batches="stream"), seed=0)
    assert data.name == "a" and data.classes == () and data.heldout_inputs.shape == (3, 5)
    assert {tuple(row) for row in data.targets.reshape(-1, 2)} <= {tuple(row) for row in targets}


@pytest.mark.parametrize(
    ("classes", "loss", "outputs"),
    [
        ((2, 0), "squared", 1),
        ((2, 0), "cross_entropy", 2),
        ((3, 1, 0), "squared", 3),
        (None, "cross_entropy", 4),
    ],
)
def test_targets_follow_the_order_of_classes(points: str, classes: Any, loss: str, outputs: int):
    data = load_problem_data(make_problem(points, classes=classes, loss=loss, batch_size=8), seed=0)
    assert data.classes == (classes or (0, 1, 2, 3))
    _, ranks = np.unique(
        data.inputs[0, :, 0].round(9), return_inverse=True
    )  # the first feature grows with the class
    index = np.array([data.classes.index(sorted(data.classes)[rank]) for rank in ranks])
    expected = 2.0 * index[:, None] - 1 if outputs == 1 else np.eye(outputs)[index]
    assert np.array_equal(data.targets[0], expected)


def test_standardization(points: str):
    """Over all training samples: every feature centred, mean of |x|²/d equal to 1, proportions kept,
    constants 0.
    """
    data = load_problem_data(make_problem(points, classes=None, steps=1, batch_size=30), seed=0)
    inputs = data.inputs[0]
    assert data.heldout_inputs.shape == (10, 3)
    np.testing.assert_allclose(inputs.mean(axis=0), 0, atol=1e-14)
    np.testing.assert_allclose(norms(inputs).mean(), 1, rtol=1e-14)
    np.testing.assert_allclose(inputs[:, 2], 0, atol=1e-14)
    step = np.diff(np.unique(inputs[:, 0].round(9))).min()
    np.testing.assert_allclose(np.ptp(np.r_[inputs[:, 1], data.heldout_inputs[:, 1]]) / step, 1200, rtol=1e-6)


def test_stream_takes_disjoint_batches_and_starts_afresh(points: str):
    """30 training samples: four batches of 7 without repetition, then a new order; nothing held out is ever
    seen.
    """
    problem = make_problem(points, classes=None, steps=8, batch_size=7, batches="stream")
    data = load_problem_data(problem, seed=0)
    names = data.inputs[..., 1].round(9)
    epochs = names[:4].ravel(), names[4:].ravel()
    assert all(len(np.unique(epoch)) == 28 for epoch in epochs) and not np.array_equal(*epochs)
    assert not np.isin(names, data.heldout_inputs[:, 1].round(9)).any()
    assert (
        data.targets.sum(axis=1) > 0
    ).all()  # 7 samples, 4 classes: all of them in every batch of this balanced set
    shorter = load_problem_data(make_problem(**{**vars(problem), "steps": 3}), seed=0)
    assert np.array_equal(shorter.inputs, data.inputs[:3])


@pytest.mark.parametrize("dataset", ["digits", "gaussian"])
def test_the_seed_decides(dataset: str):
    first, again, other = (load_problem_data(make_problem(dataset), seed=seed) for seed in (7, 7, 8))
    assert np.array_equal(first.inputs, again.inputs) and np.array_equal(
        first.heldout_inputs, again.heldout_inputs
    )
    assert not np.array_equal(first.inputs, other.inputs)


@pytest.mark.parametrize("dataset", ["digits", "gaussian"])
def test_epochs_pass_over_one_pool_in_new_orders(dataset: str):
    """A pool of 10 in batches of 4: two a pass, no sample twice in a pass, 10 samples in all."""
    problem = make_problem(dataset, steps=40, batches="epochs", pool=10)
    data = load_problem_data(problem, seed=1)
    passes = data.inputs.reshape(20, 8, -1)
    assert all(len(np.unique(samples, axis=0)) == 8 for samples in passes)
    assert len(np.unique(data.inputs.reshape(160, -1), axis=0)) == 10
    assert not np.array_equal(passes[0], passes[1])
    assert np.array_equal(
        data.inputs[:5], load_problem_data(make_problem(**{**vars(problem), "steps": 5}), 1).inputs
    )
    whole = load_problem_data(make_problem(**{**vars(problem), "pool": 4}), seed=1).inputs
    assert all(np.array_equal(np.unique(batch, axis=0), np.unique(whole[0], axis=0)) for batch in whole)


@pytest.mark.parametrize("batches", ["fixed", "stream", "epochs"])
@pytest.mark.parametrize("dataset", ["digits", "gaussian"])
def test_data_drawn_anew_for_each_repetition(dataset: str, batches: str):
    problem = make_problem(
        dataset, batches=batches, pool=8 if batches == "epochs" else None, data_seed="per_seed"
    )
    first, again, second = (load_problem_data(problem, 3, repetition) for repetition in (0, 0, 1))
    assert np.array_equal(first.inputs, again.inputs) and np.array_equal(
        first.heldout_inputs, again.heldout_inputs
    )
    assert not np.array_equal(first.inputs, second.inputs)
    assert not np.array_equal(first.heldout_inputs, second.heldout_inputs)
    one_draw = make_problem(**{**vars(problem), "data_seed": "fixed"})
    fixed = [load_problem_data(one_draw, 3, repetition).inputs for repetition in (None, 0, 1)]
    assert np.array_equal(fixed[0], fixed[1]) and np.array_equal(fixed[0], fixed[2])
    assert not np.array_equal(fixed[0], first.inputs)
    with pytest.raises(ValueError, match="an integer from 0"):
        load_problem_data(problem, 3)


def test_repetitions_share_the_gaussian_teacher():
    problem = make_problem("gaussian", input_dim=2, batch_size=400, data_seed="per_seed")
    data = [load_problem_data(problem, 5, repetition) for repetition in range(4)]
    reflected = np.concatenate([(d.inputs * d.targets).reshape(-1, 2) for d in data])
    angles = np.sort(np.arctan2(reflected[:, 1], reflected[:, 0]))
    assert np.diff(angles, append=angles[0] + 2 * np.pi).max() >= np.pi


def test_input_dim_is_that_of_the_data(tmp_path: Path, points: str):
    images = write_npz(tmp_path / "i.npz", train_images=np.zeros((9, 2, 3, 5)), train_labels=np.arange(9))
    assert [input_dim(make_problem(dataset)) for dataset in (points, images, "gaussian")] == [3, 30, 32]
    assert input_dim(make_problem("digits")) == load_problem_data(make_problem("digits"), 0).inputs.shape[2]
    assert all(len(known.class_names) in (0, known.classes) for known in DATASETS.values())
    with pytest.raises(DataError, match="no such file"):
        input_dim(make_problem(tmp_path / "missing.npz"))


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path, protocol: int):
    folder = write_cifar(tmp_path / "py", python3_pickle)
    images, _ = cifar_rows(1)
    batch = {b"data": images, b"labels": [Payload(tmp_path / "harm")]}
    (folder / "data_batch_2").write_bytes(pickle.dumps(batch, protocol=protocol))
    with pytest.raises(DataError, match=r"data_batch_2: UnpicklingError: it names \w+\.mkdir"):
        check_data(make_problem("cifar10", data_dir=folder))
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"(S'harm'\nios\nmkdir\n.",
        b"\x80\x02cnumpy\nndarray\n(K\x01t\x81.",  # a permitted name used as a class
        b"\x80\x02}U\x04datacnumpy\ndtype\nU\x02O8\x85RsU\x06labels]s.",
        b"\x80\x02}r\xff\xff\xff\x7f.",  # a memo of 2^31 entries
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x00.",  # a string of 2^56 bytes
        b"]" * 100_000,
        b"",
    ],
)
def test_odd_pickles_are_data_errors(tmp_path: Path, content: bytes):
    (tmp_path / "batch").write_bytes(content)
    with pytest.raises(DataError, match="batch: .*expected a CIFAR-10 python batch"):
        read_cifar_pickle(tmp_path / "batch")
    assert not Path("harm").exists()


def test_object_arrays_in_npz_are_refused(tmp_path: Path):
    payload = np.array([[Payload(tmp_path / "harm")]], dtype=object)
    path = write_npz(tmp_path / "a.npz", inputs=payload, targets=np.zeros(1))
    with pytest.raises(DataError, match="a.npz: ValueError: Object arrays cannot be loaded"):
        check_data(make_problem(path))
    assert not (tmp_path / "harm").exists()


def test_files_that_claim_too_much_are_refused(tmp_path: Path):
    huge = struct.pack(">HBB3I", 0, 8, 3, 2**31, 28, 28)
    (tmp_path / "claim").write_bytes(huge)
    with pytest.raises(DataError, match="claim: shape"):
        read_idx(tmp_path / "claim", (28, 28))
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(struct.pack(">HBBI", 0, 8, 1, 10) + bytes(10**7)))
    with pytest.raises(DataError, match="bomb.gz: more after a header announcing 10 bytes"):
        read_idx(tmp_path / "bomb.gz", ())
    with zipfile.ZipFile(tmp_path / "claim.npz", "w") as archive:
        shape = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**50}, 3)}}".ljust(117) + "\n"
        for name in ("inputs", "targets"):
            archive.writestr(
                f"{name}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(shape)) + shape.encode()
            )
    with pytest.raises(DataError, match="claim.npz"):
        read_npz(tmp_path / "claim.npz", (("inputs", "targets"),))
    with zipfile.ZipFile(write_npz(tmp_path / "good.npz", inputs=np.eye(2))) as archive:
        member = archive.read("inputs.npy")
    with zipfile.ZipFile(tmp_path / "tail.npz", "w") as archive:
        for name in ("inputs", "targets"):
            archive.writestr(f"{name}.npy", member + b"tail")
    with pytest.raises(DataError, match="tail.npz: inputs goes on after its last number"):
        read_npz(tmp_path / "tail.npz", (("inputs", "targets"),))


def test_damaged_files_give_data_errors_or_data(tmp_path: Path):
    """200 seeded truncations and bit flips of each; with a checksum (.npz, .gz) what loads is what was
    written.
    """
    rng = np.random.default_rng(0)
    images, labels = cifar_rows(0)
    npz = Path(write_npz(tmp_path / "good.npz", inputs=images, targets=labels)).read_bytes()
    formats = [
        ("a.npz", npz, lambda path: read_npz(path, (("inputs", "targets"),))),
        ("a.gz", gzip.compress(idx(labels)), lambda path: read_idx(path, ())),
        ("a.idx", idx(labels), lambda path: read_idx(path, ())),
        ("a.bin", binary(images, labels), read_cifar_binary),
        ("a", python2_pickle(images[:1], labels[:1]), read_cifar_pickle),
        ("b", python3_pickle(images[:1], labels[:1]), read_cifar_pickle),
    ]
    for name, content, read in formats:
        refused = 0
        for _ in range(200):
            damaged = bytearray(content)
            where = int(rng.integers(min(len(content), 400)))
            if rng.random() < 0.3:
                del damaged[where:]
            else:
                damaged[where] ^= 1 << int(rng.integers(8))
            (tmp_path / name).write_bytes(damaged)
            try:
                arrays = read(tmp_path / name)
            except DataError as error:
                assert str(error).startswith(str(tmp_path / name)) and "\n" not in str(error)
                refused += 1
                continue
            if name == "a.npz":
                assert np.array_equal(arrays["inputs"], images) and np.array_equal(arrays["targets"], labels)
            if name == "a.gz":
                assert np.array_equal(arrays, labels)
        assert refused >= 40, name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(dataset="cifar10"), "no data_dir given"),
        (dict(dataset="cifar10", data_dir="/nowhere"), "/nowhere: no such folder"),
        (dict(dataset="cifar10", data_dir="/" + 5000 * "x"), "no such folder"),
        (dict(dataset="cifar10", data_dir="/a\0b.npz"), "no such file"),
        (dict(dataset="fashion_mnist", data_dir="/nowhere"), "/nowhere: no train-images-idx3-ubyte"),
        (dict(dataset="/nowhere/a.npz"), "/nowhere/a.npz: no such file"),
        (dict(dataset="mnist"), "'mnist' is unknown; allowed: digits"),
        (dict(classes=(0, 12)), r"classes \[0, 12\]; expected two or more different ones of 0, 1, 2"),
        (dict(classes=(3,)), r"classes \[3\]"),
        (dict(classes=(3, 3)), r"classes \[3, 3\]"),
        (dict(batch_size=5000), "expected at least batch_size = 5000"),
    ],
)
def test_what_is_missing_is_said_in_one_line(changes: dict[str, Any], message: str):
    for attempt in (check_data, lambda problem: load_problem_data(problem, seed=0)):
        with pytest.raises(DataError, match=message) as caught:
            attempt(make_problem(**changes))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (dict(inputs=np.eye(8)), "holds inputs; expected a .npz with numeric arrays"),
        (
            dict(inputs=np.eye(8), targets=np.arange(7)),
            r"inputs of shape \(8, 8\) and targets of shape \(7,\)",
        ),
        (dict(inputs=np.full((8, 2), np.nan), targets=np.arange(8) % 2), "non-finite"),
        (dict(inputs=np.eye(8).astype(str), targets=np.arange(8) % 2), "dtype <U32"),
        (dict(inputs=np.eye(8), targets=np.arange(8) % 2, heldout_inputs=np.eye(8)), "only one of"),
        (dict(inputs=np.full((8, 2), 0.1), targets=np.arange(8) % 2), "expected finite inputs that vary"),
        (dict(inputs=1e300 * np.eye(8), targets=np.arange(8) % 2), "inf rms"),
        (dict(inputs=np.eye(8), targets=np.arange(8) / 2), "targets are no class labels"),
    ],
)
def test_unusable_npz(tmp_path: Path, arrays: dict[str, np.ndarray], message: str):
    path = write_npz(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        load_problem_data(make_problem(path), seed=0)
    assert str(caught.value).startswith(path)


def test_a_pipe_does_not_block(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(DataError, match="pipe.npz: no such file"):
        check_data(make_problem(str(tmp_path / "pipe.npz")))


@pytest.mark.skipif(
    not CIFAR_SUBSET.is_file(), reason="needs shared/data/cifar10_subset.npz beside the repository"
)
def test_real_cifar10():
    stream = {"steps": 8, "batch_size": 32, "batches": "stream"}
    problem = make_problem("cifar10", data_dir=CIFAR_SUBSET.parent, classes=(3, 5), **stream)
    check_data(problem)
    data = load_problem_data(problem, seed=0)
    assert data.inputs.shape == (8, 32, 3072) and data.heldout_inputs.shape == (32, 3072)
    assert (data.targets.sum(axis=(1, 2)) == 0).all() and data.heldout_targets.sum() == 0
    squares = norms(data.inputs).ravel()
    assert abs(squares.mean() - 1) < 4 * squares.std() / np.sqrt(squares.size)
