"""What a user's environment takes and shows: bounds of actions, observations by key, what is refused by name."""

from typing import ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from quickstudy import families
from quickstudy.errors import QuickstudyError
from quickstudy.families.gymnasium.spaces import Scale


class Within(gymnasium.Env):
    """Notes whether each action lies in its space, exactly."""

    inside: ClassVar[list[bool]] = []

    def __init__(self, mark: float, space: spaces.Box) -> None:
        self.observation_space, self.action_space = spaces.Box(-9.0, 9.0, (2,), np.float64), space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.normal(size=2), {}

    def step(self, action):
        self.inside.append(bool(self.action_space.contains(action)))
        return np.zeros(2), 0.0, False, False, {}


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0.0, np.inf, (1,), np.float32),
        spaces.Box(-np.inf, 0.0, (1,), np.float32),
        spaces.Box(0, 10, (1,), np.int64),
        spaces.Box(0, 255, (2,), np.uint8),
        spaces.Box(0.5, 0.5, (1,), np.float32),
        spaces.Box(-np.inf, np.inf, (1,), np.float32),
        spaces.Box(0.0, 1e-3, (1,), np.float32),
        spaces.Box(-0.1, 0.7, (1,), np.float64),
        spaces.Box(-3.4e38, 3.4e38, (1,), np.float32),
        spaces.Box(-1e300, 1e300, (1,), np.float64),
        spaces.Box(100.0, np.inf, (1,), np.float32),
        spaces.Box(-np.inf, -7, (1,), np.float64),
        spaces.Box(-5, 5, (2, 2), np.int32),
        spaces.Box(3, 3, (1,), np.int64),
        spaces.Box(-128, 127, (1,), np.int8),
        spaces.Box(np.array([-np.inf, 0.0, 2.0], "f4"), np.array([1.0, np.inf, 2.0], "f4")),
    ],
)
def test_every_action_lies_in_the_environments_own_space(space):
    family = families.from_gymnasium(
        lambda mark: Within(mark, space), {"mark": (0.0, 1.0)}, horizon=5, name="within", metric="return",
        expert=lambda env, seen: np.clip(np.zeros(space.shape), space.low, space.high),
    )  # fmt: skip
    Within.inside.clear()
    for value in (-300.0, -3.0, 0.3, 3.0, 300.0):
        family.run(
            family.tasks("test", 1), 1, lambda seen, v=value: np.full((*seen.shape[:2], family.action_size), v, "f4"), 0
        )
    (demonstration,) = family.demonstrate(family.tasks("train", 1), 1, 0)[0]
    assert np.isfinite(demonstration.actions).all()
    assert len(Within.inside) >= 30
    assert all(Within.inside)


def test_what_has_one_bound_is_counted_from_it():
    scale = Scale.of(spaces.Box(np.array([100.0, -np.inf], "f4"), np.array([np.inf, -7.0], "f4")))
    np.testing.assert_allclose(scale.undo(np.zeros(2)), [100.0, -7.0])
    np.testing.assert_allclose(scale.undo(np.array([2.5, -2.5])), [102.5, -9.5])
    np.testing.assert_allclose(scale(np.array([102.5, -9.5])), [2.5, -2.5])
    np.testing.assert_array_equal(scale.box.low, np.array([0.0, -np.inf], "f4"))
    np.testing.assert_array_equal(scale.box.high, np.array([np.inf, 0.0], "f4"))


def test_a_bound_that_is_no_number_is_refused():
    space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    space.high[1] = np.nan
    with pytest.raises(QuickstudyError, match="actions have the bounds -1 to nan in place 1"):
        Scale.of(space)


class Reaching(gymnasium.Env):
    """A goal environment in the form of Gymnasium-Robotics."""

    def __init__(self, goal: float, fixed: bool = True, extra: spaces.Space | None = None) -> None:
        box = spaces.Box(-9.0, 9.0, (2,), np.float64)
        self.goal, self.fixed, self.extra = goal, fixed, extra
        parts = {"observation": box, "achieved_goal": box, "desired_goal": box}
        self.observation_space = spaces.Dict(parts | ({} if extra is None else {"extra": extra}))
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.wanted = np.full(2, self.goal if self.fixed else self.np_random.normal())
        return self._see(), {}

    def _see(self):
        extra = {} if self.extra is None else {"extra": self.extra.sample()}
        return {"observation": np.array([1.0, 2.0]), "achieved_goal": np.zeros(2), "desired_goal": self.wanted, **extra}

    def step(self, action):
        return self._see(), -1.0, False, False, {"is_success": True}


