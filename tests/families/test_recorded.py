"""A family of a user's own demonstrations, from arrays and from a file."""

import unicodedata

import numpy as np
import pytest

from quickstudy import Demonstration, DemonstrationSet, datasets, families
from quickstudy.cli import main
from quickstudy.datasets import About, Episode
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import evaluate
from quickstudy.families.recorded import RecordedDemonstrations
from quickstudy.methods.demonstrations.baselines import NearestNeighbour, recorded_base


def episodes(tasks: int = 10, each: int = 5) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[str]]:
    """Walks towards a goal of each task, of different lengths."""
    rng, made, labels = np.random.default_rng(0), [], []
    for task in range(tasks):
        for i in range(each):
            x = rng.uniform(-1.0, 1.0, (8 + i, 2))
            made.append((x, task / 10 - x))
            labels.append(f"goal {task}")
    return made, labels


@pytest.fixture(scope="module")
def family() -> RecordedDemonstrations:
    return families.from_demonstrations(*episodes())


def test_every_task_is_in_one_split(family):
    assert family.sizes == {"train": 6, "validation": 2, "test": 2}
    labels = [task.parameters["label"] for split, size in family.sizes.items() for task in family.tasks(split, size)]
    assert sorted(labels) == [f"goal {i}" for i in range(10)]
    assert (family.observation_size, family.action_size, family.hidden_size, family.horizon) == (2, 2, 4, 12)
    hidden = np.stack([family.hidden(task) for task in family.tasks("train", 6)])
    assert np.isfinite(hidden).all()
    assert np.ptp(hidden, axis=0).max() > 0.1


def test_splits_may_be_named():
    names = {"train": ["goal 0", "goal 1"], "validation": ["goal 2"], "far": ["goal 9"]}
    made = families.from_demonstrations(*episodes(), splits=names)
    assert [task.parameters["label"] for task in made.tasks("far", 1)] == ["goal 9"]
    with pytest.raises(QuickstudyError, match="'goal 1' is in the splits train and far"):
        families.from_demonstrations(*episodes(), splits={**names, "far": ["goal 1"]})
    with pytest.raises(QuickstudyError, match="Unknown task in split 'far' 'goal 11'"):
        families.from_demonstrations(*episodes(), splits={**names, "far": ["goal 11"]})
    with pytest.raises(QuickstudyError, match="needs 'train', 'validation' and a test split"):
        families.from_demonstrations(*episodes(), splits={"train": ["goal 0"], "test": ["goal 1"]})


def test_the_error_by_hand(family):
    """Actions of zero are wrong by the recorded actions themselves, on demonstrations that are never shown."""
    (task,) = family.tasks("test", 1)
    shown = family.demonstrate([task], 3, seed=0)[0]
    found = family.run([task], 2, lambda seen: np.zeros((1, 2, 2)), seed=0)["error"][0]
    recorded = [Demonstration(*d) for d, label in zip(*episodes(), strict=True) if label == task.parameters["label"]]
    kept = [d for d in recorded if all(not np.array_equal(d.observations, s.observations) for s in shown)]
    assert sorted(found) == pytest.approx(sorted(float(np.square(d.actions).mean()) for d in kept), rel=1e-6)


def test_the_seed_draws_which_demonstrations_are_kept():
    names = {"train": ["goal 0"], "validation": ["goal 1"], "test": [f"goal {i}" for i in range(2, 10)]}
    made = [families.from_demonstrations(*episodes(), splits=names, seed=seed) for seed in (0, 0, 1)]
    one, again, other = (
        [{d.observations.tobytes() for d in some} for some in f.demonstrate(f.tasks("test", 8), 3, 0)] for f in made
    )
    assert one == again
    assert one != other


