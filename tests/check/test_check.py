"""The contract of a family: for each point a family that breaks it, and what does not apply."""

from collections.abc import Sequence

import gymnasium
import numpy as np
import pytest

from quickstudy import Demonstration, TaskFamily, check
from quickstudy.check import environments, families
from quickstudy.errors import QuickstudyError
from quickstudy.families.classic import PointNavigation, Sinusoid
from quickstudy.families.classic.point_navigation import PointVectorEnv
from quickstudy.families.half_cheetah import CheetahDirection
from quickstudy.families.navigation2d import Navigation2D
from quickstudy.task import Symmetry


class Good(PointNavigation):
    """Its environments are of the class `environment`."""

    name = "good"
    environment: type[PointVectorEnv] = PointVectorEnv

    def vector_env(self, tasks, episodes_per_task, *, demonstrating=False, visual=False):
        return self.environment([self.check(task) for task in tasks], episodes_per_task, self.horizon)


def failed(family: object) -> dict[str, str]:
    return {point.name: point.said for point in check.check(family) if point.passed is False}  # type: ignore[arg-type]


def skipped(family: TaskFamily) -> dict[str, str]:
    return {point.name: point.said for point in check.check(family) if point.passed is None}


def test_a_good_family_keeps_every_point() -> None:
    points = check.check(Good())
    assert [point.name for point in points] == [*families.POINTS, *environments.POINTS]
    assert [point for point in points if not point.passed] == [
        check.Point("symmetries fit", None, "it names no symmetry")
    ]


# ---- what does not apply


def test_demonstrations_are_not_asked_of_who_is_learned_by_trial() -> None:
    family = CheetahDirection()
    assert failed(family) == {}
    assert skipped(family) == {
        "splits share no task": "its test splits have tasks that training has too, as it says by holds_out_tasks",
        "demonstrations have the stated form": "it is learned by trial only",
        "demonstrations are deterministic": "it is learned by trial only",
        "demonstrations start anew": "it is learned by trial only",
        "the expert succeeds": "it has no expert",
        "doing nothing does not": "its metric, 'return', is no share of successes",
        "the demonstration is needed": "it is learned by trial only",
        "the expert acts": "it has no expert",
        "symmetries fit": "it names no symmetry",
    }


def test_environments_are_not_asked_of_a_regression() -> None:
    family = Sinusoid()
    assert failed(family) == {}
    assert skipped(family)["environments keep their contract"].startswith("it is not simulated")
    assert skipped(family)["the environment is Gymnasium's"].endswith("its tasks are data only.")


def test_episodes_of_a_task_may_start_alike_where_the_family_says_so() -> None:
    class Alike(Navigation2D):
        fixed_start = False

    found = failed(Alike())
    assert "set fixed_start = True" in found["demonstrations start anew"]
    assert "set fixed_start = True" in found["environments repeat themselves"]
    assert failed(Navigation2D()) == {}


def test_validation_may_have_tasks_of_training_and_the_table_says_so() -> None:
    class Shared(Good):
        def sample(self, split, rng):
            return {"goal": [0.4, 0.4] if split != "test" else rng.uniform(-0.5, 0.5, 2).tolist()}

    points = {point.name: point for point in check.check(Shared())}
    assert points["splits share no task"].passed
    assert "1 tasks of 'validation' are training's" in points["splits share no task"].said


def test_recognition_keeps_it_unless_an_example_is_in_two_splits() -> None:
    from quickstudy.families import from_arrays

    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(40, 4)), 12, 0) + 0.1 * rng.normal(size=(480, 4))
    assert failed(from_arrays(x, np.repeat(np.arange(40), 12), name="clusters")) == {}
    x[1::12] = x[0]  # of every class
    found = failed(from_arrays(x, np.repeat(np.arange(40), 12), name="clusters"))
    assert "is one of split 'train' too" in found["splits share no task"]


# ---- what breaks a point of the family


