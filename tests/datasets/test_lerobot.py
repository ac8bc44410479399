"""LeRobotDataset v3 in and out. That LeRobot itself agrees is checked by `tests/peers/check.py`."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest

from quickstudy import datasets
from quickstudy.datasets import About, lerobot, videos
from quickstudy.errors import QuickstudyError
from quickstudy.settings import ReadingConfig
from recorded import refused, same, walks

DATA = "data/chunk-000/file-000.parquet"
LIST = "meta/episodes/chunk-000/file-000.parquet"
ABOUT = About(10.0, ("x", "y"), ("right", "up"))


@pytest.fixture
def walked(tmp_path) -> Path:
    datasets.save(tmp_path / "walks", walks(), ABOUT, "lerobot")
    return tmp_path / "walks"


def rewrite(path: Path, change) -> None:
    """Writes a parquet file anew with its columns changed."""
    table = pq.read_table(path)
    columns = {name: table[name] for name in table.column_names}
    change(columns)
    pq.write_table(pa.table(columns).replace_schema_metadata(table.schema.metadata), path)


def test_what_lerobot_looks_for(walked):
    info = json.loads((walked / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_episodes"]) == ("v3.0", 10, 20)
    assert info["total_frames"] == 5 * (6 + 7 + 8 + 9)
    assert info["features"]["observation.state"] == {"dtype": "float32", "shape": [2], "names": ["x", "y"]}
    tasks = pq.read_table(walked / "meta/tasks.parquet")
    assert tasks.to_pydict() == {"task_index": list(range(5)), "__index_level_0__": [f"goal {i}" for i in range(5)]}
    data = pq.read_table(walked / DATA).to_pydict()
    assert data["frame_index"][:8] == [0, 1, 2, 3, 4, 5, 0, 1]
    assert data["timestamp"][5] == pytest.approx(0.5)
    assert data["task_index"][-1] == 4
    listed = pq.read_table(walked / LIST).to_pydict()
    assert listed["dataset_from_index"][:3] == [0, 6, 13]
    assert listed["tasks"][-1] == ["goal 4"]


def test_statistics_are_those_of_all_steps(walked):
    """But for quantiles, of which LeRobot takes the weighted mean over episodes."""
    stats = json.loads((walked / "meta/stats.json").read_text())
    steps = np.concatenate([episode.observations for episode in walks()]).astype(float)
    for what, wanted in {"mean": steps.mean(0), "std": steps.std(0), "min": steps.min(0), "max": steps.max(0)}.items():
        np.testing.assert_allclose(stats["observation.state"][what], wanted, rtol=1e-9)
    assert stats["observation.state"]["count"] == [150]
    quantiles = [np.quantile(e.observations.astype(float), 0.1, 0) * len(e) / 150 for e in walks()]
    np.testing.assert_allclose(stats["observation.state"]["q10"], np.sum(quantiles, 0), rtol=1e-9)


def test_files_of_limited_size(tmp_path, monkeypatch):
    monkeypatch.setattr(lerobot.writing, "_FILE_BYTES", 2000)
    monkeypatch.setattr(lerobot.writing, "_FILES_IN_A_CHUNK", 3)
    datasets.save(tmp_path / "many", walks(), ABOUT, "lerobot")
    files = sorted(path.relative_to(tmp_path / "many/data") for path in (tmp_path / "many/data").glob("*/*"))
    assert len(files) >= 4
    assert str(files[3]) == "chunk-001/file-000.parquet"
    for one, other in zip(walks(), datasets.load(tmp_path / "many"), strict=True):
        same(one, other)


def test_several_features_make_one_observation(walked):
    info = json.loads((walked / "meta/info.json").read_text())
    extra = {"observation.load": {"dtype": "float64", "shape": [1], "names": None}}
    info["features"] = extra | info["features"]
    (walked / "meta/info.json").write_text(json.dumps(info))
    rewrite(walked / DATA, lambda columns: columns.update({"observation.load": pa.array(np.arange(150.0))}))
    found = datasets.load(walked)
    assert found.about.observations == ("load", "state.x", "state.y")
    second = list(found)[1]
    np.testing.assert_array_equal(second.observations[:, 0], np.arange(6, 13))
    np.testing.assert_array_equal(second.observations[:, 1:], list(walks())[1].observations)


def test_images_become_videos_and_come_back(tmp_path):
    datasets.save(tmp_path / "seen", walks(3, 2, images=True), ABOUT, "lerobot")
    found = datasets.load(tmp_path / "seen")
    assert found.about.cameras == ("front",)
    assert all(not episode.images for episode in found)  # only where they are asked for
    for one, other in zip(walks(3, 2, images=True), found.with_images(), strict=True):
        away = other.images["front"].astype(int) - one.images["front"]
        assert away.shape == (len(one), 32, 48, 3)
        assert np.abs(away).max() <= 3


def test_a_video_that_is_cut_off_or_gone(tmp_path):
    folder = tmp_path / "seen"
    datasets.save(folder, walks(3, 2, images=True), ABOUT, "lerobot")
    (video,) = folder.glob("videos/*/*/*.mp4")
    whole = video.read_bytes()
    for content, sentence in ((whole[:1000], "not a whole video|ends after"), (b"", "not a whole video")):
        video.write_bytes(content)
        with pytest.raises(QuickstudyError, match=rf"{video.name}' .*({sentence}).*fetch or record it again"):
            list(datasets.load(folder).with_images())
    video.unlink()
    with pytest.raises(QuickstudyError, match="There is no video"):
        list(datasets.load(folder).with_images())


def test_a_video_of_another_frame_rate(tmp_path):
    folder = tmp_path / "seen"
    datasets.save(folder, walks(3, 2, images=True), ABOUT, "lerobot")
    (video,) = folder.glob("videos/*/*/*.mp4")
    film = videos.Film(video, 5.0, (32, 48))
    film.add(np.zeros((39, 32, 48, 3), np.uint8))
    film.close()
    with pytest.raises(QuickstudyError, match=r"a frame at 0.2 s where 10 frames a second.*give 0.1 s"):
        list(datasets.load(folder).with_images())


def test_a_missing_column(walked):
    rewrite(walked / DATA, lambda columns: columns.pop("action"))
    assert f"'{walked / DATA}' lacks the column 'action'; it needs episode_index, observation.state" in refused(walked)
    info = json.loads((walked / "meta/info.json").read_text())
    del info["features"]["action"]
    (walked / "meta/info.json").write_text(json.dumps(info))
    assert "'observation.…' of numbers, or say which these are by --observation and --action" in refused(walked)
    del info["fps"]
    (walked / "meta/info.json").write_text(json.dumps(info))
    assert "meta/info.json' lacks 'fps'" in refused(walked)


def test_another_frame_rate(walked):
    def faster(columns):
        times = columns["timestamp"].to_numpy().copy()
        times[6:13] /= 2
        columns["timestamp"] = pa.array(times)

    rewrite(walked / DATA, faster)
    assert (
        "file-000.parquet', row 7: time stamp 0.05 s where 10 steps a second, the frame rate of the data set, give "
        "0.1 s" in refused(walked)
    )


def test_numbers_that_are_not_finite(walked):
    def spoil(columns):
        flat = columns["observation.state"].combine_chunks().flatten().to_numpy().copy()
        flat[2 * 9 + 1] = np.nan
        columns["observation.state"] = pa.FixedSizeListArray.from_arrays(pa.array(flat), 2)

    rewrite(walked / DATA, spoil)
    assert "episode 1 (from row 6): A demonstration's observations must be finite; step 3, column 1 is nan" in refused(
        walked
    )


def test_unequal_widths(walked):
    def widen(columns):
        rows = columns["action"].to_pylist()
        rows[8] = [0.0, 1.0, 2.0]
        columns["action"] = pa.array(rows, pa.list_(pa.float32()))

    rewrite(walked / DATA, widen)
    assert "row 8: 'action' has 3 numbers; all rows need 2, as meta/info.json says" in refused(walked)


def test_words_in_place_of_numbers(walked):
    rewrite(walked / DATA, lambda columns: columns.update(action=pa.array(["left"] * 150)))
    assert "column 'action' holds string; numbers are accepted" in refused(walked)


def test_an_empty_episode(walked):
    def empty(columns):
        lengths = columns["length"].to_numpy().copy()
        lengths[2] = 0
        columns["length"] = pa.array(lengths)

    rewrite(walked / LIST, empty)
    assert f"'{walked / LIST}', row 2: length is 0; a whole number of at least 1 is needed" in refused(walked)


def test_rows_that_do_not_fit_the_list(walked):
    rewrite(walked / LIST, lambda c: c.update(length=pa.array(c["length"].to_numpy() + 1)))
    assert "row 6: it is of episode 1 where the list of episodes says 0" in refused(walked)


@pytest.mark.parametrize("name", [DATA, LIST])
def test_truncated_parquet(walked, name):
    whole = (walked / name).read_bytes()
    for content in (whole[: len(whole) // 2], whole[:3], b""):
        (walked / name).write_bytes(content)
        assert f"'{walked / name}' is not a whole parquet file" in refused(walked)
    (walked / name).unlink()
    assert "There is no file" in refused(walked) or "no meta/episodes" in refused(walked)


def test_a_file_that_ends_too_early(walked):
    table = pq.read_table(walked / DATA)
    pq.write_table(table.slice(0, 140), walked / DATA)
    assert "ends within an episode, 1 rows too early" in refused(walked)


def test_an_older_version(walked):
    info = json.loads((walked / "meta/info.json").read_text())
    (walked / "meta/info.json").write_text(json.dumps({**info, "codebase_version": "v1.6"}))
    assert "says version 'v1.6'; v2.0, v2.1 and v3 are read" in refused(walked)
    (walked / "meta/info.json").write_text("{")
    assert "is not valid JSON" in refused(walked)


def test_two_tasks_in_an_episode(walked):
    def both(columns):
        tasks = columns["tasks"].to_pylist()
        tasks[4] = ["goal 1", "goal 2"]
        columns["tasks"] = pa.array(tasks)

    rewrite(walked / LIST, both)
    assert "row 4: episode 4 has the tasks ['goal 1', 'goal 2']; each episode needs exactly one" in refused(walked)


@pytest.mark.parametrize(
    ("spoiled", "sentence"),
    [
        (
            lambda e: replace(e, actions=e.actions[:, :1]),
            r"actions of width 1; the episodes before it have .* 2|have 2",
        ),
        (lambda e: replace(e, actions=e.actions * np.nan), "must be finite; step 0, column 0 is nan"),
        (lambda e: replace(e, observations=e.observations[:0], actions=e.actions[:0], rewards=None), "got none"),
        (lambda e: replace(e, rewards=e.rewards[:-1]), "rewards for"),
        (lambda e: replace(e, task=" "), "it has no task"),
        (lambda e: replace(e, success=None), "success: False"),
    ],
)
@pytest.mark.parametrize("name", ["x", "x.npz", "x.csv"])
def test_nothing_is_half_written(tmp_path, spoiled, sentence, name):
    def episodes():
        for i, episode in enumerate(walks()):
            yield spoiled(episode) if i == 13 else episode

    with pytest.raises(QuickstudyError, match=rf"an episode \(13\).*({sentence})"):
        datasets.save(tmp_path / name, episodes(), ABOUT)
    assert list(tmp_path.iterdir()) == []


def test_what_save_refuses(tmp_path, walked):
    with pytest.raises(QuickstudyError, match="needs a frame rate"):
        datasets.save(tmp_path / "x", walks(), About(), "lerobot")
    with pytest.raises(QuickstudyError, match="is there already"):
        datasets.save(walked, walks(), ABOUT)
    with pytest.raises(QuickstudyError, match="at least one episode; got none"):
        datasets.save(tmp_path / "x", [], ABOUT)
    with pytest.raises(QuickstudyError, match="There are 3 names for 2 channels of observations"):
        datasets.save(tmp_path / "x", walks(), About(10.0, ("a", "b", "c")))
    odd = (replace(e, images={"front": np.zeros((len(e), 33, 48, 3), np.uint8)}) for e in walks())
    with pytest.raises(QuickstudyError, match="an even height and width"):
        datasets.save(tmp_path / "x", odd, ABOUT)
    assert not (tmp_path / "x").exists()


def as_version_2(folder: Path, version: str = "v2.1") -> None:
    """Lays a data set of ours out as LeRobot did until version 2.1: a file for each episode, lists in lines of JSON."""
    info = json.loads((folder / "meta/info.json").read_text())
    info |= {
        "codebase_version": version,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "chunks_size": 4,
    }
    listed = pq.read_table(folder / LIST).to_pylist()
    rows, frames = pq.read_table(folder / DATA), datasets.load(folder).with_images()
    cameras = [key for key, one in info["features"].items() if one["dtype"] == "video"]
    lines = []
    for one, episode in zip(listed, frames, strict=True):
        number = one["episode_index"]
        place = folder / info["data_path"].format(episode_chunk=number // 4, episode_index=number)
        place.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows.filter(pa.compute.equal(rows["episode_index"], number)), place)
        lines.append(json.dumps({key: one[key] for key in ("episode_index", "tasks", "length")}))
        for key in cameras:
            path = folder / info["video_path"].format(episode_chunk=number // 4, video_key=key, episode_index=number)
            with_frames = videos.Film(
                path, info["fps"], episode.images[key.removeprefix("observation.images.")].shape[1:3]
            )
            with_frames.add(episode.images[key.removeprefix("observation.images.")])
            with_frames.close()
    (folder / "meta/info.json").write_text(json.dumps(info))
    (folder / "meta/episodes.jsonl").write_text("\n".join(lines) + "\n")
    (folder / DATA).unlink()
    (folder / LIST).unlink()


@pytest.mark.parametrize("version", ["v2.0", "v2.1"])
def test_version_2_is_read(walked, version):
    as_version_2(walked, version)
    found = datasets.load(walked)
    assert found.format == f"LeRobotDataset {version}"
    assert found.about == replace(ABOUT, rate=10.0)
    for one, other in zip(walks(), found, strict=True):
        same(one, other)


def test_version_2_with_videos_and_a_deleted_episode(tmp_path):
    folder = tmp_path / "seen"
    datasets.save(folder, walks(3, 2, images=True), ABOUT, "lerobot")
    before = list(datasets.load(folder).with_images())
    as_version_2(folder)
    path = folder / "meta/episodes.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:1] + lines[2:]))
    found = list(datasets.load(folder).with_images())
    assert len(found) == len(before) - 1
    for one, other in zip(before[:1] + before[2:], found, strict=True):
        away = other.images["front"].astype(int) - one.images["front"]
        assert np.abs(away).mean() < 3


def change_info(folder: Path, **changes) -> None:
    path = folder / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_feature(folder: Path, key: str, **changes) -> None:
    info = json.loads((folder / "meta/info.json").read_text())
    info["features"][key] = info["features"].get(key, {}) | changes
    (folder / "meta/info.json").write_text(json.dumps(info))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"fps": "10"}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"fps": 0}, "fps"),
        ({"fps": None}, "fps"),
        ({"fps": True}, "fps"),
        ({"codebase_version": 3}, "codebase_version"),
        ({"features": []}, "features"),
        ({"features": {}}, "features"),
        ({"features": {"action": None}}, "features.action"),
        ({"data_path": None}, "data_path"),
        ({"data_path": "../{chunk_index}/{file_index}.parquet"}, "outside of the data set"),
        ({"data_path": "/etc/passwd"}, "outside of the data set"),
        ({"data_path": "{chunk_index.__class__}"}, "the names in it must be"),
        ({"data_path": "{chunk_index:999999999d}"}, "the names in it must be"),
        ({"data_path": "data/{episode_chunk:03d}"}, "the names in it must be"),
    ],
)
def test_what_info_says_is_checked(walked, changes, sentence):
    change_info(walked, **changes)
    assert sentence in refused(walked)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dtype": None}, "dtype"),
        ({"shape": None}, "shape"),
        ({"shape": [2.5]}, "shape"),
        ({"shape": [-2]}, "shape"),
        ({"shape": [10**9]}, "shape"),
        ({"shape": [3]}, "has 2 numbers; all rows need 3"),
        ({"dtype": "string"}, "of numbers, or say which these are"),
    ],
)
def test_what_a_feature_says_is_checked(walked, change, sentence):
    change_feature(walked, "observation.state", **change)
    assert sentence in refused(walked)


@pytest.mark.parametrize(
    ("column", "values", "sentence"),
    [
        ("data/chunk_index", [None], "data/chunk_index is None"),
        ("data/file_index", [0.5], "data/file_index is 0.5"),
        ("dataset_from_index", [None], "dataset_from_index is None"),
        ("dataset_from_index", [-1], "dataset_from_index is -1"),
        ("length", [float("nan")], "length is nan"),
        ("episode_index", [1], "has episode 1 twice"),
        ("tasks", [None], "has the tasks None"),
        ("tasks", [[]], "has the tasks []"),
        ("tasks", [[None]], "has the tasks [None]"),
    ],
)
def test_what_the_list_of_episodes_says_is_checked(walked, column, values, sentence):
    def change(columns):
        columns[column] = pa.array(values + columns[column].to_pylist()[1:])

    rewrite(walked / LIST, change)
    assert sentence in refused(walked)


def test_what_is_harmless_is_read(walked):
    def change(columns):
        columns["tasks"] = pa.array([one[0] for one in columns["tasks"].to_pylist()])
        for name in ("length", "data/file_index"):
            columns[name] = pa.array([float(one) for one in columns[name].to_pylist()])

    rewrite(walked / LIST, change)
    path = walked / "meta/info.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    for one, other in zip(walks(), datasets.load(walked), strict=True):
        same(one, other)


@pytest.mark.parametrize("gone", [0, 1, 7, 19])
def test_a_deleted_episode_whose_rows_are_still_there(walked, gone):
    table = pq.read_table(walked / LIST)
    pq.write_table(table.filter(pa.compute.not_equal(table["episode_index"], gone)), walked / LIST)
    kept = [episode for i, episode in enumerate(walks()) if i != gone]
    for one, other in zip(kept, datasets.load(walked), strict=True):
        same(one, other)


def test_an_episode_that_is_longer_than_the_list_says(walked):
    rewrite(
        walked / LIST,
        lambda c: c.update(length=pa.array([one - (i == 3) for i, one in enumerate(c["length"].to_pylist())])),
    )
    assert "episode 3 goes on after" in refused(walked)


def test_features_of_other_names(walked):
    def rename(columns):
        for old, new in (("observation.state", "state"), ("action", "act")):
            columns[new] = columns.pop(old)

    rewrite(walked / DATA, rename)
    info = json.loads((walked / "meta/info.json").read_text())
    info["features"]["state"] = info["features"].pop("observation.state")
    info["features"]["act"] = info["features"].pop("action")
    (walked / "meta/info.json").write_text(json.dumps(info))
    assert "by --observation and --action" in refused(walked)
    for one, other in zip(walks(), datasets.load(walked, ReadingConfig(("state",), ("act",))), strict=True):
        same(one, other)
    joined = datasets.load(walked, ReadingConfig(("state", "act"), ("act",)))
    assert joined.about.observations == ("state.x", "state.y", "act.right", "act.up")
    for wanted, sentence in ((("wings",), "none of its features"), (("state", "state"), "twice")):
        with pytest.raises(QuickstudyError, match=sentence):
            datasets.load(walked, ReadingConfig(wanted, ("act",)))


def test_a_depth_map_kept_as_numbers_is_no_observation(walked):
    change_feature(walked, "observation.depth", dtype="uint16", shape=[24, 32, 1], names=None)
    found = datasets.load(walked)
    assert found.about.observations == ("x", "y")
    assert "observation.depth are pictures" in found.notes[0]
    with pytest.raises(QuickstudyError, match="is a picture"):
        datasets.load(walked, ReadingConfig(("depth",)))


def test_units_and_double_precision_come_back(tmp_path):
    about = replace(ABOUT, observation_units=("m", "rad"))
    far = [replace(e, observations=e.observations.astype(float) + [4.2e6, 0]) for e in walks()]
    datasets.save(tmp_path / "far", far, about, "lerobot")
    found = datasets.load(tmp_path / "far")
    assert found.about.observation_units == ("m", "rad")
    for one, other in zip(far, found, strict=True):
        np.testing.assert_allclose(other.observations, one.observations, atol=1e-8, rtol=0)
    with pytest.raises(QuickstudyError, match="double precision"):
        datasets.save(tmp_path / "mixed", [next(iter(walks())), *far], about, "lerobot")


def test_another_rate_is_resampled(walked):
    found = datasets.load(walked, ReadingConfig(rate=20.0))
    assert found.about.rate == 20.0
    for one, other in zip(walks(), found, strict=True):
        assert len(other) == 2 * len(one) - 1
        np.testing.assert_allclose(other.observations[::2], one.observations, atol=1e-5)


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
@pytest.mark.parametrize("place", ["../elsewhere/", "/tmp/elsewhere/"])
def test_files_outside_of_the_folder_are_not_read(walked, version, place):
    if version == "v2.1":
        as_version_2(walked)
    before = json.loads((walked / "meta/info.json").read_text())["data_path"]
    change_info(walked, data_path=place + before)
    with pytest.raises(QuickstudyError, match="outside of the data set"):
        list(datasets.load(walked))