def test_settings_are_for_what_there_is(family):
    own = family.method_settings["demonstrations"]
    assert own["training"] == {"steps": 2000, "meta_batch": 6, "queries": 2, "validate_every": 500}
    assert own["data"] == {
        "tasks": 6, "demonstrations": 5, "validation_tasks": 2, "validation_episodes": 2,
    }  # fmt: skip
    few = families.from_demonstrations(*episodes(30, 3), queries=1, splits=(0.8, 0.0, 0.2)).method_settings
    assert few["demonstrations"]["training"]["meta_batch"] == 16
    assert few["demonstrations"]["data"] == {
        "tasks": 24, "demonstrations": 3, "validation_tasks": 1, "validation_episodes": 1,
    }  # fmt: skip


def test_learners_run_on_it(family):
    learner = NearestNeighbour(recorded_base(2), 2)
    learner.standardise(DemonstrationSet.record(family, family.tasks("train", 6), 5, seed=0).batch)
    error = evaluate(learner, family, "test", shots=[0, 1, 3], tasks=2, episodes=2).metrics["error"].mean((1, 2))
    assert error[0] > 2 * error[1] > 2 * error[2]


def test_files(tmp_path):
    made, labels = episodes()
    start = np.concatenate([[0], np.cumsum([len(x) for x, _ in made])])
    observations, actions = (np.concatenate(parts) for parts in zip(*made, strict=True))
    np.savez(tmp_path / "My demos.npz", observations=observations, actions=actions, start=start, task=labels)
    family = families.get(str(tmp_path / "My demos.npz"))
    assert (family.name, family.sizes["train"]) == ("my-demos", 6)
    same = families.from_demonstrations(made, labels, name="my-demos")
    for one, other in zip(*(f.demonstrate(f.tasks("test", 2), 2, 0) for f in (family, same)), strict=True):
        np.testing.assert_array_equal(one[0].observations, other[0].observations)
    np.savez(tmp_path / "a.npz", observations=np.zeros((4, 3, 2)), actions=np.zeros((4, 3, 1)), task=[1, 1, 2, 2])
    with pytest.raises(QuickstudyError, match=r"a.npz': Of 2 tasks the split 'test' gets none|has 2 demonstrations"):
        families.get(str(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"observations": np.zeros((4, 3, 2)), "actions": np.zeros((4, 3, 1))}, "lacks the array 'task'"),
        ({"observations": np.zeros((4, 3, 2)), "actions": np.zeros((3, 3, 1)), "task": np.arange(4)}, "4 episodes of"),
        (
            {
                "observations": np.zeros((9, 2)),
                "actions": np.zeros((9, 1)),
                "task": np.arange(2),
                "start": np.array([0, 4, 8]),
            },
            "rise from 0 to the 9 rows of",
        ),
    ],
)
def test_files_that_hold_no_demonstrations(tmp_path, arrays, sentence):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(QuickstudyError, match=rf"bad\.npz'.*{sentence}"):
        families.get(str(tmp_path / "bad.npz"))


def test_what_is_refused(family):
    made, labels = episodes()
    with pytest.raises(QuickstudyError, match="50 demonstrations and 49 tasks"):
        families.from_demonstrations(made, labels[1:])
    with pytest.raises(QuickstudyError, match="three shares"):
        families.from_demonstrations(made, labels, splits=(0.5, 0.5))
    with pytest.raises(QuickstudyError, match="has 5 demonstrations; 5 to judge by and at least one to show need 6"):
        families.from_demonstrations(made, labels, queries=5)
    with pytest.raises(QuickstudyError, match=r"widths \[\(2, 2\), \(3, 2\)\]"):
        families.from_demonstrations([*made, (np.zeros((3, 3)), np.zeros((3, 2)))], [*labels, "goal 0"])
    with pytest.raises(QuickstudyError, match="3 may be shown"):
        family.demonstrate(family.tasks("test", 1), 4, 0)
    with pytest.raises(QuickstudyError, match="of which 2 a task were kept"):
        family.run(family.tasks("test", 1), 3, lambda x: x, 0)


SPELT = [
    "put the café cup away",
    "put the café cup away ",
    "put the  café\tcup away",
    unicodedata.normalize("NFD", "put the café cup away"),
    "Put the café cup away",
    "put the café cup away.",
    "put the café\u200b\u00a0cup away",
]


