"""Plain files in and out, recording, inspection and training on a user's own data, as a user meets them."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from commands import mistake
from quickstudy import Demonstration, Experiment, datasets, families
from quickstudy.cli import main
from quickstudy.datasets import About, Episode
from quickstudy.datasets.inspection import inspect
from quickstudy.errors import QuickstudyError
from quickstudy.results.evidence import Cell
from quickstudy.settings import ReadingConfig
from recorded import recordings, refused, same, walks

ABOUT = About(10.0, ("x", "y"), ("right", "up"))


@pytest.mark.parametrize("format", ["npz", "csv", "lerobot", "minari"])
@settings(max_examples=20, deadline=None)
@given(episodes=recordings())
def test_round_trip(tmp_path_factory, format, episodes):
    path = tmp_path_factory.mktemp("in and out") / f"data.{format}"
    datasets.save(path, episodes, About(12.5), format)
    found = datasets.load(path)
    timed = format != "csv" or max(map(len, episodes)) > 1  # a .csv tells its rate by time stamps
    assert found.about.rate == (12.5 if timed else None)
    assert list(found.tasks) == [episode.task for episode in episodes]
    for one, other in zip(episodes, found, strict=True):
        same(one, other)


def test_a_table_by_hand(tmp_path):
    path = tmp_path / "hand.csv"
    path.write_text(
        "task,episode,timestamp,observation.x,action.dx,success,comment\n"
        '"push, left",0,0.0,1.5,-1,0,first\n"push, left",0,0.2,2.5,-2,1,\npull,7,3.0,0.5,3,1,last\n'
    )
    found = datasets.load(path)
    assert found.about == About(5.0, ("x",), ("dx",))
    one, other = found
    assert (one.task, other.task) == ("push, left", "pull")
    assert one.observations.tolist() == [[1.5], [2.5]]
    assert other.actions.tolist() == [[3.0]]
    assert one.success.tolist() == [False, True]


def test_a_table_that_is_read_in_many_parts(tmp_path, monkeypatch):
    datasets.save(tmp_path / "a.csv", walks(), ABOUT)
    monkeypatch.setattr("quickstudy.datasets.table._BLOCK", 700)
    for one, other in zip(walks(), datasets.load(tmp_path / "a.csv"), strict=True):
        same(one, other)


HEAD = "episode,task,timestamp,observation.x,action.x\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("episode,observation.x,action.x\n0,1,1\n", "lacks the column 'task'. Each line is a step"),
        ("episode,task,action.x\n0,a,1\n", "has no column 'observation.…'"),
        ("", "lacks the column 'episode'"),
        (HEAD, "holds no episode"),
        (HEAD + "0,a,0,1,1\n0,a,0.1,,1\n", "episode 0 (from line 2): A demonstration's observations must be finite"),
        (HEAD + "0,a,0,1,1\n1,a,0.1,nan,1\n", "episode 1 (from line 3): A demonstration's observations must be finite"),
        (HEAD + "0,a,0,1,left\n", "invalid value 'left'"),
        (HEAD + "0,a,0,1\n", "Expected 5 columns, got 4"),
        (HEAD + "0,a,0,1,1\n0,a,0.1,1,1\n1,a,0,1,1\n1,a,0.2,1,1\n", "line 5: time stamp 0.2 s where 10 steps a second"),
        (HEAD + "0,a,0,1,1\n0,a,0,1,1\n", "line 3: time stamps must rise; this one and the one before are both 0 s"),
        (HEAD + "0,a,0,1,1\n1,a,0,1,1\n0,a,0.1,1,1\n", "line 4: episode 0 goes on after another one began"),
        (HEAD + "0,a,0,1,1\n0,b,0.1,1,1\n", "it has the tasks 'a' and 'b'; each episode has one"),
        (HEAD + ",a,0,1,1\n", "a line has no episode number"),
        ("episode,task,observation.x,observation.x,action.x\n0,a,1,1,1\n", "'observation.x' twice"),
    ],
)  # fmt: skip
def test_tables_that_are_unfit(tmp_path, text, sentence):
    (tmp_path / "bad.csv").write_text(text)
    assert sentence in refused(tmp_path / "bad.csv")


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"task": None}, "lacks the array 'task'; it needs observations, actions, task, and holds"),
        ({"actions": np.zeros((9, 2))}, "rise from 0 to the 9 rows of 'actions'"),
        ({"start": np.array([0, 4, 4, 8]), "task": ["a", "b", "c"]}, "rise from 0 to the 8 rows of"),
        ({"task": ["a"]}, "Got 2 episodes and the task of 1"),
        ({"observations": np.array([["a"]] * 8)}, "'observations' has shape (8, 1) of <U1"),
        ({"observations": np.zeros(8)}, "'observations' has shape (8,)"),
        ({"rate": np.array([1, 2])}, "it must be one positive number"),
        ({"observation_names": np.array(["a"])}, "There are 1 names for 2 channels of observations"),
        ({"observations": np.full((8, 2), np.inf)}, "episode 0 (from row 0): A demonstration's observations must be"),
    ],
)  # fmt: skip
def test_arrays_that_are_unfit(tmp_path, arrays, sentence):
    fit = {"observations": np.zeros((8, 2)), "actions": np.zeros((8, 2)), "start": [0, 4, 8], "task": ["a", "b"]}
    np.savez(tmp_path / "bad.npz", **{key: value for key, value in (fit | arrays).items() if value is not None})
    assert sentence in refused(tmp_path / "bad.npz")


def test_what_is_no_data_set(tmp_path, capsys):
    (tmp_path / "x").mkdir()
    sentence = "x' is not a data set that is read, which is a folder or file of demonstrations that is a LeRobotDataset"
    assert sentence in mistake(capsys, "train", f"{tmp_path}/x")
    assert sentence in mistake(capsys, "data", "inspect", f"{tmp_path}/x")
    assert "There is no" in mistake(capsys, "data", "inspect", tmp_path / "y")
    assert "There is no" in mistake(capsys, "train", tmp_path / "y.csv")
    assert "There is no" in mistake(capsys, "train", "some/where")


@pytest.mark.parametrize("format", ["lerobot", "minari", "npz", "csv"])
def test_record(tmp_path, capsys, format):
    path = tmp_path / (f"r.{format}" if format in ("npz", "csv") else "r")
    main(["record", "point-navigation", "--tasks", "3", "--demos", "2", "--split", "test", "--format", format,
          "--rate", "5", "--output", str(path)])  # fmt: skip
    assert "quickstudy data inspect" in " ".join(capsys.readouterr().out.split())
    found = datasets.load(path)
    family = families.get("point-navigation")
    tasks = family.tasks("test", 3)
    assert found.counts == {f"{task.name}: {family.caption(task)}": 2 for task in tasks}
    shown = [one for some in family.demonstrate(tasks, 2, seed=0) for one in some]
    for one, (other, _) in zip(shown, found.demonstrations(), strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.actions, other.actions)


def test_what_record_refuses(tmp_path, capsys):
    command = ["record", "point-navigation", "--output", tmp_path / "r"]
    assert "does not say them: give --rate" in mistake(capsys, *command)
    assert "got demos=0" in mistake(capsys, *command, "--rate", 5, "--demos", 0)
    assert "must be a positive number" in mistake(capsys, *command, "--rate", 0)
    assert "Unknown split of 'point-navigation' 'tests'" in mistake(capsys, *command, "--split", "tests")
    assert "must end with .csv" in mistake(capsys, *command, "--format", "csv")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "r").mkdir()
    assert "is there already" in mistake(capsys, *command, "--rate", 5)


def test_an_expert_that_fails_leaves_nothing(tmp_path, monkeypatch, capsys):
    from quickstudy.families.classic import PointNavigation

    def fail(*_: object) -> None:
        raise QuickstudyError("The expert failed.")

    monkeypatch.setattr(PointNavigation, "demonstrate", fail)
    said = mistake(capsys, "record", "point-navigation", "--rate", 5, "--output", tmp_path / "r")
    assert "The expert failed." in said
    assert list(tmp_path.iterdir()) == []


def test_inspect(tmp_path, capsys):
    spoiled = [replace(e, observations=np.concatenate([e.observations, np.ones((len(e), 1))], 1)) for e in walks()]
    spoiled[3].observations[2, 1] = np.nan
    arrays = {name: np.concatenate([getattr(e, name) for e in spoiled]) for name in ("observations", "actions")}
    start = np.concatenate([[0], np.cumsum([len(e) for e in spoiled])])
    labels = ["alone", *(e.task for e in spoiled[1:])]
    np.savez(tmp_path / "d.npz", **arrays, start=start, task=labels, rate=4.0)
    found = inspect(tmp_path / "d.npz")
    assert found.lengths.tolist() == [6, 7, 8, 9] * 5
    assert found.counts["alone"] == 1
    assert found.observations.missing.tolist() == [0, 1, 0]
    assert found.observations.constant == ["observation.2"]
    np.testing.assert_allclose(found.observations.mean, np.nanmean(arrays["observations"], 0), rtol=1e-6)
    np.testing.assert_allclose(found.observations.deviation, np.nanstd(arrays["observations"], 0), atol=1e-6)
    np.testing.assert_allclose(found.actions.low, arrays["actions"].min(0))
    main(["data", "inspect", str(tmp_path / "d.npz"), "--output", str(tmp_path / "new/plots.png")])
    said = " ".join(capsys.readouterr().out.split())
    assert "20 of 6 tasks, 1 to 4 a task" in said
    assert "150; an episode has 6 to 9, median 7.5, 1.9 s on average" in said
    assert "not finite in the observation channels observation.1 (1)" in said
    assert "observation channels observation.2 never change" in said
    assert "1 tasks have fewer than the 3 episodes that learning needs: alone" in said
    assert (tmp_path / "new/plots.png").read_bytes().startswith(b"\x89PNG")
    assert "become a .png" in mistake(capsys, "data", "inspect", tmp_path / "d.npz", "--output", tmp_path / "x.svg")


def test_inspect_looks_through_videos(tmp_path, capsys):
    datasets.save(tmp_path / "seen", walks(3, 2, images=True), ABOUT, "lerobot")
    main(["data", "inspect", str(tmp_path / "seen"), "--output", str(tmp_path / "seen.png")])
    said = capsys.readouterr().out
    assert "front 32 x 48" in said
    assert "3 of 6 episodes" not in said  # all end in success
    assert "6 of 6 episodes" in said
    (video,) = (tmp_path / "seen").glob("videos/*/*/*.mp4")
    video.write_bytes(video.read_bytes()[:500])
    assert "not a whole video" in mistake(capsys, "data", "inspect", tmp_path / "seen")


def test_inspect_leaves_the_plot_of_another_data_set_alone(tmp_path, monkeypatch, capsys):
    for place in ("a/set.csv", "b/set.csv", "a/set.npz"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        datasets.save(tmp_path / place, walks(3), ABOUT)
    monkeypatch.chdir(tmp_path)
    for place in ("a/set.csv", "b/set.csv", "a/set.npz", "b/set.csv", str(tmp_path / "a/set.csv")):
        main(["data", "inspect", place])
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "set-inspection-2.png", "set-inspection-3.png", "set-inspection.png",
    ]  # fmt: skip
    assert "set-inspection.png." in capsys.readouterr().out.split("The plots are in ")[-1]
    (tmp_path / "set-inspection.png").write_text("mine")
    main(["data", "inspect", "a/set.csv"])
    assert (tmp_path / "set-inspection.png").read_text() == "mine"


def test_inspect_tells_rate_jitter_and_units(tmp_path, capsys):
    path = tmp_path / "a set [1].csv"
    lines = [f"{e},task {e // 3},{1000 * t + 7 * (t % 2)},{t},{t}" for e in range(9) for t in range(8)]
    path.write_text("episode,task,timestamp_ms,observation.lift[mm],action.lift[mm]\n" + "\n".join(lines))
    main(["data", "inspect", str(path), "--rate", "2", "--output", str(tmp_path / "p.png")])
    said = " ".join(capsys.readouterr().out.split())
    assert " 2 steps a second " in said
    assert " unit " in said
    assert " mm " in said
    assert f"Next: quickstudy train '{path}' --rate 2" in said
    lines = [f"{e},task {e // 3},{100 * t + 3 * (t % 2)},{t},{t}" for e in range(9) for t in range(8)]
    path.write_text("episode,task,timestamp_ms,observation.lift[mm],action.lift[mm]\n" + "\n".join(lines))
    main(["data", "inspect", str(path), "--output", str(tmp_path / "p.png")])
    said = " ".join(capsys.readouterr().out.split())
    assert "10 steps a second; single steps are up to 3 ms longer" in said.replace(" │ │ │ ", " ")


@pytest.mark.parametrize("source", ["lerobot", "minari", "npz", "csv"])
@pytest.mark.parametrize("target", ["lerobot", "minari", "npz", "csv"])
def test_convert(tmp_path, capsys, source, target):
    first, second = (tmp_path / f"my data/{name}.{format}" for name, format in (("a", source), ("b", target)))
    datasets.save(first, walks(3), ABOUT, source)
    main(["data", "convert", str(first), str(second), "--format", target])
    assert f"Next: quickstudy data inspect '{second}'" in " ".join(capsys.readouterr().out.split())
    found = datasets.load(second)
    assert found.about == ABOUT
    for one, other in zip(walks(3), found, strict=True):
        same(one, other)
    assert "is there already" in mistake(capsys, "data", "convert", first, second, "--format", target)


def test_what_convert_refuses(tmp_path, capsys):
    datasets.save(tmp_path / "a.csv", walks(3), About())
    assert "give --rate" in mistake(capsys, "data", "convert", tmp_path / "a.csv", tmp_path / "b")
    assert "not written" in mistake(capsys, "data", "convert", tmp_path / "a.csv", tmp_path / "b.bag")
    assert "There is no" in mistake(capsys, "data", "convert", tmp_path / "c.csv", tmp_path / "b.npz")
    spoiled = [replace(one, observations=one.observations * np.nan) for one in walks(3)]
    rows = np.concatenate([one.observations for one in spoiled])
    start = np.cumsum([0, *map(len, spoiled)])
    np.savez(tmp_path / "n.npz", observations=rows, actions=rows * 0, start=start, task=[one.task for one in spoiled])
    assert "must be finite" in mistake(capsys, "data", "convert", tmp_path / "n.npz", tmp_path / "b.csv")
    assert not (tmp_path / "b.csv").exists()
    main(["data", "convert", str(tmp_path / "a.csv"), str(tmp_path / "b"), "--rate", "5"])
    assert datasets.load(tmp_path / "b").about.rate == 5


@pytest.mark.parametrize("format", ["npz", "csv"])
def test_a_format_is_found_by_content_where_the_ending_does_not_say(tmp_path, format):
    datasets.save(tmp_path / f"a.{format}", walks(3), ABOUT)
    (tmp_path / f"a.{format}").rename(tmp_path / "a.data")
    found = datasets.load(tmp_path / "a.data")
    assert found.format == format
    for one, other in zip(walks(3), found, strict=True):
        same(one, other)


def test_channels_of_arrays_by_name(tmp_path):
    datasets.save(tmp_path / "a.npz", walks(3), ABOUT)
    reading = ReadingConfig(observation=("y",), action=("up", "right"))
    found = datasets.load(tmp_path / "a.npz", reading)
    assert found.about == About(10.0, ("y",), ("up", "right"))
    for one, other in zip(walks(3), found, strict=True):
        np.testing.assert_array_equal(one.observations[:, 1:], other.observations)
        np.testing.assert_array_equal(one.actions[:, ::-1], other.actions)
    with pytest.raises(QuickstudyError, match="lacks the observation channel 'z'; it has x, y"):
        datasets.load(tmp_path / "a.npz", ReadingConfig(observation=("z",)))


def test_what_means_a_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").write_text("")
    places = ("some/where", "x.hdf5", "x.H5", "x.bag", "x.mcap", "x.db3", "x.csv", "x.npz", "here", ".")
    assert [name for name in places if not datasets.may_be(name)] == []
    assert [name for name in ("grasping", "ml1-push", "my_module:Family", "") if datasets.may_be(name)] == []


def test_train_on_own_data(tmp_path, capsys):
    path = tmp_path / "My walks"
    datasets.save(path, walks(10, 5), ABOUT, "lerobot")
    settings = Experiment.of(str(path)).settings
    assert (settings.data.tasks, settings.data.demonstrations, settings.data.validation_tasks) == (6, 5, 2)
    assert (settings.training.meta_batch, settings.training.queries) == (6, 2)
    run = tmp_path / "run"
    main(["train", str(path), "--output-dir", str(run), "--training.steps", "60", "--training.validate-every", "60",
          "--training.batching", "vmap"])  # fmt: skip
    main(["evaluate", str(run), "--shots", "0", "1", "2"])
    rows = Cell.read(run / "results/my-walks-test.json").rows
    assert [(row.tasks, row.episodes) for row in rows] == [(2, 2)] * 3
    assert rows[1].value < rows[0].value
    held = families.get(str(path)).tasks("test", 2)
    assert not {task.parameters["label"] for task in held} & {
        task.parameters["label"] for task in families.get(str(path)).tasks("train", 6)
    }
    one = tmp_path / "one.csv"
    datasets.save(one, (e for e in walks(10, 5) if e.task == "goal 9"), ABOUT)
    main(["adapt", str(run), "--demo", str(one), "--output", str(tmp_path / "skill.safetensors")])
    assert (tmp_path / "skill.safetensors").exists()
    assert "has 10 tasks ('goal 0', 'goal 1')" in mistake(capsys, "adapt", run, "--demo", path)
    datasets.save(tmp_path / "slow.npz", (e for e in walks(1)), About(5.0))
    assert "slow.npz' has 5 steps a second; this learner was trained at 10" in mistake(
        capsys, "adapt", run, "--demo", tmp_path / "slow.npz"
    )


@pytest.mark.parametrize("name", ["d", "d.csv"])
def test_a_label_that_only_one_episode_has(tmp_path, capsys, name):
    made = [*walks(6), replace(next(walks()), task="alone")]
    datasets.save(tmp_path / name, made, ABOUT)
    said = mistake(capsys, "train", tmp_path / name, "--output-dir", tmp_path / "run")
    assert f"{name}': Task 'alone' of 'd' has 1 demonstrations; 2 to judge by and at least one to show need 3" in said
    assert not (tmp_path / "run").exists()


def test_too_few_tasks(tmp_path, capsys):
    datasets.save(tmp_path / "d.csv", walks(2), ABOUT)
    assert "d.csv': Of 2 tasks the split 'test' gets none" in mistake(capsys, "train", tmp_path / "d.csv")


@pytest.mark.parametrize("tasks", [3, 4, 5, 6, 10, 12])
def test_no_split_is_empty(tasks):
    made = list(walks(tasks))
    family = families.from_demonstrations([e.demonstration() for e in made], [e.task for e in made])
    assert min(family.sizes.values()) >= 1
    assert sum(family.sizes.values()) == tasks


def long(count: int, steps: int = 200) -> "list[Episode]":
    """As `count` episodes of 40 + 4 channels, one after another; not kept."""
    rng = np.random.default_rng(0)
    for i in range(count):
        x = rng.normal(size=(steps, 44)).astype("f4")
        yield Episode(f"task {i % 10}", x[:, :40], x[:, 40:])


@pytest.mark.parametrize(("format", "count"), [("lerobot", 20), ("minari", 20), ("csv", 12)])
def test_memory_does_not_grow_with_the_episodes(tmp_path, monkeypatch, format, count):
    """What three times as many episodes take more is not half of what there is more of them, whatever readers fetch
    ahead; benchmarks/data_memory.py has 10,000."""
    monkeypatch.setattr("quickstudy.datasets.table._BLOCK", 1 << 14)
    for part in ("reading", "writing"):
        monkeypatch.setattr(f"quickstudy.datasets.lerobot.{part}.ROWS", 1000)
    monkeypatch.setattr("quickstudy.datasets.lerobot.writing._FILE_BYTES", 500_000)

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.{format}"
        tracemalloc.start()
        before = pa.total_allocated_bytes()
        datasets.save(path, long(count), About(10.0), format)
        arrow = max(pa.total_allocated_bytes() for _ in datasets.load(path))
        python = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return python + arrow - before

    peak(2)  # imports
    assert peak(3 * count) - peak(count) < 0.5 * 2 * count * 200 * 44 * 4


def test_a_family_of_demonstrations_adds_little_to_them():
    kept = [Demonstration(x := np.ones((2000, 20), "f4") * i, x[:, :4]) for i in range(60)]
    whole = sum(d.observations.nbytes + d.actions.nbytes for d in kept)
    tracemalloc.start()
    families.from_demonstrations(kept, [i % 6 for i in range(60)])
    assert tracemalloc.get_traced_memory()[1] < whole / 4
    tracemalloc.stop()
