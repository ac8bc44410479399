"""The package's own environments and experts behind the interface of `worlds`: slower, but for every task.

One environment serves all worlds of its task: what makes an episode (the state of the physics, where the model's bodies
are and the environment's own numbers) is put in before a step and taken out after it.
"""

import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np

from quickstudy.errors import QuickstudyError
from quickstudy.simulation.worlds import STATE

Expert = Callable[[np.ndarray], np.ndarray]
"""Observations [world, 39] with the goal to actions [world, 4]."""


def environment(name: str, visible: bool = True) -> Any:
    """The package's environment of a task, that shows its goal if `visible`; see `fix` for its episodes."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    env = ALL_V3_ENVIRONMENTS[name]()
    env._set_task_called, env._partially_observable = True, not visible
    del env.sawyer_observation_space  # it was cached for a hidden goal
    return env


def fix(env: Any, vector: np.ndarray) -> None:
    """Makes the next resets use this random vector.

    The package draws again for as long as object and goal are too close, which never ends for a fixed vector; here it
    ends in an error.
    """
    env._freeze_rand_vec, env._last_rand_vec = True, np.asarray(vector, np.float64).copy()
    asked = iter([True, True])  # a reset places everything twice

    def vector_once() -> np.ndarray:
        if not next(asked, False):
            raise QuickstudyError(
                f"Meta-World refuses the random vector {np.round(vector, 4).tolist()}: object and goal are too close."
            )
        return env._last_rand_vec

    env._get_state_rand_vec = vector_once


@functools.cache
def _shared(name: str) -> tuple[Any, threading.Lock]:
    """One environment of a task for all worlds, as it takes a fifth of a second and 24 MB to make."""
    return environment(name), threading.Lock()


class Official:
    """Worlds of one task, all in one environment of the package.

    Attributes:
        frame, previous: what is observed now and what was before, [world, 18].
        target: the goal [world, 3].
        reward, success: [world], of the last step.
    """

    def __init__(self, name: str, count: int):
        self.env, self._lock = _shared(name)
        self.frame, self.previous, self.target = np.zeros((count, 18)), np.zeros((count, 18)), np.zeros((count, 3))
        self.reward, self.success = np.zeros(count), np.zeros(count, dtype=bool)
        self.low, self.high = self.env.sawyer_observation_space.low, self.env.sawyer_observation_space.high
        self._episodes: list[dict[str, Any]] = [{} for _ in range(count)]

    def begin(self, world: int, vector: np.ndarray, thread: int) -> None:
        with self._lock:
            fix(self.env, vector)
            seen, _ = self.env.reset()
            self._keep(world, seen)

    def advance(self, world: int, pull: np.ndarray, action: np.ndarray, thread: int) -> None:
        """One control step; the package moves what the hand is pulled to itself."""
        with self._lock:
            self._enter(world)
            seen, reward, _, _, info = self.env.step(action)
            self.reward[world], self.success[world] = reward, bool(info["success"])
            self._keep(world, seen)

    def judge(self, seen: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rewards and successes [world], which the package has given with the step."""
        return self.reward, self.success

    def picture(self, world: int) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """What to draw of a world, until another of its task moves."""
        with self._lock:
            self._enter(world)
            mujoco.mj_forward(self.env.model, self.env.data)
        return self.env.model, self.env.data

    def _keep(self, world: int, seen: np.ndarray) -> None:
        env = self.env
        self.frame[world], self.previous[world], self.target[world] = seen[:18], seen[18:36], seen[36:]
        state = np.empty(mujoco.mj_stateSize(env.model, STATE))
        mujoco.mj_getState(env.model, env.data, state, STATE)
        numbers = {name: _copied(value) for name, value in vars(env).items() if _is_own_number(value)}
        self._episodes[world] = {
            "state": state,
            "body_pos": env.model.body_pos.copy(),
            "body_quat": env.model.body_quat.copy(),
            "site_pos": env.model.site_pos.copy(),
            "numbers": numbers,
        }

    def _enter(self, world: int) -> None:
        env, episode = self.env, self._episodes[world]
        mujoco.mj_setState(env.model, env.data, episode["state"], STATE)
        for name in ("body_pos", "body_quat", "site_pos"):
            getattr(env.model, name)[:] = episode[name]
        vars(env).update({name: _copied(value) for name, value in episode["numbers"].items()})
        env.curr_path_length = 0  # the horizon is the caller's


def _is_own_number(value: Any) -> bool:
    """Whether it belongs to the episode: a number or an array that is no view of MuJoCo's, which follow the state."""
    if isinstance(value, np.ndarray):
        while isinstance(value.base, np.ndarray):
            value = value.base
        return value.base is None and value.dtype != object
    return value is None or isinstance(value, bool | int | float | np.number)


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


def expert(name: str) -> Expert:
    """The package's scripted expert of a task, for many worlds."""
    from metaworld.policies import ENV_POLICY_MAP

    kind: Any = ENV_POLICY_MAP[name]
    policy = kind()

    def act(observations: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it asks for more than -1..1, which the environment clips
            actions = [policy.get_action(seen) for seen in observations.copy()]  # two experts write into what they see
        return np.clip(np.asarray(actions, np.float32), -1.0, 1.0)

    return act
