"""Minari data sets in and out, in the three ways that Minari keeps them."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest
from gymnasium import spaces
from minari import MinariDataset
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from quickstudy import datasets
from quickstudy.datasets import About, Episode
from quickstudy.errors import QuickstudyError
from quickstudy.settings import ReadingConfig
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
        assert "main_data.hdf5' is not a whole HDF5 file" in refused(walked)
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


def box(*shape: int, dtype: str = "float64") -> dict:
    low, high = (0, 255) if dtype == "uint8" else (-9.0, 9.0)
    return {
        "type": "Box",
        "dtype": dtype,
        "shape": list(shape),
        "low": np.full(shape, low).tolist(),
        "high": np.full(shape, high).tolist(),
    }


def made(folder: Path, observations, space, steps=(5, 5), infos=None, **said) -> Path:
    """As other programs write it: `observations` and `infos` are functions of the episode's number and its steps."""
    (folder / "data").mkdir(parents=True)
    with h5py.File(folder / "data/main_data.hdf5", "w") as file:
        for i, count in enumerate(steps):
            group = file.create_group(f"episode_{i}")
            group.attrs.update({"id": i, "total_steps": count})
            seen = observations(i, count)
            for key, values in (seen if isinstance(seen, dict) else {"": seen}).items():
                group[f"observations/{key}" if key else "observations"] = values
            group["actions"], group["rewards"] = np.full((count, 2), i, "f4"), np.zeros(count)
            group["terminations"], group["truncations"] = np.zeros(count, bool), np.arange(count) == count - 1
            for key, values in (infos(i, count) if infos else {}).items():
                group[f"infos/{key}"] = values
    metadata = {
        "total_episodes": len(steps),
        "data_format": "hdf5",
        "dataset_id": f"made/{folder.name}-v0",
        "observation_space": json.dumps(space),
        "action_space": json.dumps(BOX),
    }
    (folder / "data/metadata.json").write_text(json.dumps(metadata | said))
    return folder


