"""Fetching Omniglot, with small made-up archives in place of Lake's and files in place of the network."""

import errno
import hashlib
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quickstudy import datasets
from quickstudy.datasets import OmniglotImages, fetch_omniglot, load_arrays, load_omniglot, omniglot
from quickstudy.errors import QuickstudyError

BACKGROUND = {"Zulu": 2, "Alpha": 1}
EVALUATION = {"Middle": 3}
"""Made-up alphabets and how many characters they have; each character has two drawings."""


def drawing(*key: object) -> bytes:
    """A PNG of one bit, 105 x 105, that no other key gives."""
    rng = np.random.default_rng(list("/".join(map(str, key)).encode()))
    file = io.BytesIO()
    Image.fromarray(rng.random((105, 105)) > 0.3).save(file, "png")
    return file.getvalue()


def archive(path: Path, alphabets: dict[str, int]) -> None:
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(f"{path.stem}/", "")
        packed.writestr("__MACOSX/._junk.png", "junk")
        for alphabet, characters in alphabets.items():
            for character in reversed(range(1, characters + 1)):
                for drawer in (2, 1):
                    inside = f"{alphabet}/character{character:02}/{900 + character:04}_{drawer:02}.png"
                    packed.writestr(f"{path.stem}/{inside}", drawing(alphabet, character, drawer))


@pytest.fixture
def lake(tmp_path, monkeypatch) -> Path:
    """A folder with the two archives, which stands for Lake's repository too; the cache is empty."""
    folder = tmp_path / "lake"
    folder.mkdir()
    archive(folder / "images_background.zip", BACKGROUND)
    archive(folder / "images_evaluation.zip", EVALUATION)
    hashes = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
    monkeypatch.setattr(omniglot, "_OMNIGLOT_MD5", hashes)
    monkeypatch.setattr(omniglot, "_OMNIGLOT", folder.as_uri() + "/")
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    return folder


def cached() -> list[str]:
    return [path.name for path in datasets.cache().iterdir()] if datasets.cache().exists() else []


def mistake(source: Path | None = None) -> str:
    """The sentence of a failed fetch, which must leave nothing behind."""
    with pytest.raises(QuickstudyError) as error:
        fetch_omniglot(source)
    assert cached() == []
    assert "\n" not in str(error.value)
    return str(error.value)


def test_characters_come_in_lakes_order(lake):
    data = load_omniglot(fetch_omniglot(lake))
    assert data.images.shape == (6, 2, 28, 28)
    assert data.images.dtype == np.uint8
    assert data.alphabet_names.tolist() == ["Alpha", "Zulu", "Middle"]
    assert data.alphabet.tolist() == [0, 1, 1, 2, 2, 2]
    assert data.character.tolist() == [1, 1, 2, 1, 2, 3]
    assert data.evaluation.tolist() == [False] * 3 + [True] * 3
    for c, (alphabet, number) in enumerate(zip(data.alphabet_names[data.alphabet], data.character, strict=True)):
        for d in range(2):
            png = Image.open(io.BytesIO(drawing(alphabet, number, d + 1)))
            grey = np.asarray(png.convert("L").resize((28, 28), Image.Resampling.LANCZOS))
            np.testing.assert_array_equal(data.images[c, d], 255 - grey)


def test_drawings_are_not_shrunk_by_nearest_neighbour(lake):
    """That is what Pillow does with images of one bit, whatever it is told, and all that is left then is 0 and 255."""
    images = load_omniglot(fetch_omniglot(lake)).images
    assert ((images > 0) & (images < 255)).mean() > 0.5


def test_downloading_is_one_command_and_the_second_says_so(lake, capsys):
    path = fetch_omniglot()
    assert cached() == ["omniglot28.npz"]
    written = path.stat().st_mtime_ns
    capsys.readouterr()
    assert fetch_omniglot() == path
    assert "there already" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == written


def test_a_file_made_elsewhere_is_taken_as_it_is(lake, tmp_path, monkeypatch):
    made = fetch_omniglot()
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "other"))
    assert fetch_omniglot(made).read_bytes() == made.read_bytes()
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "third"))
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    assert "lacks the array 'images'" in mistake(tmp_path / "x.npz")
    wrong = load_omniglot(made)._replace(images=np.zeros((6, 2, 105, 105), "u1"))
    np.savez(tmp_path / "large.npz", **wrong._asdict())
    assert "images (6, 2, 105, 105)" in mistake(tmp_path / "large.npz")


def test_another_file_under_the_same_name_is_refused(lake):
    archive(lake / "images_evaluation.zip", {"Other": 1})
    for source in (None, lake):
        said = mistake(source)
        assert "What came as images_evaluation.zip is not Omniglot" in said
        assert omniglot._OMNIGLOT_MD5["images_evaluation.zip"] in said


def test_without_network_it_says_what_to_do(lake):
    (lake / "images_evaluation.zip").unlink()
    said = mistake()
    assert "Could not download" in said
    assert "quickstudy data omniglot --from FOLDER" in said


def test_a_download_that_breaks_off(lake, monkeypatch):
    class Short(io.BytesIO):
        headers = {"Content-Length": "1000"}  # noqa: RUF012

    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: Short(bytes(400)))
    assert "broke off after 400 of 1000 bytes" in mistake()


def test_a_folder_that_lacks_something(lake, tmp_path):
    (lake / "images_background.zip").unlink()
    assert f"'{lake}' has no images_background.zip" in mistake(lake)
    assert "does not exist" in mistake(tmp_path / "nowhere")


def test_a_disk_that_refuses(lake, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert "the disk is full" in mistake(lake)


def test_nothing_fetched_yet(lake):
    with pytest.raises(QuickstudyError, match="'quickstudy data omniglot' fetches it"):
        load_omniglot()


def test_files_that_are_no_arrays(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.arange(1000.0))
    assert load_arrays(path, "x")["x"].shape == (1000,)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    for content in (b"", b"no archive", whole[:-40], bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(QuickstudyError, match="not a readable"):
            load_arrays(path, "x")
    np.savez(path, x=np.array([{}], object))
    with pytest.raises(QuickstudyError, match="which is not read"):
        load_arrays(path, "x")
    with pytest.raises(QuickstudyError, match="There is no file"):
        load_arrays(tmp_path / "none.npz", "x")


@pytest.mark.skipif(not omniglot._omniglot().exists(), reason="'quickstudy data omniglot' was not run")
def test_the_real_one():
    data: OmniglotImages = load_omniglot()
    assert data.images.shape == (1623, 20, 28, 28)
    assert np.bincount(data.evaluation.astype(int)).tolist() == [964, 659]
    names = data.alphabet_names.tolist()
    assert names[:30] == sorted(names[:30])
    assert names[30:] == sorted(names[30:])
    assert names[0] == "Alphabet_of_the_Magi"
    starts = np.flatnonzero(np.diff(data.alphabet, prepend=-1))
    assert (data.character[starts] == 1).all()
    assert (np.delete(np.diff(data.character.astype(int)), starts[1:] - 1) == 1).all()
    assert 0.05 < (data.images > 127).mean() < 0.2
