"""Gymnasium environments as a vector environment: each in Python, one that fails is named, made anew and counted."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import TimeoutError as WaitedTooLong
from multiprocessing.pool import ThreadPool
from typing import Any

import gymnasium
import numpy as np

from quickstudy.errors import QuickstudyError, one_line
from quickstudy.families.gymnasium.spaces import Parts, Scale
from quickstudy.io.progress import console
from quickstudy.simulation.vector_env import StepResult, VectorEnv, as_indices
from quickstudy.task import Task

MOST_FAULTS = 20
"""Failures of environments made together before it is given up."""
TIMEOUT = 60.0
"""Seconds that one call of a user's environment may take."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in what hangs in here, by the system's alarm; it reaches Python and what waits, not C that
    computes. Outside of the main thread there is none."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def alarm(number: int, frame: Any) -> None:
        raise TimeoutError(f"it took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(
        signal.ITIMER_REAL, seconds, 1.0
    )  # again each second, for code that takes any exception as its own
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def close(env: gymnasium.Env, seconds: float) -> None:
    """Closes a user's environment; one that fails at that keeps no other open."""
    with suppress(Exception), deadline(seconds):
        env.close()


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"


class Flat(gymnasium.Wrapper):
    """An environment as learners see it: flat float32 observations, scaled actions, at most `horizon` steps.

    Args:
        without: keys of the observation that are left out.

    Attributes:
        raw: the environment's own last observation.
    """

    raw: Any = None

    def __init__(self, env: gymnasium.Env, horizon: int, without: tuple[str, ...] = ()) -> None:
        super().__init__(env)
        self.scale, self.parts = Scale.of(env.action_space), Parts(env.observation_space, without)
        self._horizon, self._left = horizon, horizon
        self.observation_size = len(self.parts)
        self.observation_space, self.action_space = self.parts.box, self.scale.box

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self._left = self._horizon
        self.raw, info = self.env.reset(seed=seed, options=options)
        return self._numbers(), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        result = self.env.step(self.scale.undo(action))
        if not isinstance(result, tuple) or len(result) != 5:
            got = f"a tuple of {len(result)}" if isinstance(result, tuple) else type(result).__name__
            raise ValueError(f"step must return (observation, reward, terminated, truncated, info); got {got}")
        self.raw, reward, terminated, truncated, info = result
        if reward is None or not np.isfinite(float(reward)):
            raise ValueError(f"a reward must be a finite number; got {reward}")
        self._left -= 1
        over = bool(truncated) or (self._left <= 0 and not terminated)
        return self._numbers(), float(reward), bool(terminated), over, info

    def _numbers(self) -> np.ndarray:
        """The last observation as learners see it."""
        seen = self.parts(self.raw)
        if seen.shape != (self.observation_size,):
            raise ValueError(f"an observation must have {self.observation_size} numbers; got {len(seen)}")
        return seen


Expert = Callable[[gymnasium.Env, np.ndarray], np.ndarray]
"""The user's own environment and its observation to the action that solves it."""
Judge = Callable[[Mapping[str, Any], float], bool]
"""The info of an episode's last step and its return to whether it succeeded."""


