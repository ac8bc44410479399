"""HDF5 files of robomimic, LIBERO and Isaac Lab."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from commands import mistake
from quickstudy import datasets, families
from quickstudy.cli import main
from quickstudy.datasets import selection
from quickstudy.errors import QuickstudyError
from quickstudy.settings import ReadingConfig
from recorded import refused

ENV = {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}}


def make(
    path: Path, demonstrations: int = 8, keys=(("robot0_eef_pos", (3,)), ("object", (10,))), env=ENV, **attrs
) -> Path:
    """As robomimic writes it; every value of demonstration i is i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs.update({"env_args": json.dumps(env), **attrs})
        for i in range(demonstrations):
            group = data.create_group(f"demo_{i}")
            group.attrs["num_samples"] = 10
            for j, (key, shape) in enumerate(keys):
                group[f"obs/{key}"] = np.full((10, *shape), i + j / 10)
                group[f"next_obs/{key}"] = np.full((10, *shape), -1.0)
            group["actions"], group["states"] = np.full((10, 7), i), np.full((10, 32), 0.5)
            group["rewards"], group["dones"] = np.zeros(10), np.arange(10) == 9
    return path


def mask(path: Path, **names) -> Path:
    with h5py.File(path, "a") as file:
        for name, some in names.items():
            file[f"mask/{name}"] = np.array([f"demo_{i}" for i in some], "S")
    return path


def test_as_robomimic_writes_it(tmp_path, capsys):
    path = mask(make(tmp_path / "low_dim_v15.hdf5", 12), train=range(10), valid=range(10, 12))
    found = datasets.load(path)
    assert (len(found), found.about.rate, found.counts) == (12, 20, {"Lift": 12})
    assert found.about.observations[:1] + found.about.observations[10:] == (
        "object.0", "robot0_eef_pos.0", "robot0_eef_pos.1", "robot0_eef_pos.2",
    )  # fmt: skip
    assert found.masks == {"train": tuple(range(10)), "valid": (10, 11)}
    assert [one.actions[0, 0] for one in found] == list(range(12))  # demo_10 comes after demo_9
    episode = list(found)[3]
    assert (episode.observations.shape, episode.actions.shape, episode.rewards.shape) == ((10, 13), (10, 7), (10,))
    assert (episode.observations[0, 0], episode.observations[0, 10]) == (3.1, 3.0)
    assert [len(datasets.load(path, ReadingConfig(mask=name))) for name in ("train", "valid")] == [10, 2]
    with pytest.raises(QuickstudyError, match="has no mask 'test'; its masks are train, valid"):
        datasets.load(path, ReadingConfig(mask="test"))
    main(["data", "inspect", str(path), "--output", str(tmp_path / "plot.png")])
    said = " ".join(capsys.readouterr().out.split())
    assert "train 10 episodes, valid 2 episodes" in said
    assert "20 steps a second" in said


def test_keys_by_name(tmp_path):
    path = make(tmp_path / "a.hdf5", keys=(("pos", (3,)), ("vel", (2,))))
    found = datasets.load(path, ReadingConfig(("vel", "states", "pos"), ("actions",)))
    assert found.about.observations[:3] == ("vel.0", "vel.1", "states.0")
    assert next(iter(found)).observations[0, [0, 2, -1]].tolist() == [0.1, 0.5, 0.0]
    with pytest.raises(QuickstudyError, match="has no 'gripper' for --observation; it has pos, vel"):
        datasets.load(path, ReadingConfig(("gripper",)))
    with pytest.raises(QuickstudyError, match="has no 'action_dict' for --action"):
        datasets.load(path, ReadingConfig(action=("action_dict",)))


def test_pictures_are_cameras_or_left_out_and_never_numbers(tmp_path, capsys):
    path = make(tmp_path / "a.hdf5", keys=(("pos", (3,)), ("turn", (3, 3)), ("depth", (24, 32)), ("view", (16, 16, 3))))
    with h5py.File(path, "a") as file:
        for group in file["data"].values():
            group["obs/front_image"] = np.full((10, 24, 32, 3), 7, np.uint8)
            group["obs/words"] = np.array([b"lift"] * 10)
    found = datasets.load(path)
    assert len(found.about.observations) == 3 + 9
    assert found.about.cameras == ("front_image",)
    assert next(found.with_images()).images["front_image"].shape == (10, 24, 32, 3)
    assert "depth, view, words are not read" in found.notes[0]
    with pytest.raises(QuickstudyError, match="'depth' is float64 of shape"):
        datasets.load(path, ReadingConfig(("pos", "depth")))
    main(["data", "convert", str(path), str(tmp_path / "made")])
    assert datasets.load(tmp_path / "made").about.cameras == ("front_image",)
    main(["data", "convert", str(path), str(tmp_path / "made.csv")])
    assert "front_image are left out" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("form", ["keys", "policy", "flat"])
def test_isaac_lab(tmp_path, form):
    path = tmp_path / "dataset.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        args = {"env_name": "Isaac-Stack-Cube-Franka-v0", "type": 2, "sim_args": {"dt": 0.01, "decimation": 5}}
        data.attrs["env_args"] = json.dumps(args)
        for i in range(3):
            group = data.create_group(f"demo_{i}")
            group.attrs.update({"num_samples": 6, "success": i != 1})
            group["actions"], group["processed_actions"] = np.full((6, 7), 0.1), np.full((6, 8), 0.2)
            group["initial_state/articulation/robot/root_pose"] = np.zeros((1, 7))
            if form == "flat":
                group["obs"] = np.full((6, 9), i)
            else:
                inside = "obs/policy" if form == "policy" else "obs"
                group[f"{inside}/joint_pos"] = np.full((6, 9), i)
                group["obs/datagen_info/object_pose/cube"] = np.zeros((6, 4, 4))
    found = datasets.load(path)
    assert found.about.rate == 20
    assert found.about.observations[0] == ("obs.0" if form == "flat" else "joint_pos.0")
    assert [one.observations.shape for one in found] == [(6, 9)] * 3
    assert [bool(one.success[-1]) for one in found] == [True, False, True]
    other = datasets.load(path, ReadingConfig(action=("processed_actions",)))
    assert next(iter(other)).actions.tolist() == [[0.2] * 8] * 6


