"""What users of neighbouring projects reported, each with the value that is right: `pytest tests/cases` runs all."""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

import gymnasium
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from commands import mistake, quickstudy
from quickstudy import check, datasets, families
from quickstudy.datasets import About, Episode
from quickstudy.errors import QuickstudyError
from quickstudy.results.evidence import Cell

QUICK = ["--training.steps", "60", "--training.validate-every", "60"]


def table(path: Path, head: str, rows: Iterable[object], encoding: str = "utf-8") -> Path:
    path.write_text("\n".join([head, *map(str, rows)]) + "\n", encoding=encoding)
    return path


def refused(path: Path) -> str:
    """The sentence that reading this ends in."""
    with pytest.raises(QuickstudyError) as told:
        list(datasets.load(path).demonstrations())
    return str(told.value)


# scale and precision


@pytest.fixture(scope="module")
def arm(tmp_path_factory) -> Path:
    """An arm with joint targets in degrees, LeRobot's own unit for SO-100, and the same in radians."""
    home = tmp_path_factory.mktemp("arm")
    for name, scale in (("degrees", 1.0), ("radians", np.pi / 180)):
        rng, made = np.random.default_rng(0), []
        for task in range(12):
            goal = np.random.default_rng(100 + task).uniform(-60, 60, 3)
            for _ in range(5):
                now, seen, did = rng.uniform(-60, 60, 3), [], []
                for _ in range(20):
                    target = now + 0.3 * (goal - now)
                    seen.append(now)
                    did.append(target)
                    now = target + rng.normal(0, 0.3, 3)
                made.append(Episode(f"reach {task}", scale * np.array(seen), scale * np.array(did)))
        names = ("pan", "lift", "flex")
        datasets.save(home / name, made, About(30.0, names, names), "lerobot")
    return home


def test_actions_in_degrees(arm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    errors = {}
    for name in ("degrees", "radians"):
        quickstudy("train", arm / name, "--method", "maml", *QUICK, "--output-dir", name)
        quickstudy("evaluate", name)
        cell = Cell.read(tmp_path / name / f"results/{name}-test.json")
        errors[name] = min(row.value for row in cell.rows)
    assert errors["degrees"] / errors["radians"] == pytest.approx((180 / np.pi) ** 2, rel=0.25)


def test_check_on_data_set(arm):
    points = check.check(families.get(str(arm / "radians")))
    assert [point.name for point in points if point.passed is False] == []


@pytest.fixture(scope="module")
def still(tmp_path_factory) -> Path:
    """A run on demonstrations whose channel z stands still at 0.5 but for 1e-4 of noise, and one with z at 0.6."""
    home = tmp_path_factory.mktemp("still")
    rng = np.random.default_rng(0)

    def rows(tasks: Iterable[int], z: float) -> Iterable[str]:
        for number, task in enumerate(task for task in tasks for _ in range(5)):
            goal = np.random.default_rng(100 + task).uniform(-1, 1, 2)
            for x in rng.normal(size=(20, 2)):
                yield f"{number},t{task},{x[0]:.5f},{x[1]:.5f},{z + 1e-4 * rng.normal():.6f},{goal @ x:.5f}"

    head = "episode,task,observation.x,observation.y,observation.z,action.u"
    table(home / "train.csv", head, rows(range(12), 0.5))
    table(home / "one.csv", head, rows([20], 0.6))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        quickstudy("train", "train.csv", "--method", "maml", *QUICK, "--output-dir", "run")
    return home


def test_adapt_far_demonstration(still, monkeypatch, capsys):
    monkeypatch.chdir(still)
    sentence = mistake(capsys, "adapt", "run", "--demo", "one.csv")
    assert re.search(r"channel z is [\d.]+ deviations from training's mean", sentence)
    assert not list(still.rglob("skill*"))


def test_csv_world_coordinates(tmp_path):
    rows = [
        f"{e},row{e // 4},{388096.40 + e // 4 + 0.02 * i:.3f},{5572094.10 + 0.02 * i:.3f},{0.4 * (1 + e // 4):.3f}"
        for e in range(12) for i in range(20)
    ]  # fmt: skip
    path = table(tmp_path / "field.csv", "episode,task,observation.easting,observation.northing,action.v", rows)
    northing = next(datasets.load(path).demonstrations())[0].observations[:, 1]
    assert np.diff(northing) == pytest.approx(0.02, abs=1e-3)
    family = families.from_dataset(path)
    shown = family.demonstrate(family.tasks("train", 1), 1, 0)[0][0].observations[:, 1]
    assert len(np.unique(shown)) == 20


def test_images_float_255():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (360, 14, 14)), np.repeat(np.arange(30), 12)
    for array in (x.astype("u1"), (x / 255).astype("f4"), x.astype("f4"), x):
        family = families.from_arrays(array, y, ways=5)
        seen = family.encode(array[:50])  # type: ignore[attr-defined]
        assert (float(seen.min()), float(seen.max())) == pytest.approx((0, 1), abs=0.01), array.dtype


