"""A family of a user's own demonstrations, from arrays and from a file."""

import numpy as np
import pytest

from quickstudy import Demonstration, DemonstrationSet, families
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