def labelled(labels: list[str], each: int = 4) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[str]]:
    rng = np.random.default_rng(0)
    every = [label for label in labels for _ in range(each)]
    return [(rng.normal(size=(5, 3)), rng.normal(size=(5, 2))) for _ in every], every


def test_labels_that_are_spelt_differently_are_one_task(capsys):
    with pytest.raises(QuickstudyError, match=r"Of one task the split 'test' gets none\..* at least 3 tasks"):
        families.from_demonstrations(*labelled(SPELT))
    made = families.from_demonstrations(*labelled([*SPELT, "open", "close", "push 1.5", "push 15"]))
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("a full stop alone are one task") == 2
    assert "'Put the café cup away' ('put the café cup away')" in said
    assert sum(made.sizes.values()) == 5
    assert len(made.demonstrate(made.tasks("train", made.sizes["train"]), 4, 0)[0]) == 4
    families.from_demonstrations(*labelled(["open", "close", "push"]))
    assert capsys.readouterr().out == ""


def test_named_splits_take_any_spelling():
    made = families.from_demonstrations(
        *labelled(["Open", "close", "push"]), splits={"train": ["open."], "validation": ["CLOSE"], "test": ["push"]}
    )
    assert [task.parameters["label"] for task in made.tasks("train", 1)] == ["Open"]
    with pytest.raises(QuickstudyError, match="'Open' is in the splits train and test"):
        families.from_demonstrations(
            *labelled(["Open", "close", "push"]), splits={"train": ["open"], "validation": [], "test": ["Open", "push"]}
        )


def test_the_same_demonstrations_under_two_labels(capsys):
    made, labels = labelled([f"t{i}" for i in range(6)])
    with pytest.raises(QuickstudyError, match=r"4 demonstrations stand alike under the labels .* in the splits"):
        families.from_demonstrations(made[:4] * 6, labels)
    twice = [*made[:4], *made[:4], *made[8:]]
    apart = {"train": ["t0", "t2", "t3"], "validation": ["t4"], "test": ["t1", "t5"]}
    with pytest.raises(QuickstudyError, match="labels 't0' and 't1', which are in the splits test and train"):
        families.from_demonstrations(twice, labels, splits=apart)
    together = {"train": ["t0", "t1", "t2", "t3"], "validation": ["t4"], "test": ["t5"]}
    families.from_demonstrations(twice, labels, splits=together)
    assert "4 demonstrations stand alike under the labels 't0' and 't1'; are these one" in capsys.readouterr().out
    points = [(np.zeros((1, 1)), np.zeros((1, 1)))] * 24  # of single points, many may be equal
    assert families.from_demonstrations(points, labels).sizes["test"] == 1


@pytest.mark.parametrize("tasks", [1, 2])
def test_too_few_tasks_say_how_many_are_needed(tasks):
    with pytest.raises(QuickstudyError, match=r"needs at least 3 tasks, .*; this is 't0'"):
        families.from_demonstrations(*labelled([f"t{i}" for i in range(tasks)]))


def test_a_demonstration_without_a_task():
    with pytest.raises(QuickstudyError, match="Demonstration 4 has no task"):
        families.from_demonstrations(*labelled(["a", " ", "c"]))


def test_names_and_units_of_channels_are_kept(tmp_path):
    about = About(10.0, ("x", "y"), ("a", "b"), action_units=("deg", "deg"))
    made, labels = episodes()
    datasets.save(tmp_path / "d.npz", (Episode(t, *d) for d, t in zip(made, labels, strict=True)), about)
    family = families.from_dataset(tmp_path / "d.npz")
    assert (family.observation_channels, family.action_channels) == (("x", "y"), ("a", "b"))
    assert (family.observation_units, family.action_units, family.rate) == ((), ("deg", "deg"), 10.0)
    unnamed = families.from_demonstrations(made, labels)
    assert (unnamed.observation_channels, unnamed.action_channels, unnamed.action_units) == ((), (), ())
    with pytest.raises(QuickstudyError, match="There are 3 names for 2 channels of actions"):
        families.from_demonstrations(made, labels, about=About(actions=("a", "b", "c")))
    with pytest.raises(QuickstudyError, match="There are 1 units for 2 channels of observations"):
        families.from_demonstrations(made, labels, about=About(observation_units=("m",)))