def test_name_spaces(tmp_path, monkeypatch):
    for name in ("lab/door/human-v1", "lab/pen/human-v1", "lab/deep/er/relocate/human-v1"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        datasets.save(tmp_path / name, (one for one in walks(1)), About(), "minari")
    assert datasets.load(tmp_path / "lab/door").counts == {"goal 0": 4}
    found = datasets.load(tmp_path / "lab")
    assert found.counts == {"door/human-v1": 4, "pen/human-v1": 4, "deep/er/relocate/human-v1": 4}
    assert "the place of each part is its task" in found.notes[0]
    assert [episode.task for episode in found] == list(found.tasks)
    monkeypatch.chdir(tmp_path / "lab")
    assert datasets.load(Path(".")).counts == found.counts


def test_sets_of_one_folder_keep_their_tasks(tmp_path):
    """Two sessions with the same tasks are not twice as many tasks."""
    for name in ("monday", "tuesday"):
        datasets.save(tmp_path / name, walks(3), About(), "minari")
    assert datasets.load(tmp_path).counts == {f"goal {i}": 8 for i in range(3)}


def placed(names: str, units: tuple[str, ...] = ()) -> tuple:
    """Episodes whose channel x is 1, y 2 and z 3, and what they have in common."""
    row = [{"x": 1.0, "y": 2.0, "z": 3.0, "w": 4.0}[name] for name in names]
    episode = Episode(f"task {names}", np.tile(row, (4, 1)), np.tile(row[:2], (4, 1)))
    return [episode], About(None, tuple(names), tuple(names[:2]), observation_units=units)


def test_joined_sets_agree_by_the_names_of_their_channels(tmp_path):
    for folder, names in (("a", "xyz"), ("b", "zyx"), ("c", "yxz")):
        episodes, about = placed(names)
        datasets.save(tmp_path / "all" / folder, episodes, About(None, about.observations, about.actions), "minari")
    with pytest.raises(QuickstudyError, match=r"/b/data' has the action channels z, y, .*/a/data' x, y; all need the"):
        datasets.load(tmp_path / "all")
    shutil.rmtree(tmp_path / "all/b")
    found = datasets.load(tmp_path / "all")
    assert found.about.observations == ("x", "y", "z")
    for episode in found:
        assert episode.observations[0].tolist() == [1, 2, 3]
        assert episode.actions[0].tolist() == [1, 2]


@pytest.mark.parametrize("names", ["xyzw", "xyw", "xy"])
def test_joined_sets_with_other_channels_are_refused(tmp_path, names):
    for folder, some in (("a", "xyz"), ("b", names)):
        datasets.save(tmp_path / folder, *placed(some), "minari")
    assert "has the observation channels x, y" in refused(tmp_path)


def test_joined_sets_in_other_units_are_refused(tmp_path):
    for folder, unit in (("a", "rad"), ("b", "deg")):
        datasets.save(tmp_path / folder, *placed("xyz", (unit, unit, "m")), "minari")
    assert datasets.load(tmp_path / "a").about.observation_units == ("rad", "rad", "m")
    assert "has the observation units deg, deg, m" in refused(tmp_path)


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("key", ["success", "is_success"])
def test_success_under_both_names(tmp_path, key, extra):
    def infos(i, steps):
        return {key: np.append(np.ones(extra), np.arange(steps) == steps - 1 if i else np.zeros(steps)).astype("f4")}

    folder = made(tmp_path / "a", lambda i, steps: np.zeros((steps + 1, 2)), box(2), infos=infos)
    assert [one.success.tolist() for one in datasets.load(folder)] == [[False] * 5, [False] * 4 + [True]]


@pytest.mark.parametrize("values", [np.zeros(3), np.full(5, np.nan)])
def test_success_that_fits_no_step_is_refused(tmp_path, values):
    folder = made(tmp_path / "a", lambda i, steps: np.zeros((steps, 2)), box(2), infos=lambda i, n: {"success": values})
    assert "its success has" in refused(folder)


def test_as_many_observations_as_actions_or_one_more(tmp_path):
    def observations(i, steps):
        return np.arange((steps + (i != 1)) * 2.0).reshape(-1, 2)

    found = datasets.load(made(tmp_path / "a", observations, box(2), steps=(5, 5, 5)))
    assert [(len(one), one.observations[0].tolist()) for one in found] == [(5, [0.0, 1.0])] * 3
    empty = made(tmp_path / "b", lambda i, steps: np.zeros((steps + 1, 2)), box(2), steps=(5, 0, 5))
    assert "episode 1: A demonstration needs at least one step" in refused(empty)
    short = made(tmp_path / "c", lambda i, steps: np.zeros((steps - i, 2)), box(2))
    assert "episode 1: it has 4 observations, 5 actions" in refused(short)
    with h5py.File(tmp_path / "a/data/main_data.hdf5", "a") as file:
        file["episode_2"].attrs["total_steps"] = 9
    assert "episode 2: it has 6 observations, 5 actions and 5 rewards, and says 9 steps" in refused(tmp_path / "a")


PICTURES = {
    "depth": box(24, 32),
    "float picture": box(16, 16, 3),
    "channels first": box(3, 16, 16),
    "bytes": box(4, 4, dtype="uint8"),
    "front_rgb": box(4, 4, 3),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_never_become_numbers(tmp_path, name):
    space, shape = PICTURES[name], PICTURES[name]["shape"]
    alone = made(tmp_path / "a", lambda i, n: np.zeros((n + 1, *shape)), space)
    if name != "front_rgb":  # it tells a picture from a stack by its name alone
        assert "has images, 'observation' of shape" in refused(alone)
    both = {"type": "Dict", "subspaces": {"place": box(3), "turn": box(3, 3), name: space}}

    def observations(i, n):
        return {"place": np.full((n + 1, 3), i), "turn": np.ones((n + 1, 3, 3)), name: np.zeros((n + 1, *shape))}

    beside = made(tmp_path / "b", observations, both)
    found = datasets.load(beside)
    assert found.about.observations == (*(f"place.{i}" for i in range(3)), *(f"turn.{i}" for i in range(9)))
    assert [one.observations[0, 0] for one in found] == [0, 1]
    assert f"the observation's {name} are images that are not read" in found.notes[0]
    with pytest.raises(QuickstudyError, match="has images"):
        datasets.load(beside, ReadingConfig(observation=("place", name)))


def test_a_camera_is_one(tmp_path):
    space = {"type": "Dict", "subspaces": {"place": box(3), "front": box(24, 32, 3, dtype="uint8")}}

    def observations(i, n):
        return {"place": np.full((n + 1, 3), i), "front": np.full((n + 1, 24, 32, 3), 9, np.uint8)}

    found = datasets.load(made(tmp_path / "a", observations, space))
    assert (found.about.cameras, len(found.about.observations)) == (("front",), 3)
    assert next(found.with_images()).images["front"].shape == (5, 24, 32, 3)
    assert next(iter(found)).images == {}


def test_keys_by_name_and_within_each_other(tmp_path):
    inner = {"type": "Dict", "subspaces": {"kettle": box(2), "light": box(1)}}
    space = {"type": "Dict", "subspaces": {"goal": inner, "met": inner, "state": box(3)}}

    def observations(i, n):
        values = {"goal/kettle": (2, 1.0), "goal/light": (1, 2.0), "met/kettle": (2, 3.0), "met/light": (1, 4.0)}
        return {key: np.full((n + 1, width), value) for key, (width, value) in values.items()} | {
            "state": np.zeros((n + 1, 3))
        }

    folder = made(tmp_path / "a", observations, space)
    assert len(set(datasets.load(folder).about.observations)) == 9
    found = datasets.load(folder, ReadingConfig(observation=("state", "met.light", "goal")))
    assert found.about.observations[3:] == ("met.light.0", "goal.kettle.0", "goal.kettle.1", "goal.light.0")
    assert next(iter(found)).observations[0].tolist() == [0, 0, 0, 4, 1, 1, 2]
    with pytest.raises(QuickstudyError, match=r"has no 'pan' for --observation; it has goal\.kettle, goal\.light"):
        datasets.load(folder, ReadingConfig(observation=("pan",)))


def test_another_rate(walked):
    found = datasets.load(walked, ReadingConfig(rate=5.0))
    assert found.about.rate == 5
    assert [len(one) for one in found][:4] == [3, 4, 4, 5]
    datasets.save(walked.parent / "untimed", walks(1), About(), "minari")
    assert datasets.load(walked.parent / "untimed", ReadingConfig(rate=5.0)).about.rate == 5


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"total_episodes": -3}, "says total_episodes -3"),
        ({"total_episodes": "many"}, "says total_episodes 'many'"),
        ({"total_episodes": 2.5}, "says total_episodes 2.5"),
        ({"total_episodes": [20]}, "says total_episodes [20]"),
        ({"dataset_id": None}, "lacks 'dataset_id'"),
        ({"dataset_id": 7}, "says dataset_id 7"),
        ({"observation_space": 5}, "says observation_space 5"),
        ({"observation_space": "{"}, "has a space that Minari does not read"),
        ({"observation_space": "[]"}, "has a space that Minari does not read"),
        ({"observation_space": '{"type": "Ball"}'}, "has a space that Minari does not read"),
        ({"observation_space": '{"type": "Box", "dtype": "float32", "shape": [2]}'}, "has a space that Minari does"),
        ({"quickstudy": {"rate": -1}}, "says quickstudy.rate -1"),
        ({"quickstudy": {"observations": ["x"]}}, "There are 1 names for 2 channels of observations"),
        ({"quickstudy": ["rate"]}, "says quickstudy ['rate']"),
    ],
)
def test_what_a_data_set_says_of_itself_is_checked(walked, values, sentence):
    change(walked, **values)
    assert sentence in refused(walked)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "data/metadata.json'."),
        (b"{", "metadata.json' is not valid JSON"),
        (b"\xff\xfe", "metadata.json' is not a readable JSON file (UnicodeDecodeError"),
        (b"[]", "metadata.json' says all in all []"),
        (b"{}", "lacks 'total_episodes'"),
    ],
)
def test_metadata_that_is_damaged(walked, content, sentence):
    path = walked / "data/metadata.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert sentence in refused(walked)


