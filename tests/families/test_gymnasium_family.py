"""A family of a user's own Gymnasium environment: what its tasks are drawn from, how it runs, what it refuses."""

import importlib.util
import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy import families
from quickstudy.errors import QuickstudyError
from quickstudy.families.gymnasium.family import GymFamily
from quickstudy.families.gymnasium.parameters import Space, overlap
from quickstudy.families.gymnasium.spaces import Scale
from quickstudy.task import Task


class Line(gymnasium.Env):
    """Walk along a line to a goal that is not seen; an action is a step of -0.5 to 1.5."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012, Gymnasium declares it so
    observation_space = spaces.Box(-100.0, 100.0, (1,), np.float64)
    action_space = spaces.Box(-0.5, 1.5, (1,), np.float32)

    def __init__(self, goal: float = 1.0, way: str = "there", render_mode: str | None = None) -> None:
        self.goal, self.way, self.render_mode = goal, way, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-3.0, -1.0)
        return np.array([self.place]), {}

    def step(self, action):
        self.place += float(action[0])
        near = abs(self.place - self.goal) < 0.2
        return np.array([self.place]), -abs(self.place - self.goal), near, False, {"success": near}

    def render(self):
        return np.full((8, 10, 3), 100, np.uint8)


def expert(env: Line, seen: np.ndarray) -> list[float]:
    return [float(np.clip(env.goal - seen[0], -0.5, 1.5))]


def family(**options) -> GymFamily:
    given = {"expert": expert, "horizon": 12, "disturbance": 0.02, "name": "line"} | options
    return families.from_gymnasium(Line, {"goal": (0.0, 4.0)}, **given)


# ---- what tasks are drawn from


def test_tasks_keep_to_the_ranges_of_their_split():
    splits = {"train": {}, "validation": {"goal": (2.0, 2.5)}, "near": {"goal": ((2.5, 3.0), (5.0, 6.0))}}
    made = families.from_gymnasium(Line, {"goal": (0.0, 2.0), "way": ["a", "b"]}, splits, expert=expert, horizon=5)
    assert made.test_splits == ["near"]
    goals = {split: [t.parameters["goal"] for t in made.tasks(split, 200)] for split in made.sizes}
    assert 0.0 <= min(goals["train"]) <= max(goals["train"]) < 2.0
    assert 2.0 <= min(goals["validation"]) <= max(goals["validation"]) < 2.5
    assert all(2.5 <= goal < 3.0 or 5.0 <= goal < 6.0 for goal in goals["near"])
    assert 0.2 < np.mean([goal < 3.0 for goal in goals["near"]]) < 0.5  # a third: bands count by their width
    task = made.task("near", 4)
    assert json.loads(json.dumps(task.parameters)) == made.task("near", 4).parameters
    hidden = np.stack([made.hidden(task) for split in made.sizes for task in made.tasks(split, 100)])
    assert hidden.shape == (300, 3)
    assert np.abs(hidden).max() <= 1.0  # goals from 0 to 6 become -1 to 1
    assert hidden[:, 0].min() < -0.9
    assert (hidden[:, 1:].sum(1) == 1).all()  # one-hot


def test_a_function_may_draw_the_tasks():
    def even(rng):
        return {"goal": float(2 * rng.integers(0, 50))}

    def odd(rng):
        return {"goal": float(2 * rng.integers(0, 50) + 1)}

    made = families.from_gymnasium(
        Line, even, {"train": even, "validation": odd, "test": lambda rng: {"goal": -1.0}}, expert=expert, horizon=5
    )
    assert {task.parameters["goal"] for task in made.tasks("test", 5)} == {-1.0}
    with pytest.raises(QuickstudyError, match="'train' and 'test' share tasks"):
        families.from_gymnasium(Line, even, {"train": even, "validation": odd, "test": even}, expert=expert, horizon=5)


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[st.integers(0, 6)] * 4))
def test_ranges_are_half_open(ends):
    one, other = sorted(ends[:2]), sorted(ends[2:])
    if one[0] < one[1] and other[0] < other[1]:
        inside = any(one[0] <= x < one[1] and other[0] <= x < other[1] for x in np.arange(0, 7, 0.25))
        assert overlap(tuple(one), tuple(other)) == inside


@pytest.mark.parametrize(
    ("parameters", "splits", "sentence"),
    [
        ({}, None, "At least one argument"),
        ({"goal": (2.0, 1.0)}, None, r"'goal' in split 'train' has \(2.0, 1.0\)"),
        ({"goal": []}, None, "a range .low, high., a tuple of ranges or a list of values; got"),
        ({"goal": "far"}, None, "got 'far'"),
        ({"goal": [1, 2, 3]}, None, "'train' and 'validation' share tasks"),
        ({"goal": (0, 1)}, {"train": {}, "test": {"goal": (2, 3)}}, "needs the splits"),
        (
            {"goal": (0, 1)},
            {"train": {}, "validation": {"goal": (1, 2)}, "test": {"goal": (1.9, 3)}},
            "'validation' and 'test' share tasks: no argument keeps them apart",
        ),
        (
            {"goal": (0, 1)},
            {"train": {}, "validation": {"gaol": (1, 2)}, "test": {"goal": (2, 3)}},
            "Unknown argument in split 'validation' 'gaol'. Did you mean 'goal'",
        ),
        ({"goal": [1, "a"]}, {"train": {}, "validation": {"goal": [2]}, "test": {"goal": [3]}}, "all texts or all num"),
        ({"goal": (0, 2)}, {"train": {}, "validation": {"goal": [1, 5]}, "test": {"goal": [6]}}, "share tasks"),
    ],
)
def test_ranges_that_are_none(parameters, splits, sentence):
    with pytest.raises(QuickstudyError, match=sentence):
        Space(parameters, splits)


# ---- running


def test_the_expert_arrives_and_doing_nothing_does_not():
    made = family()
    tasks = made.tasks("test", 4)
    found = made.run_expert(tasks, 3, 0)
    assert (found["success"] == 1).all()
    assert found["success"].shape == (4, 3)
    nothing = made.run(tasks, 3, lambda seen: np.full((4, 3, 1), -0.5), 0)  # which is a step of 0
    assert not nothing["success"].any()
    assert (nothing["steps"] == 12).all()
    hidden = np.array([task.parameters["goal"] for task in tasks])[:, None, None]
    same = made.run(tasks, 3, lambda seen: np.clip((hidden - seen) - 0.5, -1.0, 1.0), 0)
    np.testing.assert_allclose(same["return"], found["return"], atol=1e-5)


def test_without_an_expert_it_is_learned_by_trial_alone():
    class Silent(Line):
        def step(self, action):
            return (*super().step(action)[:4], {})

    made = family(expert=None)
    assert (made.learned_from, made.metric, made.default_method) == (("trials",), "success", "maml-trpo")
    assert family().learned_from == ("demonstrations", "trials")
    with pytest.raises(QuickstudyError, match="'line' has no expert"):
        made.demonstrate(made.tasks("train", 1), 1, 0)
    silent = families.from_gymnasium(Silent, {"goal": (0.0, 4.0)}, horizon=5)
    assert (silent.metric, silent.protocol) == ("return", "goal hidden, the start is drawn anew, the return counts")
    assert not silent.run(silent.tasks("test", 2), 1, lambda seen: np.zeros((2, 1, 1)), 0)["success"].any()
    slow = families.from_gymnasium(Silent, {"goal": (0.0, 4.0)}, expert=lambda *_: [0.0], metric="return", horizon=5)
    shown = slow.demonstrate(slow.tasks("train", 3), 1, 0)  # where nothing says success, whole episodes are shown
    assert [len(d) for (d,) in shown] == [5, 5, 5]


def test_a_return_may_be_what_counts():
    made = family(success=-30.0)
    tasks = made.tasks("test", 6)
    nothing = made.run(tasks, 2, lambda seen: np.full((6, 2, 1), -0.5), 0)
    np.testing.assert_array_equal(nothing["success"], nothing["return"] >= -30.0)
    assert "a return of at least -30" in made.protocol


def test_demonstrations_hold_the_clean_scaled_actions_of_the_expert():
    made = family()
    tasks = made.tasks("train", 3)
    for task, some in zip(tasks, made.demonstrate(tasks, 3, seed=1), strict=True):
        assert len({float(d.observations[0, 0]) for d in some}) == 3
        for d in some:
            goal = task.parameters["goal"]
            np.testing.assert_allclose(d.actions, np.clip(goal - d.observations, -0.5, 1.5) - 0.5, atol=1e-5)
    once, again = (made.demonstrate(tasks[1:], 1, seed=1)[0][0] for _ in range(2))
    np.testing.assert_array_equal(once.observations, again.observations)
    np.testing.assert_array_equal(once.observations, made.demonstrate(tasks, 1, seed=1)[1][0].observations)


def test_the_environment_is_the_one_that_runs():
    made = family()
    task = made.task("train", 0)
    env = made.make(task)
    with pytest.warns(UserWarning, match="wrapped"):
        check_env(env, skip_render_check=True)
    assert env.observation_space.dtype == np.float32
    env.reset(seed=0)
    before = env.unwrapped.place
    env.step(np.array([1.0], "f4"))
    assert env.unwrapped.place == pytest.approx(before + 1.5)
    for _ in range(10):
        assert not env.step(np.array([-1.0], "f4"))[3]
    assert env.step(np.array([-1.0], "f4"))[3]  # the horizon


def test_actions_without_bounds_stay_as_they_are():
    scale = Scale.of(spaces.Box(np.array([-np.inf, 2.0], "f4"), np.array([np.inf, 4.0], "f4")))
    np.testing.assert_allclose(scale(np.array([50.0, 4.0])), [50.0, 1.0])
    np.testing.assert_allclose(scale.undo(np.array([50.0, 7.0])), [50.0, 4.0])


def test_films_have_twenty_pictures_a_second():
    made = family()
    task = made.task("test", 0)
    assert made.snapshot(task).shape == (8, 10, 3)
    film = made.film(task, lambda seen: np.full((1, 1, 1), -0.5), seed=0)
    assert film.shape == (26, 8, 10, 3)  # 13 pictures at 10 a second
    assert made.caption(task) == f"goal {task.parameters['goal']:.2g}"


def test_what_a_family_cannot_be_made_of():
    class Silent(Line):
        def step(self, action):
            return (*super().step(action)[:4], {})

    class Buttons(Line):
        action_space = spaces.Discrete(3)

    def lost(env, seen):
        return [-0.5]

    made = families.from_gymnasium(Silent, {"goal": (0.0, 4.0)}, expert=expert, horizon=5)
    with pytest.raises(QuickstudyError, match="has neither 'success' nor 'is_success'"):
        made.run_expert(made.tasks("test", 1), 1, 0)
    with pytest.raises(QuickstudyError, match=r"actions are a Box of numbers; got Discrete\(3\)"):
        families.from_gymnasium(Buttons, {"goal": (0.0, 4.0)}, expert=expert, horizon=5)
    with pytest.raises(QuickstudyError, match="needs a horizon"):
        family(horizon=None)
    with pytest.raises(QuickstudyError, match="at least 1; got -3"):
        family(horizon=-3)
    with pytest.raises(QuickstudyError, match=r"must return a gymnasium.Env; got str"):
        families.from_gymnasium(lambda goal: "env", {"goal": (0.0, 4.0)}, expert=expert, horizon=5)
    with pytest.raises(QuickstudyError, match="failed to demonstrate task line/train/0 in 8 attempts"):
        family(expert=lost).demonstrate(family().tasks("train", 1), 1, 0)
    with pytest.raises(QuickstudyError, match="must return 1 finite numbers"):
        family(expert=lambda env, seen: [np.nan]).demonstrate(family().tasks("train", 1), 1, 0)
    with pytest.raises(QuickstudyError, match=r"within 0\.\.1; got 2"):
        family(disturbance=2)
    with pytest.raises(QuickstudyError, match="at least 1 thread; got 0"):
        family(threads=0)
    with pytest.raises(QuickstudyError, match=r"Task other/test/0 is not of the family 'line'"):
        family().make(Task("other", "test", 0, {"goal": 1.0}))
    made = family()
    tasks = made.tasks("train", 2)
    with pytest.raises(QuickstudyError, match=r"returns actions \(2, 1, 1\); got \(2, 1, 2\)"):
        made.run(tasks, 1, lambda seen: np.zeros((2, 1, 2)), 0)
    with pytest.raises(QuickstudyError, match="task line/train/0 are not finite"):
        made.run(tasks, 1, lambda seen: np.full((2, 1, 1), np.nan), 0)


def test_the_example_is_short_and_learns():
    path = Path(__file__).parents[2] / "examples" / "own_environment.py"
    assert len([line for line in path.read_text().splitlines() if line.strip()]) < 40
    spec = importlib.util.spec_from_file_location("own_environment", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    none, one = example.main(steps=40, tasks=6)
    assert one > none + 0.3


@pytest.mark.parametrize("goals", [[(0.1, 0.9), (0.3, 0.7)], [(0.9, 0.1), (0.3, 0.7)], [(0.1, 0.2), (0.3, 0.4)]])
def test_a_list_of_pairs_may_be_points_or_ranges_and_is_refused(goals):
    with pytest.raises(QuickstudyError, match="may be points or ranges"):
        Space({"goal": goals, "mass": (1.0, 2.0)}, None)


@pytest.mark.parametrize(
    ("goals", "sentence"),
    [
        (((0.1, 0.9), (0.3, 0.7)), "which overlap; points to choose from are lists"),
        (((0.0, 0.5, 1.0), (0.0, 0.1, 0.2)), "low below high"),
        (([0.1, 0.9], [0.3, 0.7]), "low below high"),
        ([[0.1, np.nan], [0.3, 0.7]], "finite numbers, points of such, or texts"),
        ([1.0, np.inf], "finite numbers, points of such, or texts"),
        ([[0.1, 0.9], [0.3]], "must be texts or numbers"),
    ],
)
def test_what_is_neither_points_nor_ranges_is_refused(goals, sentence):
    with pytest.raises(QuickstudyError, match=sentence):
        Space({"goal": goals, "mass": (1.0, 2.0)}, None)


def test_a_range_has_no_point_or_text_in_common():
    assert not overlap((0.0, 1.0), [[0.5, 0.5]])
    assert not overlap(["a"], (0.0, 1.0))
    assert overlap([np.float32(0.5)], (np.float32(0.0), 1.0))


def test_points_are_chosen_from_and_ranges_are_drawn_from():
    points = [[0.1, 0.9], [0.3, 0.7], [0.5, 0.5]]
    space = Space({"goal": points, "mass": (1.0, 2.0)}, None)
    assert all(space.sample("train", np.random.default_rng(i))["goal"] in points for i in range(20))
    space = Space({"mass": ((0.0, 1.0), (5.0, 6.0))}, None)
    drawn = [space.sample("train", np.random.default_rng(i))["mass"] for i in range(50)]
    assert all(0 <= one < 1 or 5 <= one < 6 for one in drawn)
    assert {one < 1 for one in drawn} == {True, False}
    solid = Space({"at": [(0.0, 1.0, 2.0), (3.0, 4.0, 5.0)], "mass": (1.0, 2.0)}, None)
    assert tuple(solid.sample("train", np.random.default_rng(0))["at"]) in [(0.0, 1.0, 2.0), (3.0, 4.0, 5.0)]


class Broken(gymnasium.Env):
    """Fails in one of the ways that users' environments do."""

    observation_space, action_space = spaces.Box(-1.0, 1.0, (2,), np.float32), spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, mark: float, kind: str) -> None:
        self.kind = kind

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        seen = np.zeros(2, np.float32)
        return {
            "none": None, "four": (seen, 0.0, False, {}), "nan": (seen, float("nan"), False, False, {}),
            "no reward": (seen, None, False, False, {}), "shape": (np.zeros(5), 0.0, False, False, {}),
            "text": (np.array(["a", "b"]), 0.0, False, False, {}),
        }[self.kind]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "said"),
    [("none", "step must return"), ("four", "got a tuple of 4"), ("nan", "a reward must be a finite number; got nan"),
     ("no reward", "got None"), ("shape", "must have 2 numbers; got 5"), ("text", "could not convert")],
)  # fmt: skip
def test_an_environment_that_breaks_its_interface_is_named_and_counted(kind, said):
    family = families.from_gymnasium(
        lambda mark: Broken(mark, kind), {"mark": (0.0, 1.0)}, horizon=4, name="broken", metric="return"
    )
    tasks = family.tasks("test", 20)
    with pytest.raises(QuickstudyError, match=rf"The environment of broken/test/\d+ failed .*{said}.*20 are the limit"):
        family.run(tasks, 1, lambda seen: np.zeros((*seen.shape[:2], 1)), 0)