def test_errors_in_angles_go_the_short_way_round():
    """Demonstrations that turn past 180 degrees, and a policy that says the same with another number."""
    turns = [np.arange(20)[:, None] * 5.0 + 100 + i for i in range(50)]
    wrapped = [(one + 180) % 360 - 180 for one in turns]
    about = About(actions=("wrist",), action_units=("deg",))
    family = families.from_demonstrations(
        [(one / 360, other) for one, other in zip(turns, wrapped, strict=True)], [f"t{i % 10}" for i in range(50)],
        about=about,
    )  # fmt: skip
    tasks = family.tasks("test", 2)
    assert family.run(tasks, 2, lambda seen: seen * 360 + 1, 0)["error"] == pytest.approx(1.0, rel=1e-3)
    # What an oracle sees of each task is the mean of its turns, not of numbers on either side of the jump.
    hidden = np.stack([family.hidden(task) for task in family.tasks("train", 6)])
    np.testing.assert_allclose(hidden[:, 0], hidden[:, 1], atol=1e-3)


def test_errors_in_quaternions_do_not_depend_on_their_sign():
    half = np.linspace(0.1, 0.9, 20)[:, None]
    q = np.concatenate([np.sin(half), 0 * half, 0 * half, np.cos(half)], 1)
    sign = np.where(np.random.default_rng(0).random((50, 20, 1)) < 0.5, -1.0, 1.0)
    family = families.from_demonstrations(
        [(half + i, one * q) for i, one in enumerate(sign)], [i % 10 for i in range(50)]
    )

    def rotation(seen: np.ndarray) -> np.ndarray:
        return np.concatenate([np.sin(seen % 1), 0 * seen, 0 * seen, np.cos(seen % 1)], -1)

    error = family.run(family.tasks("test", 2), 2, rotation, 0)["error"]
    np.testing.assert_allclose(error, 0, atol=1e-10)
    hidden = np.stack([family.hidden(task) for task in family.tasks("train", 6)])
    np.testing.assert_allclose(np.ptp(hidden[:, 1:], axis=0), 0, atol=1e-3)


def test_positions_on_earth_reach_the_learner(tmp_path):
    with (tmp_path / "field.csv").open("w") as file:
        file.write("episode,task,observation.n,action.v\n")
        for e in range(12):
            file.writelines(f"{e},row{e // 3},{5572094.10 + e + 0.02 * i:.3f},{e // 3}\n" for i in range(20))
    family = families.get(str(tmp_path / "field.csv"))
    ((one,),) = family.demonstrate(family.tasks("train", 1), 1, 0)
    np.testing.assert_allclose(np.diff(one.observations[:, 0]), 0.02, atol=1e-3)
    seen: list[np.ndarray] = []
    family.run(family.tasks("test", 1), 1, lambda x: (seen.append(x), np.zeros((1, 1, 1)))[1], 0)
    np.testing.assert_allclose(np.diff(np.ravel(seen)), 0.02, atol=1e-3)


@pytest.mark.parametrize("scale", [1.0, 180 / np.pi, 1e6], ids=["rad", "deg", "large"])
def test_the_check_finds_no_fault_in_recordings(tmp_path, capsys, scale):
    made, labels = episodes(12)
    every = (Episode(label, scale * x, scale * y) for (x, y), label in zip(made, labels, strict=True))
    datasets.save(tmp_path / "own.npz", every, About(30.0))
    main(["check", str(tmp_path / "own.npz")])
    assert "FAILED" not in capsys.readouterr().out