class NoTest(Good):
    sizes = {"train": 10, "validation": 10}  # noqa: RUF012


class FolderName(Good):
    name = "my/family"


class NoSimulation(Sinusoid):
    learned_from = ("demonstrations", "trials")


class Unsuited(Good):
    default_method = "prototypical"


class UnknownSetting(Good):
    method_settings = {"maml": {"algorithm": {"inner_stepz": 3}}}  # noqa: RUF012


class OtherTasks(Good):
    def task(self, split, index):
        drawn = super().task(split, index)
        drawn.parameters["goal"][0] = float(np.random.default_rng().uniform())
        return drawn


class Tuples(Good):
    def sample(self, split, rng):
        return {"goal": tuple(rng.uniform(-0.5, 0.5, 2).tolist())}


class NoCaption(Good):
    def caption(self, task):
        return task.index


class OneTask(Good):
    def sample(self, split, rng):
        return {"goal": [0.4, 0.4]}


class WideHidden(Good):
    hidden_size = 3


class WideDemonstrations(Good):
    observation_size = 3


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


class ByChance(Good):
    def demonstrate(self, tasks, count, seed):
        return super().demonstrate(tasks, count, int(np.random.default_rng().integers(1 << 31)))


class SameDemonstration(Good):
    def demonstrate(self, tasks, count, seed):
        return [some * count for some in super().demonstrate(tasks, 1, seed)]


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


class OtherSecondaryMetric(Good):
    secondary_metrics = ("speed",)


class FlatPolicy(Good):
    def run(self, tasks, episodes, policy, seed):
        return super().run(tasks, episodes, lambda seen: policy(seen.reshape(1, -1, 2)).reshape(seen.shape), seed)


class WeakExpert(Good):
    class environment(PointVectorEnv):  # noqa: N801
        def expert_action(self):
            return 0.1 * super().expert_action()


class UselessAdvice(CheetahDirection):
    has_expert = True

    def run_expert(self, tasks, episodes, seed):
        return self.run(tasks, episodes, families.zeros(self), seed)

    @property
    def learned_from(self):
        return ("trials",)


class EasyToDoNothing(Good):
    def run(self, tasks, episodes, policy, seed):
        found = super().run(tasks, episodes, policy, seed)
        return {**found, "success": np.ones_like(found["success"])}


class WrongEnvironment(Good):
    def make(self, task, render_mode=None):
        env = super().make(task, render_mode)
        env.observation_space = gymnasium.spaces.Box(-0.01, 0.01, (2,), np.float32)
        return env


class NothingHidden(Good):
    """Every task has the same goal in truth, whatever its parameters say."""

    class environment(PointVectorEnv):  # noqa: N801
        def __init__(self, *given):
            super().__init__(*given)
            self._goals = np.full_like(self._goals, 0.3)


class Crashes(Good):
    def hidden(self, task):
        raise ZeroDivisionError("no reason")