def test_observations_by_key_without_the_goal_that_is_hidden():
    family = families.from_gymnasium(lambda goal: Reaching(goal), {"goal": (0.0, 1.0)}, horizon=3, name="reaching")
    assert set(family.observation_channels) == {
        "observation.0", "observation.1", "achieved_goal.0", "achieved_goal.1"
    }  # fmt: skip
    env = family.make(family.tasks("test", 1)[0])
    seen, _ = env.reset(seed=0)
    assert dict(zip(family.observation_channels, seen, strict=True))["observation.1"] == 2.0
    shown = families.from_gymnasium(lambda goal: Reaching(goal, fixed=False), {"goal": (0.0, 1.0)}, horizon=3)
    assert "desired_goal.0" in shown.observation_channels


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (
            spaces.Box(0, 255, (64, 64, 3), np.uint8),
            "'extra', of shape \\(64, 64, 3\\), looks like one.*FilterObservation",
        ),
        (spaces.Box(0.0, 5.0, (24, 32), np.float32), "looks like one"),
        (spaces.Discrete(3), "'extra' is Discrete\\(3\\).*FilterObservation leaves it out"),
        (spaces.Text(5), "'extra' is Text"),
    ],
)
def test_what_is_no_numbers_is_refused_by_name(extra, sentence):
    with pytest.raises(QuickstudyError, match=sentence):
        families.from_gymnasium(lambda goal: Reaching(goal, extra=extra), {"goal": (0.0, 1.0)}, horizon=3)


class Camera(Reaching):
    """Sees a picture alone."""

    def __init__(self, goal: float) -> None:
        super().__init__(goal)
        self.observation_space = spaces.Box(0, 255, (24, 32, 3), np.uint8)


@pytest.mark.parametrize("wrap", [lambda env: env, gymnasium.wrappers.FlattenObservation])
def test_a_camera_is_no_2304_observations(wrap):
    with pytest.raises(QuickstudyError, match=r"what is observed, of shape \(24, 32, 3\), looks like one"):
        families.from_gymnasium(lambda goal: wrap(Camera(goal)), {"goal": (0.0, 1.0)}, horizon=3)


def test_a_picture_in_a_dict_is_seen_through_the_wrapper():
    extra = spaces.Box(0, 255, (8, 8), np.uint8)
    with pytest.raises(QuickstudyError, match="'extra', of shape"):
        families.from_gymnasium(
            lambda goal: gymnasium.wrappers.FlattenObservation(Reaching(goal, extra=extra)), {"goal": (0.0, 1.0)},
            horizon=3,
        )  # fmt: skip


def test_a_goal_that_a_wrapper_shows_is_not_called_hidden(capsys):
    family = families.from_gymnasium(
        lambda goal: gymnasium.wrappers.FlattenObservation(Reaching(goal)), {"goal": (0.0, 1.0)}, horizon=3
    )
    assert family.observation_size == 6
    assert family.protocol.startswith("goal not hidden, because FlattenObservation shows 'desired_goal'")
    assert "without the wrapper a Dict is read by key" in capsys.readouterr().out


def test_nested_observations_are_read_by_their_path():
    extra = spaces.Tuple([spaces.Box(0.0, 1.0, (1,)), spaces.Dict({"tip": spaces.Box(0.0, 1.0, (3, 3))})])
    family = families.from_gymnasium(lambda goal: Reaching(goal, extra=extra), {"goal": (0.0, 1.0)}, horizon=3)
    assert family.observation_size == 4 + 1 + 9
    assert {"extra.0", "extra.1.tip.8"} <= set(family.observation_channels)


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(2)])
def test_actions_of_choices_are_refused_with_the_wrapper_that_helps(space):
    with pytest.raises(QuickstudyError, match=r"TransformAction\(env, function, Box"):
        families.from_gymnasium(lambda mark: Within(mark, space), {"mark": (0.0, 1.0)}, horizon=3)
