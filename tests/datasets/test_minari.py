"""Minari data sets in and out. That Minari itself agrees is checked by `tests/peers/check.py`."""

import json
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest

from quickstudy import datasets
from quickstudy.datasets import About
from recorded import refused, same, walks

BOX = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-9.0, -9.0], "high": [9.0, 9.0]}


@pytest.fixture
def walked(tmp_path) -> Path:
    datasets.save(tmp_path / "walks", walks(), About(10.0, ("x", "y")), "minari")
    return tmp_path / "walks"


def change(folder: Path, **values) -> None:
    """Changes what metadata.json says; None takes a key away."""
    path = folder / "data/metadata.json"
    said = {key: value for key, value in (json.loads(path.read_text()) | values).items() if value is not None}
    path.write_text(json.dumps(said))


def test_what_minari_looks_for(walked):
    said = json.loads((walked / "data/metadata.json").read_text())
    assert (said["total_episodes"], said["total_steps"], said["dataset_id"]) == (20, 150, "quickstudy/walks-v0")
    assert json.loads(said["action_space"])["shape"] == [2]
    with h5py.File(walked / "data/main_data.hdf5") as file:
        group = file["episode_3"]
        assert group["observations"].shape == (10, 2)  # one more than actions
        assert group["actions"].shape == (9, 2)
        assert group["truncations"][()].tolist() == [False] * 8 + [True]
        assert dict(group.attrs) == {"id": 3, "total_steps": 9, "task": "goal 0"}


def test_parts_of_an_observation_in_alphabetical_order(tmp_path):
    """As other programs write it: a Dict, no label, no rate, and three more than what is needed."""
    (tmp_path / "a/data").mkdir(parents=True)
    space = {"type": "Dict", "subspaces": {"place": BOX, "button": {"type": "Discrete", "start": 0, "n": 3}}}
    rng = np.random.default_rng(0)
    place, button, actions = rng.normal(size=(5, 2)), rng.integers(0, 3, 5), rng.normal(size=(4, 2))
    with h5py.File(tmp_path / "a/data/main_data.hdf5", "w") as file:
        group = file.create_group("episode_0")
        group["observations/place"], group["observations/button"] = place, button
        group["actions"], group["rewards"] = actions, np.arange(4.0)
        group["terminations"], group["truncations"] = np.zeros(4, bool), np.arange(4) == 3
    said = {
        "total_episodes": 1,
        "data_format": "hdf5",
        "dataset_id": "made/a-v0",
        "observation_space": json.dumps(space),
        "action_space": json.dumps(BOX),
    }
    (tmp_path / "a/data/metadata.json").write_text(json.dumps(said))
    found = datasets.load(tmp_path / "a")
    assert found.about == About(None, ("button.0", "place.0", "place.1"), ("action.0", "action.1"))
    (episode,) = found
    assert episode.task == "made/a-v0"
    np.testing.assert_array_equal(episode.observations, np.concatenate([button[:, None], place], 1)[:4])
    assert episode.rewards.tolist() == [0, 1, 2, 3]


def test_a_folder_of_data_sets_has_a_task_each(tmp_path):
    for name in ("a", "b"):
        datasets.save(tmp_path / "all" / name, walks(1), About(10.0), "minari")
        with h5py.File(tmp_path / "all" / name / "data/main_data.hdf5", "a") as file:
            for group in file.values():
                del group.attrs["task"]
    found = datasets.load(tmp_path / "all")
    assert found.counts == {"quickstudy/a-v0": 4, "quickstudy/b-v0": 4}
    assert len(list(found.demonstrations())) == 8
    change(tmp_path / "all/b", quickstudy={"rate": 20.0})
    assert "has the frame rate 20.0" in refused(tmp_path / "all")


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_episodes_as_tables(tmp_path, kind):
    """Minari's second way: a folder an episode, actions and rewards padded by a last row."""
    folder = tmp_path / "t"
    for i, episode in enumerate(walks(2)):
        here = folder / f"data/{i}"
        here.mkdir(parents=True)
        padded = {
            "observations": np.concatenate([episode.observations, episode.observations[-1:]]),
            "actions": np.concatenate([episode.actions, np.zeros((1, 2), "f4")]),
        }
        columns = {k: pa.FixedSizeListArray.from_arrays(pa.array(v.ravel()), 2) for k, v in padded.items()}
        success = pa.StructArray.from_arrays([pa.array([False, *episode.success])], names=["success"])
        table = pa.table({**columns, "rewards": [*episode.rewards.tolist(), 0.0], "infos": success})
        for name in ("terminations", "truncations"):
            table = table.append_column(name, pa.array([False] * len(table)))
        pa.dataset.write_dataset(table, here, format=kind)
        (here / "metadata.json").write_text(json.dumps({"id": i, "task": episode.task}))
    said = {"total_episodes": 8, "data_format": kind, "dataset_id": "t-v0"}
    said |= {"observation_space": json.dumps(BOX), "action_space": json.dumps(BOX)}
    (folder / "data/metadata.json").write_text(json.dumps(said))
    for one, other in zip(walks(2), datasets.load(folder), strict=True):
        same(one, other)
    next((folder / "data/5").glob("part*")).write_bytes(b"nothing")
    assert "data', episode 5 is not whole" in refused(folder)


