"""Files made to hang, to crash or to fill memory: each is refused in one line, soon and within a bound of
memory.
"""

import gzip
import io
import pickle
import pickletools
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _datafiles import ROWS, cifar_rows, idx, make_problem, python2_pickle, python3_pickle, write_npz

from nfd_jax.data import DataError, check_data, input_dim
from nfd_jax.data._cifar import MAX_OPCODES, read_cifar_pickle
from nfd_jax.data._formats import read_idx
from nfd_jax.data._npz import MAX_DIRECTORY, MAX_HEADER, MAX_MEMBERS, read_npz

LAYOUTS = (("inputs", "targets", "heldout_inputs", "heldout_targets"),)
SECONDS = 20.0
"""For any one file; the slowest here, a million opcodes, takes about two."""

HEAD, LABELS = b"\x80\x02}", b"U\x06labels"
DTYPE, BYTES = b"cnumpy\ndtype\n", b"U\x02u1"
MEGABYTE = struct.pack("<I", 10**6) + b"a" * 10**6


def renamed(content: bytes, protocol: int) -> bytes:
    """A pickle of numpy 2 with the names of numpy 1."""
    content = content.replace(b"cnumpy._core.", b"cnumpy.core.")
    for name in (b"numpy._core.multiarray", b"numpy._core.numeric"):
        old = name.replace(b"_core", b"core")
        content = content.replace(bytes([len(name)]) + name, bytes([len(old)]) + old)
    if protocol >= 4 and content[2:3] == b"\x95" and len(content) < 2**16:
        content = content[:3] + struct.pack("<Q", len(content) - 11) + content[11:]
    return content


