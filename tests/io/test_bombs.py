"""Small files that say they are huge: refused in a sentence, in seconds, without the memory that they ask for."""

import io
import json
import resource
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from quickstudy import datasets
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.experiment import Experiment
from quickstudy.families.navigation import maps
from quickstudy.io import files
from quickstudy.results.evidence import Cell


@contextmanager
def cheaply(match: str):
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(QuickstudyError, match=match) as error:
        yield
    assert len(str(error.value)) <= 300
    assert time.process_time() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KB


def npy(shape: tuple[int, ...], descr: str = "<f8", content: bytes = b"") -> bytes:
    held = io.BytesIO()
    np.lib.format.write_array_header_1_0(held, {"descr": descr, "fortran_order": False, "shape": shape})
    return held.getvalue() + content


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("shape", [(10**12, 2), (2**31, 2**31), (2**62, 4), (3, 10**9)])
def test_shapes_in_headers(tmp_path, shape):
    path = archive(
        tmp_path / "d.npz", observations=npy(shape, content=bytes(64)), actions=npy((1, 1), content=bytes(8))
    )
    with cheaply("has not as many numbers as it says"):
        Demonstration.load(path)


def test_an_archive_that_unpacks_to_much(tmp_path):
    path = tmp_path / "d.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made, made.open("x.npy", "w") as file:
        file.write(npy((600 << 17,)))
        for _ in range(600):
            file.write(bytes(1 << 20))
    assert path.stat().st_size < 4 << 20
    with cheaply("would unpack to 600 MB"):
        files.load_arrays(path)


@pytest.mark.parametrize("descr", ["<c8", "<c16", "|V8"])
def test_numbers_of_kinds_that_nothing_learns_from(tmp_path, descr):
    size = np.dtype(descr).itemsize
    path = archive(
        tmp_path / "d.npz", observations=npy((1, 1), descr, bytes(size)), actions=npy((1, 1), "<f8", bytes(8))
    )
    with pytest.raises(QuickstudyError, match="which is not read"):
        Demonstration.load(path)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 500 + "]" * 500, '{"a":' * 5000])
def test_brackets_within_each_other(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with cheaply("is not valid JSON|brackets within each other"):
        Cell.read(tmp_path / "x.json")
    (tmp_path / "checkpoints/best").mkdir(parents=True)
    (tmp_path / "checkpoints/best/config.json").write_text(text)
    from quickstudy.robot import load

    with cheaply("is not valid JSON|brackets within each other"):
        load(tmp_path)


def test_aliases_of_yaml(tmp_path):
    text = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    (tmp_path / "m.yaml").write_text(text + "image: *i\n")
    with cheaply("has aliases"):
        maps.read(tmp_path / "m.yaml", 0.1)


def test_an_image_of_many_cells(tmp_path):
    (tmp_path / "m.pgm").write_bytes(b"P5 100000 1000 255\n" + bytes(10))
    with cheaply("cells|readable image"):
        maps.read(tmp_path / "m.pgm", 0.1)


def demonstrations(path: Path) -> h5py.File:
    file = h5py.File(path, "w")
    file["data/demo_0/obs/x"], file["data/demo_0/actions"] = np.zeros((3, 2)), np.zeros((3, 1))
    return file


def test_sparse_arrays_of_hdf5(tmp_path):
    with demonstrations(tmp_path / "a.hdf5") as file:
        file["data/demo_0"].create_dataset("obs/y", (2**33, 2), "f8", chunks=(1024, 2))
    with cheaply("would unpack to"):
        datasets.load(tmp_path / "a.hdf5")


@pytest.mark.parametrize("how", ["link", "raw", "virtual"])
def test_hdf5_that_reaches_outside(tmp_path, how):
    other = tmp_path / "other.hdf5"
    with h5py.File(other, "w") as file:
        file["x"] = np.ones((3, 2))
    with demonstrations(tmp_path / "a.hdf5") as file:
        if how == "link":
            file["data/demo_0/obs/y"] = h5py.ExternalLink(str(other), "/x")
        elif how == "raw":
            file.create_dataset("data/demo_0/obs/y", (3, 2), "f8", external=[(str(other), 0, 48)])
        else:
            layout = h5py.VirtualLayout((3, 2), "f8")
            layout[:] = h5py.VirtualSource(str(other), "x", (3, 2))
            file.create_virtual_dataset("data/demo_0/obs/y", layout)
    with pytest.raises(QuickstudyError, match="lies in another file; that is not read"):
        datasets.load(tmp_path / "a.hdf5")


def test_networks_that_no_machine_trains():
    for hidden in ((10**6, 10**6), (10**9, 10**9, 10**9)):
        with cheaply("parameters; at most|memory|size"):
            Experiment.of("point-navigation", "maml", changes={"network": {"hidden": hidden}}).build()


def test_widths_of_a_lerobot_data_set(tmp_path):
    from recorded import walks

    datasets.save(tmp_path / "set", walks(1, 2), datasets.About(10.0), "lerobot")
    path = tmp_path / "set/meta/info.json"
    info = json.loads(path.read_text())
    info["data_path"] = "data/{chunk_index:999999999d}/{file_index:03d}.parquet"
    path.write_text(json.dumps(info))
    with cheaply("the names in it must be"):
        datasets.load(tmp_path / "set")
    info["data_path"], info["features"]["action"]["shape"] = "data/x", [10**5, 10**5]
    path.write_text(json.dumps(info))
    with cheaply("numbers a step"):
        datasets.load(tmp_path / "set")