def test_an_id_is_not_numbered_twice(tmp_path):
    datasets.save(tmp_path / "walks-v3", walks(1), About(), "minari")
    assert json.loads((tmp_path / "walks-v3/data/metadata.json").read_text())["dataset_id"] == "quickstudy/walks-v3"


def test_minari_reads_what_was_written(walked):
    data = MinariDataset(walked / "data")
    read, written = list(data.iterate_episodes()), list(walks())
    assert (data.total_episodes, data.total_steps) == (20, 150)
    assert [one["task"] for one in data.storage.get_episode_metadata(range(20))] == [one.task for one in written]
    for one, other in zip(read, written, strict=True):
        np.testing.assert_array_equal(one.observations[:-1], other.observations)
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_array_equal(one.rewards, np.asarray(other.rewards, float))
        np.testing.assert_array_equal(one.infos["success"][1:], other.success)


@pytest.mark.parametrize("kind", ["hdf5", "arrow", "parquet"])
def test_what_minari_writes_is_read(tmp_path, kind):
    parts = {"place": spaces.Box(-9, 9, (3,), np.float32), "button": spaces.Box(-9, 9, (1,), np.float64)}
    (tmp_path / "a").mkdir()
    storage = MinariStorage.new(
        tmp_path / "a/data", spaces.Dict(parts), spaces.Box(-1, 1, (2,), np.float32), data_format=kind
    )
    rng, kept = np.random.default_rng(0), []
    for number in range(5):
        steps = 4 + number
        seen = {"place": rng.normal(size=(steps + 1, 3)).astype("f4"), "button": rng.normal(size=(steps + 1, 1))}
        actions, rewards, ends = rng.uniform(-1, 1, (steps, 2)).astype("f4"), rng.normal(size=steps), np.arange(steps)
        infos = {"is_success": np.append(False, ends == steps - 1)}
        storage.update_episodes(
            [EpisodeBuffer(number, None, None, seen, actions, rewards, ends < 0, ends == steps - 1, infos)]
        )
        kept.append((np.concatenate([seen["button"], seen["place"]], 1)[:-1], actions, rewards))
    storage.update_episode_metadata([{"task": f"task {number % 2}"} for number in range(5)])
    storage.update_metadata({"dataset_id": "made/up-v0", "minari_version": "0.5.4"})
    found = datasets.load(tmp_path / "a")
    assert list(found.tasks) == [f"task {number % 2}" for number in range(5)]
    for episode, (observations, actions, rewards) in zip(found, kept, strict=True):
        np.testing.assert_array_equal(episode.observations, observations)
        np.testing.assert_array_equal(episode.actions, actions)
        np.testing.assert_array_equal(episode.rewards, rewards)
        assert episode.success.tolist() == [False] * (len(episode) - 1) + [True]