@pytest.mark.filterwarnings("ignore:numpy.core")
@pytest.mark.parametrize("names", ["numpy 1", "numpy 2"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", range(6))
def test_batches_pickled_again_by_python_3_load(tmp_path: Path, protocol: int, order: Any, names: str):
    """Every protocol, keys of bytes and of text, names of batch and files beside, both orders of bytes."""
    images, labels = cifar_rows(0)
    keys = [b"batch_label", b"labels", b"data", b"filenames"]
    values = [b"training batch 1 of 5", labels.tolist(), np.asarray(images, order=order)]
    values.append([f"{row}.png".encode() for row in range(ROWS)])
    for convert in (bytes, bytes.decode):
        content = pickle.dumps(dict(zip(map(convert, keys), values, strict=True)), protocol)
        content = renamed(content, protocol) if names == "numpy 1" else content
        assert np.array_equal([*pickle.loads(content).values()][2], images)
        (tmp_path / "batch").write_bytes(content)
        read, found = read_cifar_pickle(tmp_path / "batch")
        assert np.array_equal(read, images) and read.dtype == np.uint8
        assert np.array_equal(found, labels) and found.dtype == np.int64


def batch(labels: bytes = b"](K\x00K\x01e", images: np.ndarray | None = None, **changes: bytes) -> bytes:
    """A batch of two images with parts of its pickle exchanged."""
    images = cifar_rows(0)[0][:2] if images is None else images
    content = python2_pickle(images, np.array([0, 1]))
    assert b"](K\x00K\x01e" in content
    content = content.replace(b"](K\x00K\x01e", labels, 1)
    parts = {"dtype": b"U\x02u1", "shape": b"M\x02\x00M\x00\x0c\x86", "kind": b"cnumpy\nndarray\n"}
    for name, part in changes.items():
        assert parts[name] in content
        content = content.replace(parts[name], part, 1)
    return content


PICKLES: dict[str, bytes] = {
    "tuples shared twice over": batch(b")" + b"q\x00h\x00\x86" * 60),  # a walk takes 2^60 steps
    "lists shared twice over": batch(b"(" * 60 + b"]" + b"q\x00h\x00l" * 60),
    "a list in itself": batch(b"]q\x00h\x00a"),
    "a dict in itself": b"\x80\x02}q\x00" + LABELS + b"h\x00s.",
    "keys that take forever to hash": HEAD + b")" + b"q\x00h\x00\x86" * 60 + b"K\x00s.",
    "lists 100 000 deep": batch(b"]" * 100_000 + b"a" * 99_999),
    "tuples 100 000 deep": batch(b")" + b"\x85" * 100_000),
    "a tuple in text 100 000 deep": batch(b"(" * 100_000 + b"t" * 100_000),
    "calls 100 000 deep": batch(DTYPE * 2 + BYTES + b"\x85R" * 100_000),
    "a string encoded again and again": b"\x80\x02X" + MEGABYTE + b"q\x00X\x06\x00\x00\x00latin1q\x01"
    + b"c_codecs\nencode\nq\x02" + b"h\x02h\x00h\x01\x86R" * 10_000 + b".",
    "an array filled again and again": batch()[:-4] + b"tq\x63b" + b"h\x63b" * 100_000 + b"u.",
    "a key of a million characters": b"\x80\x02X" + MEGABYTE + b"q\x00}" + b"h\x00K\x00s" * 100_000 + b".",
    "a million marks": b"(" * 10**6 + b".",
    "a million lists": b"]" * (MAX_OPCODES - 1) + b".",
    "more opcodes than a batch has": b"]0" * 10**6 + b".",
    "an integer of a megabyte": batch(b"](\x8b" + MEGABYTE + b"e"),
    "an integer of a million digits": batch(b"](I" + b"9" * 10**6 + b"\ne"),
    "a long of a million digits": batch(b"](L" + b"9" * 10**6 + b"L\ne"),
    "labels of 255 bytes": batch(b"](\x8a\xff" + b"\x7f" * 255 + b"K\x01e"),
    "a memo of 2^32 entries": b"\x80\x02}r\xff\xff\xff\xff0.",
    "a memo of 10^4000 entries": b"}p" + b"9" * 4000 + b"\n0.",
    "what no memo holds": HEAD + b"h\x07.",
    "a frame of 2^63 bytes": b"\x80\x04\x95" + b"\xff" * 8 + b"}.",
    "bytes of 2^62": b"\x80\x04}\x8e" + struct.pack("<Q", 2**62) + b".",
    "text of 2^62": b"\x80\x04}\x8d" + struct.pack("<Q", 2**62) + b".",
    "a byte array of 2^62": b"\x80\x05}\x96" + struct.pack("<Q", 2**62) + b".",
    "bytes of 2^32": b"\x80\x03}B\xff\xff\xff\xff.",
    "a string of negative length": HEAD + b"T\xff\xff\xff\xff.",
    "a long of negative length": HEAD + b"\x8b\xff\xff\xff\xff.",
    "a persistent id": b"Pharm\n.",
    "a persistent id from the stack": HEAD + b"Q.",
    "an extension of one byte": b"\x80\x02\x82\x01.",
    "an extension of four bytes": b"\x80\x02\x84\x01\x00\x00\x00.",
    "a buffer out of band": b"\x80\x05\x97.",
    "an instance": b"(iposix\nmkdir\n.",
    "an object": b"(cnumpy\ndtype\no.",
    "a new object": b"\x80\x02cnumpy\ndtype\n)\x81.",
    "a set": b"\x80\x04\x8f.",
    "a number with a point": batch(b"](G\x00\x00\x00\x00\x00\x00\x00\x00K\x01e"),
    "state for a dict": HEAD + b"}b.",
    "state for a list": batch(b"]}b"),
    "state for a name": batch(b"cnumpy\ndtype\n}b"),
    "items for a dict": HEAD + b"K\x00a.",
    "keys for a list": b"]K\x00K\x01s.",
    "a key alone": b"\x80\x02}(K\x00u.",
    "a number as key": HEAD + b"K\x00K\x00s.",
    "nothing to take": b"\x80\x02\x86.",
    "no mark": b"\x80\x02}t.",
    "below a mark": b"\x80\x02}(a.",
    "many ends": b"." * 1000,
    "a thousand ends after a batch": batch() + b"." * 1000,
    "two batches": batch() + batch(),
    "a batch on top of another": batch().removesuffix(b".") + batch(),
    "a list": b"].",
    "no data": batch(b"](K\x00e"),
    "ten as label": batch(b"](K\x0aK\x01e"),
    "a label below zero": batch(b"](J\xff\xff\xff\xffK\x01e"),
    "true as label": batch(b"](\x88K\x01e"),
    "text as label": batch(b"](U\x010K\x01e"),
    "labels of labels": batch(b"](](K\x00eK\x01e"),
    "too few labels": batch(b"](K\x00e"),
    "a tuple of labels": batch(b"K\x00K\x01\x86"),
    "one more row in the shape": batch(shape=b"M\x03\x00M\x00\x0c\x86"),
    "rows below zero": batch(shape=b"J\xfe\xff\xff\xffJ\x00\xf4\xff\xff\x86"),
    "rows of another length": batch(shape=b"M\x00\x0cM\x02\x00\x86"),
    "a shape of 2^63": batch(shape=b"\x8a\x09" + b"\x00" * 8 + b"\x01K\x00\x86"),
    "objects": batch(dtype=b"U\x02O8"),
    "signed bytes": batch(dtype=b"U\x02i1"),
    "another kind of array": batch(kind=b"cnumpy\nmatrix\n"),
    "arrays in the place of their kind": batch(kind=b"cnumpy\ndtype\n"),
    "text that is no latin1": b"\x80\x02X\x04\x00\x00\x00\xf0\x9f\x98\x80q\x00X\x06\x00\x00\x00latin1"
    b"q\x01c_codecs\nencode\nh\x00h\x01\x86R.",
    "another codec": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R.",
}  # fmt: skip


@pytest.mark.parametrize("name", PICKLES)
def test_hostile_pickles_are_refused_at_once(tmp_path: Path, name: str):
    path = tmp_path / "batch"
    path.write_bytes(PICKLES[name])
    start = time.monotonic()
    with pytest.raises(DataError, match="batch: .*expected a CIFAR-10 python batch") as caught:
        read_cifar_pickle(path)
    assert time.monotonic() - start < SECONDS
    assert "\n" not in str(caught.value) and len(str(caught.value)) < len(str(path)) + 400


def test_the_batch_that_hostile_ones_are_made_from_loads(tmp_path: Path):
    """Otherwise those above would be refused for nothing."""
    (tmp_path / "batch").write_bytes(batch())
    images, labels = read_cifar_pickle(tmp_path / "batch")
    assert np.array_equal(images, cifar_rows(0)[0][:2]) and labels.tolist() == [0, 1]


def test_a_batch_far_larger_than_any_is_not_read(tmp_path: Path):
    with (tmp_path / "batch").open("wb") as stream:
        stream.truncate(2**40)  # no block of it is on the disk
    with pytest.raises(DataError, match=f"batch: ValueError: {2**40} bytes, allowed are"):
        read_cifar_pickle(tmp_path / "batch")


def member(shape: Any, descr: Any = "|u1", content: bytes = b"", header: str | None = None) -> bytes:
    """A .npy member with any header."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}" if header is None else header
    text = text.ljust(117) + "\n"
    if len(text) < 2**16:
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + content
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text.encode() + content


def archive(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, content in members:
            file.writestr(name, content)
    return stream.getvalue()


def both(content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    return archive(("inputs.npy", content), ("targets.npy", member((8,), content=bytes(8))), method=method)


def claiming(content: bytes, **fields: int) -> bytes:
    """An archive whose list of members has other numbers for the first: sizes, flags, method."""
    found = bytearray(content)
    start = found.index(b"PK\x01\x02")
    places = {"flags": (8, "<H"), "method": (10, "<H"), "packed": (20, "<I"), "size": (24, "<I")}
    for name, value in fields.items():
        offset, form = places[name]
        struct.pack_into(form, found, start + offset, value)
    return bytes(found)


GOOD = member((8, 4), content=bytes(range(32)))
ARCHIVES: dict[str, tuple[bytes, str]] = {
    "a shape of 2^50": (both(member((2**50, 3))), "its shape is"),
    "a shape of 10^300": (both(member((10**300, 3))), "its shape is"),
    "no samples of 2^60 numbers": (both(member((0, 2**60))), "expected sizes of at least 1"),
    "no numbers in 2^60 samples": (both(member((2**60, 0))), "expected sizes of at least 1"),
    "sizes below zero": (both(member((-8, -4), content=bytes(32))), "expected sizes of at least 1"),
    "a hundred axes": (both(member((1,) * 100, content=bytes(1))), "dimension"),
    "true as a size": (both(member((True, 3), content=bytes(3))), "shape|expected"),
    "text as a size": (both(member(("8", 4), content=bytes(32))), "shape is not valid"),
    "a header of 2^24 blanks": (both(member((8, 4), header="{" + " " * 2**24)), "header of"),
    "a header of brackets": (both(member((), header="(" * (MAX_HEADER - 100))), "header|parenthes|statement"),
    "a header of signs": (both(member((), header="-" * (MAX_HEADER - 100) + "1")), "header|node|recursion"),
    "objects": (both(member((8, 4), "|O", bytes(256))), "Object arrays cannot be loaded"),
    "objects inside": (both(member((8,), [("a", "|O")], bytes(64))), "Object arrays cannot be loaded"),
    "records": (both(member((8,), [("a", "<f8"), ("b", "<f8")], bytes(128))), "expected integers or floats"),
    "arrays in arrays": (both(member((8,), ("<f8", (4,)), bytes(256))), "expected integers or floats"),
    "text of 2^31": (both(member((8,), "<U536870911")), "expected integers or floats"),
    "void of 2^31": (both(member((8,), "|V2147483647")), "expected integers or floats"),
    "a type that is none": (both(member((8, 4), "<q99")), "descr is not a valid"),
    "complex numbers": (both(member((8, 4), "<c8", bytes(256))), "expected integers or floats"),
    "an encrypted member": (claiming(both(GOOD), flags=1), "encrypted"),
    "bzip2": (both(GOOD, zipfile.ZIP_BZIP2), "packed by method 12"),
    "lzma": (both(GOOD, zipfile.ZIP_LZMA), "packed by method 14"),
    "a method that is none": (claiming(both(GOOD), method=77), "packed by method 77"),
    "a size of 4 GiB": (claiming(both(GOOD), size=2**32 - 2), "claims 4294967294 bytes"),
    "a packed size of 4 GiB": (claiming(both(GOOD), packed=2**32 - 2), "which the file cannot hold"),
    "a size one below": (claiming(both(GOOD), size=len(GOOD) - 1), "expected 32, for its shape|Bad CRC-32"),
    "stored, a size above": (
        claiming(both(GOOD, zipfile.ZIP_STORED), size=len(GOOD) + 1), "which the file cannot hold"
    ),
    "cut off": (both(GOOD)[:-30], "not a zip file"),
    "a thousand members": (
        archive(*((f"{i}.npy", b"") for i in range(MAX_MEMBERS)), ("inputs.npy", GOOD)), "65 members"
    ),
    "names of 2^21 bytes": (
        archive(*(("x" * 2**15 + str(i), b"") for i in range(64))), f"more than {MAX_DIRECTORY} bytes"
    ),
    "a name of lines": (archive(("a\nb\n" * 99, b"")), "holds a b a b"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_hostile_archives_are_refused_at_once(tmp_path: Path, name: str):
    path = tmp_path / "a.npz"
    content, message = ARCHIVES[name]
    path.write_bytes(content)
    start = time.monotonic()
    with pytest.raises(DataError, match=f"a.npz: .*({message})") as caught:
        check_data(make_problem(path))
    assert time.monotonic() - start < SECONDS
    assert "\n" not in str(caught.value) and len(str(caught.value)) < len(str(path)) + 500


@pytest.mark.parametrize("shape", [(8, 2**50), (0, 2**60), (2**40, 2**40)])
def test_a_dimension_is_not_believed_either(tmp_path: Path, shape: tuple[int, int]):
    (tmp_path / "a.npz").write_bytes(both(member(shape)))
    with pytest.raises(DataError, match=r"a\.npz"):
        dimension = input_dim(make_problem(tmp_path / "a.npz"))
        assert dimension * max(1, shape[0]) < 2**32, dimension
        check_data(make_problem(tmp_path / "a.npz"))


def test_members_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """None of three arrays is too large by itself; what is not used does not count."""
    monkeypatch.setattr("nfd_jax.data._files.MAX_BYTES", 2**20)
    part = np.zeros(2**19, np.uint8).reshape(2**9, -1)
    write_npz(tmp_path / "a.npz", inputs=part, targets=np.arange(2**9) % 2, other=part, more=part)
    assert read_npz(tmp_path / "a.npz", LAYOUTS)["inputs"].shape == part.shape
    write_npz(tmp_path / "a.npz", inputs=part, targets=np.arange(2**9) % 2, heldout_inputs=part)
    with pytest.raises(DataError, match="inputs, targets, heldout_inputs unpack to .*allowed are 1048576"):
        read_npz(tmp_path / "a.npz", LAYOUTS)


def name_in_header(size: int) -> bytes:
    """A gzipped stream whose header has a name of `size` bytes."""
    return (
        b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * size + b"\0" + gzip.compress(idx(np.zeros(9, np.uint8)))[10:]
    )


STREAMS: dict[str, tuple[bytes, str]] = {
    "a claim of 2^31 labels": (gzip.compress(struct.pack(">HBBI", 0, 8, 1, 2**31)), "announcing 2147483648"),
    "a claim of 2^32 labels": (gzip.compress(struct.pack(">HBBI", 0, 8, 1, 2**32 - 1)), "announcing 42949"),
    "more than it says": (gzip.compress(struct.pack(">HBBI", 0, 8, 1, 10) + bytes(10**7)), "more after"),
    "less than it says": (gzip.compress(struct.pack(">HBBI", 0, 8, 1, 10) + bytes(9)), "9 bytes after"),
    "a hundred thousand empty parts": (gzip.compress(b"") * 10**5, "empty parts"),
    "empty parts after a full one": (
        gzip.compress(struct.pack(">HBBI", 0, 8, 1, 10)) + gzip.compress(b"") * 10**5, "empty parts"
    ),
    "parts of one byte each": (
        gzip.compress(struct.pack(">HBBI", 0, 8, 1, 10**5)) + gzip.compress(b"\0") * 10**5, "empty parts"
    ),
    "a name without an end": (b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * 10**7, "ends early"),
    "cut off": (gzip.compress(idx(np.arange(99, dtype=np.uint8)))[:-9], "ends early"),
    "another checksum": (gzip.compress(idx(np.arange(9, dtype=np.uint8)))[:-8] + bytes(8), "incorrect data"),
    "no gzip": (idx(np.arange(9, dtype=np.uint8)), "incorrect header"),
    "nothing": (b"", "ends early"),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_hostile_gzipped_files_are_refused_at_once(tmp_path: Path, name: str):
    content, message = STREAMS[name]
    (tmp_path / "a.gz").write_bytes(content)
    start = time.monotonic()
    with pytest.raises(DataError, match=f"a.gz: .*({message})"):
        read_idx(tmp_path / "a.gz", ())
    assert time.monotonic() - start < SECONDS


def test_gzipped_files_of_several_parts_load(tmp_path: Path):
    """As block-wise packers write them, with padding; and a long name in the header."""
    labels = np.arange(10, dtype=np.uint8)
    content = idx(labels)
    packed = gzip.compress(content[:6]) + gzip.compress(content[6:9]) + gzip.compress(content[9:]) + bytes(99)
    for found in (packed, name_in_header(10**5)):
        (tmp_path / "a.gz").write_bytes(found)
        assert np.array_equal(read_idx(tmp_path / "a.gz", ()), labels if found is packed else np.zeros(9))


def spliced(content: bytes, starts: list[int], rng: np.random.Generator) -> bytes:
    """A pickle with some of its opcodes left out, doubled, exchanged, or put in from elsewhere."""
    ends = [*starts[1:], len(content)]
    pieces = [content[a:b] for a, b in zip(starts, ends, strict=True)]
    for _ in range(int(rng.integers(1, 4))):
        i, j = rng.integers(len(pieces), size=2)
        match int(rng.integers(5)):
            case 0:
                del pieces[i]
            case 1:
                pieces.insert(i, pieces[j])
            case 2:
                pieces[i], pieces[j] = pieces[j], pieces[i]
            case 3:
                pieces[i:i] = [bytes([rng.choice([ord(op.code) for op in pickletools.opcodes])])]
            case 4:
                pieces[i] = pieces[j]
    return b"".join(pieces)


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes flipped, cut off, left out, put in or repeated, most of them near an end, where headers are."""
    found = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        near = int(rng.integers(min(len(found), 300) + 1))
        where = max(0, min(near if rng.random() < 0.5 else len(found) - near, len(found) - 1))
        match int(rng.integers(5)):
            case 0:
                found[where] ^= 1 << int(rng.integers(8))
            case 1:
                found[where] = int(rng.choice([0, 1, 127, 128, 255]))
            case 2:
                del found[max(1, where) : where + int(rng.integers(1, 9))]
            case 3:
                found[where:where] = rng.bytes(int(rng.integers(1, 9)))
            case 4:
                del found[max(1, where) :]
    return bytes(found)


def fuzzed(rounds: int) -> Iterator[tuple[str, Callable[[Path], Any], bytes]]:
    """Name, reader and content of damaged files of each format."""
    rng = np.random.default_rng(0)
    images, labels = cifar_rows(0)
    images, labels = images[:2], labels[:2]
    pickles = [python2_pickle(images, labels), python3_pickle(images, labels)]
    pickles += [
        pickle.dumps({"data": images, "labels": labels.tolist()}, protocol) for protocol in (0, 3, 4, 5)
    ]
    starts = [[place for _, _, place in pickletools.genops(content)] for content in pickles]
    stream = io.BytesIO()
    np.savez(stream, inputs=images, targets=labels)
    packed = both(member((2, 3072), content=images.tobytes()))
    for i in range(rounds):
        which = i % len(pickles)
        yield "batch", read_cifar_pickle, spliced(pickles[which], starts[which], rng)
        yield "batch", read_cifar_pickle, damaged(pickles[which], rng)
        yield (
            "a.npz",
            lambda path: read_npz(path, LAYOUTS),
            damaged(packed if i % 2 else stream.getvalue(), rng),
        )
        yield "a.gz", lambda path: read_idx(path, ()), damaged(gzip.compress(idx(labels)), rng)
        yield "a.idx", lambda path: read_idx(path, ()), damaged(idx(labels), rng)


def fuzz(folder: Path, rounds: int) -> None:
    refused = count = 0
    for name, read, content in fuzzed(rounds):
        path = folder / name
        path.write_bytes(content)
        start = time.monotonic()
        try:
            found = read(path)
        except DataError as error:
            refused += 1
            assert str(error).startswith(str(path)) and "\n" not in str(error), content
        else:
            if name == "batch":
                images, labels = found
                assert images.dtype == np.uint8 and images.shape == (len(labels), 3072), content
                assert labels.shape == (len(labels),) and all(0 <= label <= 9 for label in labels), content
        count += 1
        assert time.monotonic() - start < SECONDS, content
    assert refused > count / 2


@pytest.mark.filterwarnings("ignore")  # numpy's, about what it finds in a header
def test_damage_of_any_kind_gives_data_errors_or_data(tmp_path: Path):
    fuzz(tmp_path, 150)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_damage_of_any_kind_gives_data_errors_or_data_1000_times(tmp_path: Path):
    fuzz(tmp_path, 1000)


READ_WITHIN = """
import resource, sys, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from nfd_jax.data import DataError, _files, load_problem_data
from nfd_jax.data._cifar import read_cifar_pickle
from nfd_jax.data._formats import read_idx
from nfd_jax.data._npz import read_npz

folder, bound, beyond = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
_files.MAX_BYTES = bound
layouts = (("inputs", "targets", "heldout_inputs", "heldout_targets"),)

def load(path):
    shared = dict(data_dir=None, classes=None, steps=2, batch_size=4, batches="fixed", loss="squared")
    load_problem_data(SimpleNamespace(dataset=str(path), pool=None, data_seed="fixed", **shared), 0)

def memory(what):
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what))

def read(path):
    if path.name.startswith("batch"):
        read_cifar_pickle(path)
    elif path.suffix == ".gz":
        read_idx(path, ())
    elif path.name.startswith("load"):
        load(path)
    else:
        read_npz(path, layouts)

read(folder / "load small.npz")
limit = memory("VmSize") + beyond
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sorted(folder.iterdir()):
    start, outcome = time.monotonic(), "loaded"
    try:
        read(path)
    except DataError as error:
        outcome = "out of memory" if "MemoryError" in str(error) else "refused"
    print(f"{path.name}|{outcome}|{time.monotonic() - start:.2f}")
"""


def outcomes(folder: Path, *, bound: int, beyond: int) -> dict[str, str]:
    """What became of each file in a process that may take `beyond` bytes more than at its start."""
    told = [sys.executable, "-c", READ_WITHIN, str(folder), str(bound), str(beyond)]
    done = subprocess.run(told, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [line.split("|") for line in done.stdout.splitlines()]
    assert all(float(seconds) < SECONDS for *_, seconds in lines), lines
    return {name: outcome for name, outcome, _ in lines}


def write_hostile(folder: Path, bound: int) -> None:
    """Files that would unpack to far more than `bound`, and some that just reach it."""
    for i, content in enumerate(PICKLES.values()):
        (folder / f"batch {i}").write_bytes(content)
    for i, (content, _) in enumerate(ARCHIVES.values()):
        (folder / f"archive {i}.npz").write_bytes(content)
    for i, (content, _) in enumerate(STREAMS.values()):
        (folder / f"stream {i}.gz").write_bytes(content)
    bomb = member((4 * bound // 4, 4), content=bytes(4 * bound))
    (folder / "archive bomb.npz").write_bytes(both(bomb))
    (folder / "archive liar.npz").write_bytes(claiming(both(bomb), size=bound // 2))
    honest = struct.pack(">HBBI", 0, 8, 1, bound - 64) + bytes(bound - 64)
    (folder / "stream honest.gz").write_bytes(gzip.compress(honest))
    (folder / "stream bomb.gz").write_bytes(gzip.compress(honest[:8] + bytes(4 * bound)))
    rng = np.random.default_rng(0)
    for name, size in (("small", 2**16), ("honest", bound - bound // 512)):
        inputs = rng.integers(0, 256, (size // 1024, 1024), dtype=np.uint8)
        write_npz(
            folder / f"load {name}.npz", inputs=inputs, targets=(np.arange(len(inputs)) % 2).astype("u1")
        )


def check_memory(folder: Path, bound: int, multiple: int) -> None:
    write_hostile(folder, bound)
    found = outcomes(folder, bound=bound, beyond=multiple * bound)
    honest = {"load small.npz", "load honest.npz", "stream honest.gz"}
    assert {name for name, outcome in found.items() if outcome == "loaded"} == honest
    assert [name for name, outcome in found.items() if outcome == "out of memory"] == []


LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@LINUX
def test_no_file_takes_more_than_eight_times_a_small_bound_of_memory(tmp_path: Path):
    """Of a bound of 16 MiB in place of 4 GiB: a million opcodes take 70 MB, whatever the bound."""
    check_memory(tmp_path, 2**24, 8)


@LINUX
@pytest.mark.long
def test_no_file_takes_more_than_four_times_the_bound_of_memory_when_that_is_large(tmp_path: Path):
    check_memory(tmp_path, 2**28, 4)