class GymVectorEnv(VectorEnv):
    """Gymnasium environments of some tasks.

    An episode ends where its environment says so, by termination or by truncation, at the latest after the horizon; its
    success is that of its last step. An environment that raises, or observes what is not finite, is made anew.

    Args:
        make: the environment of a task.
        horizon: of an episode.
        judge: whether an episode succeeded.
        expert: where there is one.
        threads: environments stepped at the same time; worth it where a step frees the interpreter.
        most_faults: failures before it is given up.
        timeout: seconds that `make`, `reset`, `step` or the expert may take, see `deadline`.

    Raises:
        QuickstudyError: from `step` or `reset`, after `most_faults` failures in all; or where an environment cannot be
            made at all.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        episodes_per_task: int,
        make: Callable[[Task], Flat],
        horizon: int,
        judge: Judge,
        expert: Expert | None = None,
        threads: int = 1,
        most_faults: int = MOST_FAULTS,
        timeout: float = TIMEOUT,
    ) -> None:
        self.tasks, self.episodes_per_task, self.horizon = list(tasks), episodes_per_task, horizon
        self._make, self._judge, self._expert, self._most_faults = make, judge, expert, most_faults
        self._timeout = timeout
        self._envs: list[Flat] = []
        for task in self.tasks:
            self._envs += [self._made(task) for _ in range(episodes_per_task)]
        self.action_size = len(self._envs[0].scale.half)
        self._observations = np.zeros((self.size, self._envs[0].observation_size), "f4")
        self._returns, self._over = np.zeros(self.size), np.ones(self.size, bool)
        self._noise: dict[int, np.random.Generator] = {}
        self._disturbance = 0.0
        self._threads = threads
        self._pool = ThreadPool(threads) if threads > 1 else None

    def reset(
        self,
        generators: Sequence[np.random.Generator],
        chosen: np.ndarray | None = None,
        disturbance: float = 0.0,
    ) -> np.ndarray:
        indices = as_indices(chosen, self.size).tolist()
        self._noise, self._disturbance = dict(zip(indices, generators, strict=True)), disturbance
        for i, rng in self._noise.items():
            self._observations[i] = self._begin(i, int(rng.integers(1 << 31)))
        self._returns[indices], self._over[indices] = 0.0, False
        return self._grid(self._observations.copy())

    def step(self, actions: np.ndarray, active: np.ndarray) -> StepResult:
        flat = np.asarray(actions).reshape(self.size, -1)
        indices: list[int] = np.flatnonzero(active & ~self._grid(self._over)).tolist()
        if self._disturbance:
            flat = flat.astype("f8")
            for i in indices:
                flat[i] += self._disturbance * self._noise[i].normal(size=self.action_size)
        tried = self._all(indices, flat[indices])
        rewards, flags = np.zeros(self.size), np.zeros((4, self.size), bool)
        terminated, truncated, success, broken = flags
        for i, result in zip(indices, tried, strict=True):
            if isinstance(result, Exception):
                self._restart(i, result)
                broken[i] = self._over[i] = True
                continue
            self._observations[i], rewards[i], terminated[i], truncated[i], info = result
            self._returns[i] += rewards[i]
            self._over[i] = terminated[i] or truncated[i]
            success[i] = self._over[i] and self._judge(info, self._returns[i])
        return StepResult(*(self._grid(values) for values in (self._observations.copy(), rewards, *flags)))

    def expert_action(self) -> np.ndarray:
        """What the user's expert would do now, as learners see it, [task, episode, act]; NaN where an episode is over.

        Raises:
            QuickstudyError: there is no expert, or it gives no action.
        """
        if self._expert is None:
            return super().expert_action()
        actions = np.full((self.size, self.action_size), np.nan)
        for i in np.flatnonzero(~self._over).tolist():
            try:
                with deadline(self._timeout):
                    given = np.asarray(self._expert(self._envs[i].env, self._envs[i].raw), float)
            except Exception as error:  # as of their environments
                raise QuickstudyError(
                    f"The expert of '{self._task(i).family}' failed on task {self._task(i).name} ({_said(error)})."
                ) from error
            if given.size != self.action_size or not np.isfinite(given).all():
                task = self._task(i)
                raise QuickstudyError(
                    f"The expert of '{task.family}' must return {self.action_size} finite numbers; got {given} for "
                    f"task {task.name}."
                )
            actions[i] = self._envs[i].scale(given)
        return self._grid(actions)

    def render(self, index: int, width: int | None = None, height: int | None = None) -> np.ndarray:
        """A picture of one environment, as large as it draws itself."""
        frame = self._envs[index].render()
        if not isinstance(frame, np.ndarray):
            raise QuickstudyError(
                f"Environments of '{self._task(index).family}' draw no rgb_array; got {type(frame).__name__}."
            )
        return frame

    def close(self) -> None:
        for env in self._envs:
            close(env, self._timeout)
        if self._pool is not None:
            self._pool.close()

    def _made(self, task: Task) -> Flat:
        try:
            with deadline(self._timeout):
                return self._make(task)
        except QuickstudyError:
            raise
        except Exception as error:
            raise QuickstudyError(f"The environment of {task.name} cannot be made ({_said(error)}).") from error

    def _all(self, indices: list[int], actions: np.ndarray) -> list[Any]:
        """What came of the steps of some environments, an exception where one failed or took too long."""
        if self._pool is None:
            return list(map(self._try, indices, actions))
        asked = [self._pool.apply_async(self._try, pair) for pair in zip(indices, actions, strict=True)]
        found: list[Any] = []
        for one in asked:
            try:
                found.append(one.get(self._timeout))
            except WaitedTooLong:
                found.append(TimeoutError(f"it took longer than {self._timeout:g} s"))
        if any(isinstance(one, TimeoutError) for one in found):
            self._pool.close()
            self._pool = ThreadPool(self._threads)  # threads that hang are left behind; they end with the process
        return found

    def _try(self, i: int, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]] | Exception:
        try:
            with deadline(self._timeout):
                result = self._envs[i].step(action)
            if not np.isfinite(result[0]).all():
                raise ValueError("an observation is not finite")
        except Exception as error:  # any failure of a user's environment is the user's to hear of, by name
            return error
        return result

    def _begin(self, i: int, seed: int) -> np.ndarray:
        while True:
            try:
                with deadline(self._timeout):
                    observation, _ = self._envs[i].reset(seed=seed)
                if not np.isfinite(observation).all():
                    raise ValueError("its first observation is not finite")
                return observation
            except Exception as error:
                self._restart(i, error)

    def _restart(self, i: int, error: Exception) -> None:
        self.faults += 1
        said = f"The environment of {self._task(i).name} failed ({_said(error)})"
        if self.faults >= self._most_faults:
            raise QuickstudyError(
                f"{said}; that was failure {self.faults}, and {self._most_faults} are the limit."
            ) from error
        console.print(f"{said}; it was made anew (failure {self.faults} of at most {self._most_faults}).", markup=False)
        close(self._envs[i], self._timeout)
        self._envs[i] = self._made(self._task(i))

    def _task(self, i: int) -> Task:
        return self.tasks[i // self.episodes_per_task]

    def _grid(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(*self.shape, *values.shape[1:])