# names and order


def test_minari_namespace(tmp_path):
    for name in ("lab/door/human-v1", "lab/pen/human-v1", "lab/relocate/human-v1"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        episodes = [Episode("x", np.ones((4, 3)), np.ones((4, 2))) for _ in range(4)]
        datasets.save(tmp_path / name, episodes, About(), "minari")
    for what in ("lab", "."):
        assert sorted(datasets.load(tmp_path / what).counts.values()) == [4, 4, 4]
    two = tmp_path / "two"
    two.mkdir()
    for name, keys in (("a-v0", "xyz"), ("b-v0", "zyx")):
        values = np.tile([" xyz".index(key) for key in keys], (4, 1)).astype(float)
        about = About(None, tuple(keys), ("u", "v"))
        datasets.save(two / name, [Episode(name, values, np.ones((4, 2)))] * 4, about, "minari")
    assert all(e.observations[0].tolist() == [1, 2, 3] for e in datasets.load(two))


def lerobot(path: Path, episodes: Iterable[Episode], about: About) -> Path:
    datasets.save(path, episodes, about, "lerobot")
    return path


def change_info(root: Path, change: Callable[[dict], object]) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    change(info)
    (root / "meta/info.json").write_text(json.dumps(info))


def change_table(root: Path, pattern: str, change: Callable[[pa.Table], pa.Table]) -> None:
    for path in root.glob(pattern):
        pq.write_table(change(pq.read_table(path)), path)


def with_column(name: str, values: object) -> Callable[[pa.Table], pa.Table]:
    return lambda t: t.set_column(t.column_names.index(name), name, values)


@pytest.fixture
def named(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    made = (Episode(f"t{i // 4}", rng.normal(size=(6, 3)), rng.normal(size=(6, 2))) for i in range(12))
    return lerobot(tmp_path / "set", made, About(10.0, ("a", "b", "c"), ("u", "v")))


def test_lerobot_other_names(named):
    new = {"observation.state": "state", "action": "actions"}
    change_info(named, lambda d: d.update(features={new.get(k, k): v for k, v in d["features"].items()}))
    change_table(named, "data/*/*.parquet", lambda t: t.rename_columns([new.get(n, n) for n in t.column_names]))
    assert [(e.observations.shape[1], e.actions.shape[1]) for e in datasets.load(named)] == [(3, 2)] * 12


def test_label_spelling():
    rng = np.random.default_rng(0)
    label = "put the café cup away"
    spellings = [label, label + " ", unicodedata.normalize("NFD", label), label.capitalize(), label + "."]
    demos = [(rng.normal(size=(5, 3)), rng.normal(size=(5, 2))) for _ in range(20)]
    with pytest.raises(QuickstudyError, match="needs at least 3 tasks"):
        families.from_demonstrations(demos, [one for one in spellings for _ in range(4)])
    with pytest.raises(QuickstudyError, match="no two splits may share a task"):
        families.from_demonstrations(demos[:4] * 6, [f"t{i}" for i in range(6) for _ in range(4)])


# shape


def test_lerobot_depth_tensor(named):
    feature = {"dtype": "uint16", "shape": [24, 32, 1], "names": ["height", "width", "channel"]}
    change_info(named, lambda d: d["features"].update({"observation.images.depth": feature}))
    kind = pa.list_(pa.list_(pa.list_(pa.uint16())))
    change_table(
        named,
        "data/*/*.parquet",
        lambda t: t.append_column(
            "observation.images.depth", pa.array(np.full((len(t), 24, 32, 1), 300, "u2").tolist(), kind)
        ),
    )
    found = datasets.load(named)
    assert next(iter(found)).observations.shape[1] == 3
    assert "depth" in " ".join([*found.about.cameras, *found.notes])


class Goal(gymnasium.Env):
    """An environment of Gymnasium-Robotics' form, and what it was given."""

    given: list[np.ndarray]

    def __init__(self, goal: float = 0.5, kind: str = "dict", space: gymnasium.Space | None = None) -> None:
        self.goal, self.kind, self.given = goal, kind, []
        self.observation_space = gymnasium.spaces.Box(-9, 9, (2,), np.float64)
        if kind == "dict":
            keys = ("observation", "achieved_goal", "desired_goal")
            self.observation_space = gymnasium.spaces.Dict(dict.fromkeys(keys, self.observation_space))
        self.action_space = space or gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def _seen(self):
        x = np.full(2, 0.1 * self.t)
        whole = {"observation": x, "achieved_goal": x, "desired_goal": np.full(2, self.goal)}
        return whole if self.kind == "dict" else x

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._seen(), {}

    def step(self, action):
        self.t += 1
        self.given.append(np.array(action))
        return self._seen(), -1.0, False, self.t >= 5, {"is_success": float(self.t >= 5)}


def test_gym_dict_observation():
    goals = {"goal": (0.0, 1.0)}
    family = families.from_gymnasium(Goal, goals, expert=lambda env, x: np.zeros(2), horizon=5)
    assert family.observation_size == 4
    result = family.run(family.tasks("test", 1), 2, lambda s: np.zeros((*np.shape(s)[:2], 2)), 0)
    assert result["success"].tolist() == [[1, 1]]
    for space in (gymnasium.spaces.Discrete(3), gymnasium.spaces.MultiDiscrete([3, 2])):
        with pytest.raises(QuickstudyError, match=r"gymnasium\.wrappers\.TransformAction"):
            families.from_gymnasium(lambda goal, space=space: Goal(goal, "box", space), goals, horizon=5)


# time


@pytest.mark.parametrize(
    ("rate", "write", "jitter"),
    [(30, "{:.3f}", 0), (30, "{:.2f}", 0), (60, "{:.3f}", 0), (50, "{:.6f}", 1e-3), (100, "17{:011.3f}", 0)],
)
def test_csv_rounded_stamps(tmp_path, rate, write, jitter):
    rng = np.random.default_rng(1)
    rows = [f"{e},t,{write.format(i / rate + rng.uniform(0, 2 * jitter))},{i},0" for e in range(2) for i in range(60)]
    path = table(tmp_path / "log.csv", "episode,task,timestamp,observation.x,action.u", rows)
    assert datasets.load(path).about.rate == rate


def test_csv_stamps_in_milliseconds(tmp_path):
    rows = [f"{e},t,{10 * i},{i},0" for e in range(2) for i in range(60)]
    path = table(tmp_path / "log.csv", "episode,task,timestamp,observation.x,action.u", rows)
    assert "say their unit by --time-unit" in refused(path)


def test_lerobot_stamps(tmp_path):
    n = np.arange(60)
    stamps = {
        "going on": (n / 30, True), "epoch": (1.7e9 + n / 30, False), "late": (36000 + n / 30, True),
        "back": (np.where(n % 20 == 7, n - 2, n) / 30, False),
        "jitter": (n / 30 + np.random.default_rng(0).uniform(-0.005, 0.005, 60), False),
    }  # fmt: skip
    for name, (times, right) in stamps.items():
        episodes = [Episode("t", np.zeros((20, 2)) + i, np.zeros((20, 1)) + i) for i in range(3)]
        root = lerobot(tmp_path / name, episodes, About(30.0))
        change_table(root, "data/*/*.parquet", with_column("timestamp", pa.array(times.astype("f4"))))
        if right:
            assert len(list(datasets.load(root))) == 3
        else:
            found = re.search(r"time stamp ([\d.]+) s .* give ([\d.]+) s", refused(root))
            assert found is not None, name
            assert found[1] != found[2], name


# metadata


def three(path: Path) -> Path:
    return lerobot(path, [Episode("t", np.full((4, 2), i), np.full((4, 1), i)) for i in range(3)], About(10.0))


LISTS = "meta/episodes/*/*.parquet"


def _video(info: dict) -> None:
    info["features"]["observation.images.top"] = {"dtype": "video", "shape": [4, 4, 3], "names": None}
    info["video_path"] = None


INDEX: dict[str, tuple[bool, Callable[[Path], object]]] = {
    name: (good, lambda root, c=column, v=values: change_table(root, LISTS, with_column(c, v)))
    for name, good, column, values in (
        ("null chunk_index", False, "data/chunk_index", pa.array([0, None, 0], pa.int64())),
        ("null dataset_from_index", False, "dataset_from_index", pa.array([0, None, 8], pa.int64())),
        ("null tasks", False, "tasks", pa.array([["t"], None, ["t"]])),
        ("tasks as one text", True, "tasks", pa.array(["tidy up"] * 3)),
        ("length as float", True, "length", pa.array([4.0] * 3)),
        ("float file_index", True, "data/file_index", pa.array([0.0] * 3)),
    )
} | {
    name: (False, lambda root, c=change: change_info(root, c))
    for name, change in (
        ("template", lambda d: d.update(data_path="data/chunk-{episode_chunk:03d}/file-{file_index:03d}.parquet")),
        ("no dtype", lambda d: d["features"]["observation.state"].pop("dtype")),
        ("no shape", lambda d: d["features"]["observation.state"].pop("shape")),
        ("features as a list", lambda d: d.update(features=list(d["features"]))),
        ("fps as text", lambda d: d.update(fps="10")),
        ("video without template", _video),
    )
}


@pytest.mark.parametrize("name", INDEX)
def test_lerobot_null_index(tmp_path, name):
    good, change = INDEX[name]
    change(three(tmp_path / "set"))
    if good:
        assert [len(e) for e in datasets.load(tmp_path / "set")] == [4, 4, 4]
    else:
        assert str(tmp_path / "set") in refused(tmp_path / "set")


def test_lerobot_info_with_a_byte_order_mark(tmp_path):
    path = three(tmp_path / "set") / "meta/info.json"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert len(datasets.load(tmp_path / "set")) == 3


@pytest.mark.parametrize("gone", [0, 1])
def test_lerobot_episode_gap(tmp_path, gone):
    episodes = [Episode("t", np.full((5 + i, 2), i), np.full((5 + i, 1), i)) for i in range(3)]
    root = lerobot(tmp_path / "set", episodes, About(10.0))
    change_table(root, LISTS, lambda t: t.filter(pa.compute.not_equal(t["episode_index"], gone)))
    found = [(len(e), float(e.observations[0, 0])) for e in datasets.load(root)]
    assert found == [(5 + i, float(i)) for i in range(3) if i != gone]


def test_lerobot_chunks(tmp_path):
    (tmp_path / "Daten é 1").mkdir()
    root = lerobot(
        tmp_path / "Daten é 1/set",
        [Episode("häng' es auf", np.full((4, 2), i), np.full((4, 1), i)) for i in range(3)],
        About(10.0),
    )
    gripper = {"dtype": "float16", "shape": [1], "names": None}
    change_info(root, lambda d: d["features"].update({"observation.gripper": gripper}))
    change_info(
        root, lambda d: d["features"]["observation.state"].update(dtype="float16", names={"motors": ["m1", "m2"]})
    )
    (data,), (lists,) = root.glob("data/*/*.parquet"), root.glob(LISTS)
    rows, places = pq.read_table(data), pq.read_table(lists)
    data.unlink()
    lists.unlink()
    (root / "meta/stats.json").unlink()
    for i in range(3):
        part = rows.filter(pa.compute.equal(rows["episode_index"], i))
        state = np.array(part["observation.state"].to_pylist(), "f2")
        part = with_column("observation.state", pa.array(list(state), pa.list_(pa.float16())))(part)
        part = part.append_column("observation.gripper", pa.array(np.full(len(part), 0.5, "f2")))
        row = places.filter(pa.compute.equal(places["episode_index"], i))
        row = with_column("data/chunk_index", pa.array([i // 2]))(row)
        row = with_column("data/file_index", pa.array([i % 2]))(row)
        for folder, made in (("data", part), ("meta/episodes", row)):
            path = root / f"{folder}/chunk-{i // 2:03d}/file-{i % 2:03d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(made, path)
    found = datasets.load(root)
    assert [e.observations[0].tolist() for e in found] == [[0, 0, 0.5], [1, 1, 0.5], [2, 2, 0.5]]
    assert found.about.observations == ("state.m1", "state.m2", "gripper")


def minari(root: Path, lengths: list[tuple[int, int]], extra: dict[str, list[float]] | None = None) -> Path:
    """Episodes of so many observations and actions, with what is in their infos."""
    (root / "data").mkdir(parents=True)

    def box(n: int) -> dict[str, object]:
        return {"type": "Box", "dtype": "float64", "shape": [n], "low": [-9.0] * n, "high": [9.0] * n}

    with h5py.File(root / "data/main_data.hdf5", "w") as file:
        for i, (seen, did) in enumerate(lengths):
            group = file.create_group(f"episode_{i}")
            group.attrs.update({"id": i, "total_steps": did, "task": f"goal{i // 2}"})
            group["observations"], group["actions"] = np.arange(seen * 2.0).reshape(seen, 2), np.zeros((did, 1))
            group["rewards"] = np.zeros(did)
            group["terminations"], group["truncations"] = np.zeros(did, bool), np.zeros(did, bool)
            for key, ends in (extra or {}).items():
                group[f"infos/{key}"] = np.array([0.0] * (seen - 1) + [ends[i]])
    said = {"total_episodes": len(lengths), "data_format": "hdf5", "dataset_id": "a-v0",
            "minari_version": "0.5.3"}  # fmt: skip
    said |= {"observation_space": json.dumps(box(2)), "action_space": json.dumps(box(1))}
    (root / "data/metadata.json").write_text(json.dumps(said))
    return root


def test_minari_is_success(tmp_path):
    root = minari(tmp_path / "a-v0", [(6, 5)] * 4, {"is_success": [0, 1, 0, 1]})
    assert [bool(e.success[-1]) for e in datasets.load(root)] == [False, True, False, True]


def test_minari_short(tmp_path):
    found = datasets.load(minari(tmp_path / "a-v0", [(6, 5), (5, 5), (6, 5)]))
    assert [(len(d), d.observations[0].tolist()) for d, _ in found.demonstrations()] == [(5, [0, 1])] * 3
    assert "episode 1" in refused(minari(tmp_path / "b-v0", [(6, 5), (1, 0), (6, 5)]))
    assert "episode 1" in refused(minari(tmp_path / "c-v0", [(6, 5), (4, 5)]))


def test_csv_regional(tmp_path):
    rows = [f"{e},t{e % 3},{i}.5,0.25" for e in range(3) for i in range(3)]
    plain = "\n".join(["episode,task,observation.x,action.u", *rows]) + "\n"
    kinds = {
        "crlf": plain.replace("\n", "\r\n").encode(), "bom": plain.encode("utf-8-sig"), "utf16": plain.encode("utf-16"),
        "semicolon": plain.replace(",", ";").replace(".5", ",5").replace("0.25", "0,25").encode(),
        "tab": plain.replace(",", "\t").encode(), "blank lines": plain.replace("0,t0,1.5", "\n0,t0,1.5").encode(),
        "spaces": plain.replace(",", ", ").encode(),
    }  # fmt: skip
    for name, content in kinds.items():
        path = tmp_path / f"{name}.csv"
        path.write_bytes(content)
        assert list(datasets.load(path).demonstrations())[1][0].observations.ravel().tolist() == [0.5, 1.5, 2.5], name
    for name, content, sentence in (
        ("no task", plain.replace(",t1,", ",,"), "episode 1 .*no task"), ("nan", plain.replace("1.5", "nan"), "step 1"),
        ("empty cell", plain.replace(",1.5,", ",,"), "step 1"), ("thousands", plain.replace("2.5", '"1,002.5"'), "1,0"),
    ):  # fmt: skip
        (tmp_path / f"{name}.csv").write_text(content)
        assert re.search(sentence, refused(tmp_path / f"{name}.csv")), name