def test_what_a_file_says_of_its_task(tmp_path):
    words = make(tmp_path / "a.hdf5", 2, problem_info=json.dumps({"language_instruction": ["open the drawer"]}))
    assert datasets.load(words).counts == {"open the drawer": 2}
    with h5py.File(words, "a") as file:
        file["data/demo_1"].attrs["ep_meta"] = json.dumps({"lang": "close the drawer"})
    assert list(datasets.load(words).tasks) == ["open the drawer", "close the drawer"]
    assert datasets.load(make(tmp_path / "plain.h5", 2, env={})).counts == {"plain": 2}


def test_a_folder_of_files_has_a_task_each(tmp_path):
    for name in ("can", "lift", "square"):
        mask(make(tmp_path / "all" / f"{name}.hdf5", 4), train=(0, 1, 2), valid=(3,))
    found = datasets.load(tmp_path / "all")
    assert found.counts == {"can": 4, "lift": 4, "square": 4}
    assert found.masks["valid"] == (3, 7, 11)
    assert selection.splits(found) is None  # each task is in both
    assert datasets.load(tmp_path / "all", ReadingConfig(mask="valid")).counts == {"can": 1, "lift": 1, "square": 1}
    make(tmp_path / "all/other.hdf5", 4, keys=(("object", (10,)), ("eef", (3,))))
    assert "all need the same: name those that all have by --observation" in refused(tmp_path / "all")
    assert len(datasets.load(tmp_path / "all", ReadingConfig(("object",)))) == 16


def test_a_family_of_a_folder_of_files(tmp_path):
    for i in range(6):
        with h5py.File(make(tmp_path / "all" / f"task {i}.hdf5", 4), "a") as file:
            for group in file["data"].values():
                group["obs/object"][...] += 10 * i
    family = families.get(str(tmp_path / "all"))
    assert (family.rate, family.observation_size, family.action_size) == (20, 13, 7)
    assert sum(family.sizes.values()) == 6
    (tmp_path / "all/task 3.hdf5").write_bytes(b"\x89HDF")
    said = [refused(tmp_path / "all")]
    with pytest.raises(QuickstudyError) as error:
        families.get(str(tmp_path / "all"))
    assert [str(error.value)] == said


def test_masks_that_part_tasks_are_splits(tmp_path):
    for i, name in enumerate(("a", "b", "c")):
        mask(make(tmp_path / "all" / f"{name}.hdf5", 4), **{"valid" if i == 2 else "train": range(4)})
    found = datasets.load(tmp_path / "all")
    assert selection.splits(found) == {"train": ["a", "b"], "validation": [], "test": ["c"]}


def spoilt(path: Path, key: str, value) -> None:
    with h5py.File(path, "a") as file:
        if key in file:
            del file[key]
        if value is not None:
            file[key] = value


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("data/demo_2/obs/object", np.zeros((9, 10)), "demo_2: 'robot0_eef_pos' has 10 steps, 'object' 9"),
        ("data/demo_2/obs/object", np.zeros((10, 9)), "demo_2: 'object' has the shape (9,); that of a step is (10,)"),
        ("data/demo_2/obs/object", None, "demo_2: 'object' is missing"),
        ("data/demo_2/actions", np.zeros((4, 7)), "demo_2: it has 10 observations and 4 actions and says num_s"),
        ("data/demo_2/obs/object", np.full((10, 10), np.nan), "demo_2: A demonstration's observations must be finite"),
        ("data", None, "is not a robomimic or Isaac Lab file"),
        ("data/demo_0/actions", None, "has no 'actions' for --action; it has"),
        ("data/demo_0/obs", None, "has no 'obs' of numbers; robomimic's dataset_states_to_obs.py makes them"),
    ],
)  # fmt: skip
def test_files_that_are_unfit(tmp_path, key, value, sentence):
    spoilt(path := make(tmp_path / "a.hdf5"), key, value)
    assert sentence in refused(path)


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ("{", "env_args is not valid JSON"),
        ("[]", "env_args says all in all []"),
        ('{"env_name": 3}', "says env_name 3"),
        ('{"env_kwargs": {"control_freq": -1}}', "says env_kwargs.control_freq -1"),
        ('{"env_kwargs": {"control_freq": "fast"}}', "says env_kwargs.control_freq 'fast'"),
        ('{"sim_args": {"dt": 0.01}}', "lacks 'sim_args.decimation'"),
    ],
)
def test_what_a_file_says_of_itself_is_checked(tmp_path, env, sentence):
    with h5py.File(path := make(tmp_path / "a.hdf5"), "a") as file:
        file["data"].attrs["env_args"] = env
    assert sentence in refused(path)


def test_damaged(tmp_path, capsys):
    path = make(tmp_path / "a.hdf5")
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no such file"):
        path.write_bytes(content)
        assert "is not a whole HDF5 file" in mistake(capsys, "data", "inspect", path)