def test_a_long_episode_of_a_table(tmp_path):
    """Minari 0.5.4 itself takes the first 131,072 steps and says nothing."""
    (tmp_path / "a").mkdir()
    one = spaces.Box(-1, 1, (1,), np.float32)
    storage = MinariStorage.new(tmp_path / "a/data", one, one, data_format="arrow")
    steps = 140_000
    values, never = np.arange(steps + 1, dtype="f4")[:, None], np.zeros(steps, bool)
    storage.update_episodes([EpisodeBuffer(0, None, None, values, values[:-1], np.zeros(steps), never, never)])
    storage.update_metadata({"dataset_id": "made/long-v0"})
    (episode,) = datasets.load(tmp_path / "a")
    np.testing.assert_array_equal(episode.actions[:, 0], np.arange(steps))


def test_a_camera_in_a_table(tmp_path):
    (tmp_path / "a").mkdir()
    seen = spaces.Dict(
        {"front": spaces.Box(0, 255, (32, 48, 3), np.uint8), "pair": spaces.Tuple([spaces.Box(-1, 1, (2,))] * 2)}
    )
    storage = MinariStorage.new(tmp_path / "a/data", seen, spaces.Box(-1, 1, (1,)), data_format="parquet")
    values = {"front": np.full((6, 32, 48, 3), 200, np.uint8), "pair": (np.zeros((6, 2), "f4"), np.ones((6, 2), "f4"))}
    never = np.zeros(5, bool)
    storage.update_episodes([EpisodeBuffer(0, None, None, values, np.zeros((5, 1), "f4"), np.zeros(5), never, never)])
    storage.update_metadata({"dataset_id": "made/seen-v0"})
    found = datasets.load(tmp_path / "a")
    assert found.about.observations == ("pair.0.0", "pair.0.1", "pair.1.0", "pair.1.1")
    (episode,) = found.with_images()
    assert episode.observations[0].tolist() == [0, 0, 1, 1]
    assert np.abs(episode.images["front"].astype(int) - 200).max() < 5