@pytest.mark.parametrize(
    ("family", "point", "sentence"),
    [
        (NoTest, "says what it is", "a test split; it holds train, validation"),
        (FolderName, "says what it is", "use letters, digits, dashes and dots; it is 'my/family'"),
        (NoSimulation, "says what it is", "derive the family from SimulatedFamily"),
        (Unsuited, "settings are known", "default_method is 'prototypical', which cannot learn its tasks"),
        (UnknownSetting, "settings are known", "inner_stepz"),
        (OtherTasks, "tasks are plain data", "differs from call to call"),
        (Tuples, "tasks are plain data", "use lists, not tuples"),
        (NoCaption, "tasks are plain data", "must be a text; got 0"),
        (OneTask, "splits share no task", "good/test/0 is a task of split 'train' too: what is tested was trained on"),
        (OneTask, "hidden has the stated size", "is the same for all tasks"),
        (WideHidden, "hidden has the stated size", "must be 3 finite numbers; got shape (2,)"),
        (WideDemonstrations, "demonstrations have the stated form", "has widths (2, 2); the family says (3, 2)"),
        (LongDemonstrations, "demonstrations have the stated form", "has 40 steps; the horizon is 20"),
        (Company, "demonstrations are deterministic", "depend on which other tasks are asked for"),
        (ByChance, "demonstrations are deterministic", "Two calls with one seed differ"),
        (SameDemonstration, "demonstrations start anew", "Two demonstrations of good/test/0 are one"),
        (LostEpisodes, "every episode counts", "must be [task, episode], (6, 3); got (6,)"),
        (NotANumber, "every episode counts", "not finite"),
        (OtherMetric, "every episode counts", "must return 'reward', its metric"),
        (OtherSecondaryMetric, "every episode counts", "must return 'speed', its metric"),
        (FlatPolicy, "a policy sees every episode", "it was shown [(1, 18, 2)]"),
        (WeakExpert, "the expert succeeds", "at least 90% is needed"),
        (UselessAdvice, "the expert succeeds", "it must do better than nothing"),
        (EasyToDoNothing, "doing nothing does not", "Actions of zero reach 100%"),
        (WrongEnvironment, "the environment is Gymnasium's", "check_env says"),
        (NothingHidden, "the demonstration is needed", "either nothing is hidden"),
        (Crashes, "hidden has the stated size", "ZeroDivisionError: no reason (in hidden, test_check.py, line "),
    ],
)
def test_what_breaks_the_contract_is_named(family, point, sentence):
    assert sentence in failed(family()).get(point, "")


def test_what_is_no_family_at_all_is_said_too() -> None:
    assert "got int" in failed(3)["says what it is"]


# ---- what breaks a point of the environments


class Flat(PointVectorEnv):
    def step(self, actions, active):
        result = super().step(actions, active)
        return result._replace(rewards=result.rewards.ravel())


class Whole(PointVectorEnv):
    def reset(self, generators, chosen=None, disturbance=0.0):
        return super().reset(generators, chosen, disturbance).astype(int)


class NoReward(PointVectorEnv):
    def step(self, actions, active):
        return super().step(actions, active)._replace(rewards=np.full(self.shape, np.nan))


class Failing(PointVectorEnv):
    def step(self, actions, active):
        return super().step(actions, active)._replace(broken=np.ones(self.shape, bool))


class Endless(PointVectorEnv):
    def step(self, actions, active):
        return super().step(actions, active)._replace(truncated=np.zeros(self.shape, bool))


class OwnNoise(PointVectorEnv):
    def reset(self, generators, chosen=None, disturbance=0.0):
        return super().reset([np.random.default_rng() for _ in generators], chosen, disturbance)


class NotPutBack(PointVectorEnv):
    def reset(self, generators, chosen=None, disturbance=0.0):
        before = self._positions.copy()
        return super().reset(generators, chosen, disturbance) + (1e-3 * before).astype("f4")


class OneStart(PointVectorEnv):
    def reset(self, generators, chosen=None, disturbance=0.0):
        return super().reset([np.random.default_rng(7) for _ in generators], chosen, disturbance)


class Mixed(PointVectorEnv):
    def step(self, actions, active):
        return super().step(actions + 1e-3 * self._positions.mean((0, 1)), active)


class Restless(PointVectorEnv):
    def step(self, actions, active):
        return super().step(actions, np.ones_like(active))


class Crowded(PointVectorEnv):
    def step(self, actions, active):
        return super().step(actions / active.sum(), active)


class Unclipped(PointVectorEnv):
    def step(self, actions, active):
        result = super().step(actions, active)
        return result._replace(rewards=result.rewards - np.square(actions).sum(-1))


class WideExpert(PointVectorEnv):
    def expert_action(self):
        return np.zeros((*self.shape, 3))


class InfiniteExpert(PointVectorEnv):
    def expert_action(self):
        return super().expert_action() + np.inf


