"""The contract's report: families that keep it, and for each point one that breaks it."""

import sys

import gymnasium
import numpy as np
import pytest

from quickstudy import Demonstration, check
from quickstudy.cli import main
from quickstudy.errors import QuickstudyError
from quickstudy.families import own as families
from quickstudy.families.classic import PointEnv, PointNavigation


class Good(PointNavigation):
    name = "good"

    def expert_policy(self, tasks):
        goals = self._goals(tasks)
        return lambda seen: goals - seen


def failed(family) -> dict[str, str]:
    return {point.name: point.said for point in check.check(family) if point.passed is False}


def test_a_good_family_keeps_every_point():
    points = check.check(Good())
    assert [point.name for point in points] == list(check.POINTS)
    assert all(point.passed for point in points), points


@pytest.mark.parametrize("name", ["point-navigation", "sinusoid"])
def test_the_classic_families_keep_it(name):
    assert failed(families.get(name)) == {}


def test_recognition_keeps_it_unless_an_example_is_in_two_splits():
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(40, 4)), 12, 0) + 0.1 * rng.normal(size=(480, 4))
    assert failed(families.from_arrays(x, np.repeat(np.arange(40), 12), name="clusters")) == {}
    x[1::12] = x[0]  # of every class
    found = failed(families.from_arrays(x, np.repeat(np.arange(40), 12), name="clusters"))
    assert "is one of split 'train' too" in found["splits share no task"]


class NoTest(Good):
    sizes = {"train": 10, "validation": 10}  # noqa: RUF012


class OtherTasks(Good):
    def task(self, split, index):
        drawn = super().task(split, index)
        drawn.parameters["goal"][0] = float(np.random.default_rng().uniform())
        return drawn


class Tuples(Good):
    def sample(self, split, rng):
        return {"goal": tuple(rng.uniform(-0.5, 0.5, 2).tolist())}


class OneTask(Good):
    def sample(self, split, rng):
        return {"goal": [0.4, 0.4]}


class WideHidden(Good):
    hidden_size = 3


class WideDemonstrations(Good):
    action_size = 3

    def demonstrate(self, tasks, count, seed):
        return super().demonstrate(tasks, count, seed)


class LongDemonstrations(Good):
    def demonstrate(self, tasks, count, seed):
        made = super().demonstrate(tasks, count, seed)
        return [
            [Demonstration(np.repeat(d.observations, 2, 0), np.repeat(d.actions, 2, 0)) for d in some] for some in made
        ]


class Company(Good):
    def demonstrate(self, tasks, count, seed):
        made = super().demonstrate(tasks, count, seed)
        return [[Demonstration(d.observations + 1e-3 * len(tasks), d.actions) for d in some] for some in made]


class SameStart(Good):
    @staticmethod
    def _starts(tasks, count, seed, purpose):
        return np.zeros((len(tasks), count, 2))


class LostEpisodes(Good):
    def run(self, tasks, episodes, policy, seed):
        found = super().run(tasks, episodes, policy, seed)
        return {name: values.mean(1) for name, values in found.items()}


class NotANumber(Good):
    def run(self, tasks, episodes, policy, seed):
        found = super().run(tasks, episodes, policy, seed)
        return {**found, "distance": np.full_like(found["success"], np.nan)}


class OtherMetric(Good):
    metric = "reward"


class FlatPolicy(Good):
    def run(self, tasks, episodes, policy, seed):
        return super().run(tasks, episodes, lambda seen: policy(seen.reshape(1, -1, 2)).reshape(seen.shape), seed)


class WeakExpert(Good):
    def expert_policy(self, tasks):
        return lambda seen: 0.1 * seen


class EasyToDoNothing(Good):
    tolerance = 2.0


class WrongEnvironment(Good):
    def make(self, task):
        env = PointEnv(task.parameters["goal"])
        env.observation_space = gymnasium.spaces.Box(-0.01, 0.01, (2,), np.float32)
        return env


class NothingHidden(Good):
    """Every task has the same goal in truth, whatever its parameters say."""

    @staticmethod
    def _goals(tasks):
        return np.full((len(tasks), 1, 2), 0.3)


class Crashes(Good):
    def hidden(self, task):
        raise ZeroDivisionError("no reason")


@pytest.mark.parametrize(
    ("family", "point", "sentence"),
    [
        (NoTest, "says what it is", "a test split; it holds train, validation"),
        (OtherTasks, "tasks are plain data", "differs from call to call"),
        (Tuples, "tasks are plain data", "use lists, not tuples"),
        (OneTask, "splits share no task", "is a task of split 'train' too"),
        (OneTask, "hidden has the stated size", "is the same for all tasks"),
        (WideHidden, "hidden has the stated size", "must be 3 finite numbers; got shape (2,)"),
        (WideDemonstrations, "demonstrations have the stated form", "has widths (2, 2); the family says (2, 3)"),
        (LongDemonstrations, "demonstrations have the stated form", "has 40 steps; the horizon is 20"),
        (Company, "demonstrations are deterministic", "depend on which other tasks are asked for"),
        (SameStart, "demonstrations start anew", "start"),
        (LostEpisodes, "every episode counts", "must be [task, episode], (6, 3); got (6,)"),
        (NotANumber, "every episode counts", "not finite"),
        (OtherMetric, "every episode counts", "must return 'reward', its metric"),
        (FlatPolicy, "a policy sees every episode", "it was shown [(1, 18, 2)]"),
        (WeakExpert, "the expert succeeds", "at least 90% is needed"),
        (EasyToDoNothing, "doing nothing does not", "Actions of zero reach 100%"),
        (WrongEnvironment, "the environment is Gymnasium's", "check_env says"),
        (NothingHidden, "the demonstration is needed", "either nothing is hidden"),
        (Crashes, "hidden has the stated size", "ZeroDivisionError: no reason (in hidden, test_check.py, line "),
    ],
)
def test_what_breaks_the_contract_is_named(family, point, sentence):
    assert sentence in failed(family()).get(point, "")


MODULE = """
from quickstudy.families.classic import PointNavigation

class Fine(PointNavigation):
    name = "fine"

class Wrong(PointNavigation):
    hidden_size = 7

something = 3

def broken():
    raise OSError("no file")
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_families.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield "my_families"
    sys.modules.pop("my_families", None)


def test_the_command(module, capsys):
    main(["check", f"{module}:Fine"])
    assert "check_env passes" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit) as stopped:
        main(["check", f"{module}:Wrong"])
    assert stopped.value.code == 1
    printed = capsys.readouterr().out
    assert "FAILED" in printed
    assert "1 of 13 points failed" in printed


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("graspin", "Did you mean 'grasping'"),
        ("no_such_module:Family", "Could not import 'no_such_module' (ModuleNotFoundError"),
        ("my_families:Fnie", "Module 'my_families' has no 'Fnie'"),
        ("my_families:something", "is no TaskFamily, nor does it give one; got int"),
        ("my_families:broken", "could not be made (OSError: no file)"),
    ],
)
def test_what_is_no_family(module, name, sentence):
    with pytest.raises(QuickstudyError) as error:
        check.load(name)
    assert sentence in str(error.value)
