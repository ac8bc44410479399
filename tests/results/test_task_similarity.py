"""The command `match`: it ranks a run's tasks, keeps the twins, and learns from the most similar task's skill."""

import numpy as np
import pytest
import torch

from commands import quickstudy
from linear import CHANGES, demonstration, write_csv
from quickstudy.data import DemonstrationSet
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.experiment import Experiment
from quickstudy.families.classic import PointNavigation
from quickstudy.learner import BaseLearner
from quickstudy.methods.demonstrations.baselines import FineTuneConfig, Transfer
from quickstudy.methods.demonstrations.task_similarity import calibrate, starting_skills, train_matcher
from quickstudy.nets import MLP
from quickstudy.results.runs import load
from quickstudy.results.task_similarity import TaskMatch, compare_starts, match_run

FAMILY = PointNavigation()


def test_starts_are_compared_on_the_family():
    known = DemonstrationSet.record(FAMILY, FAMILY.tasks("train", 6), 2, seed=0)
    tasks = FAMILY.tasks("validation", 3)
    support = DemonstrationSet.record(FAMILY, tasks, 1, seed=3).batch
    torch.manual_seed(0)
    learner = Transfer(BaseLearner(MLP(2, 2, (8,)), 2), FineTuneConfig(7, 1e-2))
    starts = starting_skills(learner, train_matcher(known, steps=2), known, support, FineTuneConfig(2))
    configs = {(start, k): FineTuneConfig(k, 1e-2) for start in starts for k in (0, 2)}
    figures = compare_starts(learner, FAMILY, tasks, support, starts, configs, episodes=2)
    assert figures.keys() == configs.keys()
    assert all(values.shape == (3,) for values in figures.values())


def run_of(folder, method: str, algorithm: dict) -> None:
    changes = {
        "network": {"hidden": (8,), "context": 0, "embedding": 4},
        "algorithm": algorithm,
        "training": {"steps": 2, "meta_batch": 4, "batching": "vmap"},
        "data": {"tasks": 12, "demonstrations": 4, "validation_tasks": 2, "validation_episodes": 1},
    }
    Experiment.of("point-navigation", method, changes=changes).train(folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    FAMILY.demonstrate(FAMILY.tasks("test", 1), 1, seed=0)[0][0].save(folder / "it.npz")
    run_of(folder / "transfer", "transfer", {"steps": 10})
    run_of(folder / "maml", "maml", {})
    return folder


def test_a_run_ranks_its_tasks_and_keeps_the_skill_and_the_matcher(runs):
    found = match_run(runs / "transfer", [runs / "it.npz"])
    assert len(found.ranking) == 12
    assert {task.split for task, _, _ in found.ranking} == {"train"}
    assert found.ranking[0][2].startswith("goal ")
    assert found.skill is not None
    assert found.skill.is_file()
    assert found.after < found.before
    assert found.after < found.without
    assert found.start == found.ranking[0][0].name
    before = (runs / "transfer/matcher/model.safetensors").stat().st_mtime_ns
    again = match_run(runs / "transfer", [runs / "it.npz"], output=runs / "elsewhere.safetensors")
    assert again.ranking == found.ranking
    assert again.skill == runs / "elsewhere.safetensors"
    assert again.skill.read_bytes() == found.skill.read_bytes()
    assert (runs / "transfer/matcher/model.safetensors").stat().st_mtime_ns == before


def test_a_run_of_another_method_ranks_and_borrows_the_skills(runs):
    assert match_run(runs / "maml", [runs / "it.npz"]).skill is None
    found = match_run(runs / "maml", [runs / "it.npz"], runs / "transfer")
    assert found.skill == runs / "maml/matched-skill.safetensors"


def test_mistakes_are_told(runs):
    Demonstration(np.zeros((4, 3)), np.zeros((4, 2))).save(runs / "wide.npz")
    with pytest.raises(QuickstudyError, match="are 3 and 2 wide"):
        match_run(runs / "transfer", [runs / "wide.npz"])
    with pytest.raises(QuickstudyError, match="is a run of 'maml'; a skill starts from one of 'transfer'"):
        match_run(runs / "transfer", [runs / "it.npz"], runs / "maml")
    with pytest.raises(QuickstudyError, match="There is no file"):
        match_run(runs / "transfer", [runs / "none.npz"])
    with pytest.raises(QuickstudyError, match="at least one demonstration"):
        match_run(runs / "transfer", [])
    with pytest.raises(QuickstudyError, match="not a run folder"):
        match_run(runs, [runs / "it.npz"])


def placed(task: int, seed: int) -> Demonstration:
    """One whose task shows in where x and y are."""
    one, place = demonstration(task, seed), 3 * np.random.default_rng(100 + task).uniform(-1, 1, 2)
    return Demonstration(one.observations * [0.1, 0.1, 1.0] + [*place, 0.0], one.actions)


def test_a_task_that_is_none_of_the_known_ones_is_called_that(tmp_path, capsys):
    every = [(f"t{task}", placed(task, seed)) for task in range(20) for seed in range(5)]
    training = write_csv(tmp_path / "train.csv", every)
    Experiment.of(str(training), "transfer", changes=CHANGES).train(tmp_path / "run")
    experiment, _ = load(tmp_path / "run")
    labels = {
        split: [task.parameters["label"] for task in experiment.family.tasks(split, size)]
        for split, size in experiment.family.sizes.items()
    }
    taken: dict[str, int] = {}
    for split in ("train", "test"):
        for label in labels[split][:4]:
            new = write_csv(tmp_path / "new.csv", [("t", placed(int(label[1:]), 77))])
            found = match_run(tmp_path / "run", [new])
            assert found.calibration.unknown == 4
            taken[split] = taken.get(split, 0) + (found.ranking[0][2] == label and found.is_known)
            kind = (
                "It is a known task, train/train/" if found.is_known else "It is none of the known tasks; train/train/"
            )
            assert found.verdict.startswith(kind)
    assert taken["train"] >= 3
    assert taken["test"] == 0
    quickstudy("match", tmp_path / "run", tmp_path / "new.csv")
    said = " ".join(capsys.readouterr().out.split())
    assert "by this rule 0 % of 4 validation tasks would be taken for a known one" in said


def test_what_matching_cannot_tell_is_not_told():
    known, unknown = torch.tensor([4.0, 5.0, 6.0]), torch.tensor([-3.0, -2.0, -4.0])
    apart = calibrate(known, unknown)
    assert -2.0 < apart.threshold < 4.0
    assert (apart.taken, apart.missed, apart.known, apart.unknown) == (0.0, 0.0, 3, 3)
    mixed = calibrate(torch.arange(-10.0, 10.0), torch.arange(-9.0, 11.0))
    assert mixed.threshold >= 9.0, "an unknown task is rarely taken for a known one, whatever that costs"
    assert mixed.missed > 0.9
    match = TaskMatch([(FAMILY.task("train", 0), 0.99, "goal")], None)
    assert match.is_known is None
    assert "cannot be told" in match.verdict