def test_a_truncated_file(walked):
    path = walked / "data/main_data.hdf5"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b""):
        path.write_bytes(content)
        assert "data' is not whole: it lacks some of 20 episodes" in refused(walked)
    path.unlink()
    assert "No data found" in refused(walked)


def test_an_episode_that_is_missing_or_lacks_something(walked):
    with h5py.File(walked / "data/main_data.hdf5", "a") as file:
        del file["episode_7/actions"]
    assert "episode 7 is not whole" in refused(walked)
    change(walked, total_episodes=21)
    assert "it lacks some of 21 episodes" in refused(walked)
    change(walked, total_episodes=0)
    assert "holds no episode" in refused(walked)


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("observations", np.full((8, 2), np.nan), "episode 1: A demonstration's observations must be finite; step 0"),
        (
            "observations",
            np.zeros((3, 2)),
            "episode 1: it has 3 observations, 7 actions and 7 rewards, and says 7 steps",
        ),
        ("actions", np.zeros((7, 3)), "episode 1: 'action' has the shape (3,); that of a step is (2,)"),
        ("actions", np.zeros((0, 2)), "episode 1: it has 8 observations, 0 actions and 7 rewards, and says 7 steps"),
    ],
)
def test_arrays_that_are_unfit(walked, name, values, sentence):
    with h5py.File(walked / "data/main_data.hdf5", "a") as file:
        del file[f"episode_1/{name}"]
        file[f"episode_1/{name}"] = values
    assert sentence in refused(walked)


def test_an_empty_episode(walked):
    with h5py.File(walked / "data/main_data.hdf5", "a") as file:
        for name in ("observations", "actions", "rewards", "infos/success"):
            values = file[f"episode_1/{name}"][()]
            del file[f"episode_1/{name}"]
            file[f"episode_1/{name}"] = values[:0]
        file["episode_1"].attrs["total_steps"] = 0
    assert "episode 1: A demonstration needs at least one step; got none" in refused(walked)


def test_spaces_that_are_not_numbers(walked):
    image = {
        "type": "Box",
        "dtype": "uint8",
        "shape": [64, 64, 3],
    }
    image |= {"low": np.zeros((64, 64, 3)).tolist(), "high": np.full((64, 64, 3), 255).tolist()}
    text = {"type": "Text", "max_length": 3, "min_length": 1, "charset": "abc"}
    discrete = {"type": "Discrete", "start": 0, "n": 4}
    change(walked, observation_space=json.dumps(image))
    assert "observation_space has images, 'observation' of shape (64, 64, 3); vectors are accepted" in refused(walked)
    change(walked, observation_space=json.dumps({"type": "Dict", "subspaces": {"a": text}}))
    assert (
        "observation_space has a Text, 'a'; numbers in a Box or Discrete or MultiDiscrete or MultiBinary are"
        in refused(walked)
    )
    change(walked, observation_space=json.dumps(BOX), action_space=json.dumps(discrete))
    assert "action_space has a Discrete, 'action'; numbers in a Box are accepted" in refused(walked)
    change(walked, action_space=None)
    assert "lacks 'action_space'" in refused(walked)
    change(walked, action_space=json.dumps(BOX), data_format="zarr")
    assert "says data_format 'zarr': input should be 'hdf5', 'arrow' or 'parquet'" in refused(walked)