@pytest.mark.parametrize(
    ("environment", "point", "sentence"),
    [
        (Flat, "have the stated form", "step must give rewards as numbers [task, episode], (3, 2); got (6,)"),
        (Whole, "have the stated form", "reset must give observations [task, episode, obs], (3, 2, 2) numbers"),
        (NoReward, "have the stated form", "A reward is not finite"),
        (Failing, "have the stated form", "An environment failed"),
        (Endless, "have the stated form", "not over after 20 steps, the horizon: truncate it"),
        (OwnNoise, "repeat themselves", "An episode depends on the one before it"),
        (NotPutBack, "repeat themselves", "reset must put everything back"),
        (OneStart, "repeat themselves", "Other generators give the same episode"),
        (Mixed, "do not mix", "alone does something else than beside others"),
    ],
)
def test_environments_that_break_a_point_are_named(environment, point, sentence):
    assert sentence in _failed(environment).get(f"environments {point}", "")


@pytest.mark.parametrize(
    ("environment", "point", "sentence"),
    [
        (Restless, "one that is over waits", "An environment that is not active goes on"),
        (Crowded, "one that is over waits", "An environment that waits changes what others do"),
        (Unclipped, "actions are clipped", "clip them to -1..1, for rewards too"),
        (WideExpert, "the expert acts", "must give [task, episode, act], (3, 2, 2); got (3, 2, 3)"),
        (InfiniteExpert, "the expert acts", "must be finite, NaN only where"),
    ],
)
def test_actions_and_waiting_that_break_a_point_are_named(environment, point, sentence):
    assert sentence in _failed(environment).get(point, "")


def _failed(environment: type[PointVectorEnv]) -> dict[str, str]:
    return failed(type("Made", (Good,), {"environment": environment})())


class DrawsTests(Good):
    def draw(self, count, rng):
        return self.tasks("test", count)


class DrawsByChance(Good):
    def draw(self, count, rng):
        return self.tasks("train", count, int(np.random.default_rng().integers(1000)))


class Stretched(Good):
    symmetries = (Symmetry(np.eye(2), 2 * np.eye(2)),)


class Narrow(Good):
    symmetries = (Symmetry(np.eye(2), np.eye(1)),)


class Mirrored(Good):
    symmetries = (Symmetry(np.diag([-1.0, 1.0]), np.diag([-1.0, 1.0])),)


@pytest.mark.parametrize(
    ("family", "point", "sentence"),
    [
        (DrawsTests, "training tasks can be drawn", "must give 4 tasks of the training split"),
        (DrawsByChance, "training tasks can be drawn", "other tasks for the same generator"),
        (Stretched, "symmetries fit", "must be orthogonal"),
        (Narrow, "symmetries fit", "has matrices [(2, 2), (2, 2)] of observations and actions; got [(2, 2), (1, 1)]"),
        (Mirrored, "symmetries fit", ""),
    ],
)
def test_what_trials_need_of_the_family_is_checked(family, point, sentence):
    found = {one.name: one for one in check.check(family())}[point]
    assert sentence in found.said
    assert found.passed is (family is Mirrored)


def test_unbounded_actions_are_not_clipped() -> None:
    from quickstudy.families import from_gymnasium

    class Free(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)

        def __init__(self, goal: float) -> None:
            self.goal = goal

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.at = self.np_random.uniform(-1, 1, 1)
            return self.at.astype("f4"), {}

        def step(self, action: Sequence[float]):
            self.at = self.at + action
            return self.at.astype("f4"), -float(abs(self.at[0] - self.goal)), False, False, {}

    points = {point.name: point for point in check.check(from_gymnasium(Free, {"goal": (-1.0, 1.0)}, horizon=5))}
    assert points["actions are clipped"].said == "its actions have no bounds"
    assert [point.name for point in points.values() if point.passed is False] == []


def test_a_method_that_does_not_suit_the_family_is_not_checked() -> None:
    from quickstudy import methods

    with pytest.raises(QuickstudyError, match="'sinusoid' is learned from demonstrations only"):
        check.check_method(methods.get("rl2"), Sinusoid())
