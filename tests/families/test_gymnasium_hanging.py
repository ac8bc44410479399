"""A user's environment that hangs, in a training, an evaluation and a recording: named, made anew and counted."""

import time

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from quickstudy import datasets, families
from quickstudy.datasets.record import record
from quickstudy.errors import QuickstudyError
from quickstudy.experiment import Experiment

SECONDS = 0.3
LIMIT = 20


class Slow(gymnasium.Env):
    """A point on a line that is to go to a place; now and then a step waits, or computes, for ever."""

    observation_space = spaces.Box(-9.0, 9.0, (1,))
    action_space = spaces.Box(-1.0, 1.0, (1,))
    steps = closed = made = 0
    often, how = 0, "sleep"

    def __init__(self, place: float = 0.0):
        self.place = place
        Slow.made += 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1, 1).astype("f4")
        if Slow.how == "reset":
            time.sleep(100)
        return self.x, {}

    def step(self, action):
        Slow.steps += 1
        if Slow.often and Slow.steps % Slow.often == 0:
            while True:
                if Slow.how == "sleep":
                    time.sleep(100)
        self.x = np.clip(self.x + action, -9, 9).astype("f4")
        off = abs(float(self.x[0]) - self.place)
        return self.x, -off, False, False, {"success": off < 0.3}

    def close(self):
        Slow.closed += 1
        if Slow.how == "close":
            time.sleep(100)
        raise RuntimeError("it does not close")


@pytest.fixture
def slow():
    def make(often: int = 0, how: str = "sleep", **options):
        Slow.often, Slow.how, Slow.steps, Slow.closed, Slow.made = often, how, 0, 0, 0
        return families.from_gymnasium(
            Slow, {"place": (-1.0, 1.0)}, horizon=5, timeout=SECONDS, name="slow",
            expert=lambda env, x: np.clip(env.place - x, -1, 1), **options,
        )  # fmt: skip

    yield make
    Slow.often, Slow.how = 0, "sleep"


@pytest.mark.parametrize("how", ["sleep", "compute"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_that_hangs_is_told_made_anew_and_counted(slow, capsys, how, threads):
    if (how, threads) == ("compute", 2):
        pytest.skip("a thread that computes for ever is left behind, and would slow down all other tests")
    family = slow(how=how, threads=threads)
    env = family.vector_env(family.tasks("train", 2), 2)
    env.reset([np.random.default_rng(i) for i in range(4)])
    Slow.often = 3
    found = env.step(np.zeros((2, 2, 1)), np.ones((2, 2), bool))
    Slow.often = 0
    assert found.broken.sum() == env.faults == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "The environment of slow/train/" in said
    assert f"failed (TimeoutError: it took longer than {SECONDS:g} s); it was made anew (failure 1 of at most" in said
    env.reset([np.random.default_rng(i) for i in range(4)])
    assert not env.step(np.zeros((2, 2, 1)), np.ones((2, 2), bool)).broken.any()
    env.close()
    assert Slow.closed >= 5  # the four and the one that hung, though closing fails


def test_environments_that_always_hang_are_given_up(slow):
    family = slow(how="reset")
    env = family.vector_env(family.tasks("train", 1), 1)
    started = time.monotonic()
    with pytest.raises(QuickstudyError, match=rf"that was failure {LIMIT}, and {LIMIT} are the limit"):
        env.reset([np.random.default_rng(0)])
    assert time.monotonic() - started < 3 * LIMIT * SECONDS


def test_an_environment_that_hangs_while_it_is_made_or_closed(slow):
    family = slow(how="close")
    env = family.vector_env(family.tasks("train", 1), 2)
    started = time.monotonic()
    env.close()
    assert time.monotonic() - started < 10 * SECONDS
    family._make = lambda **_: time.sleep(100)
    with pytest.raises(QuickstudyError, match=r"environment of slow/train/0 cannot be made \(TimeoutError"):
        family.vector_env(family.tasks("train", 1), 1)


def test_a_training_and_an_evaluation_go_on(slow, capsys, tmp_path):
    family = slow()
    changes = {
        "training": {
            "steps": 2, "validate_every": 1, "meta_batch": 2, "episodes_per_task": 2, "validation_tasks": 2,
        },
        "network": {"hidden": (4,)},
    }  # fmt: skip
    experiment = Experiment.of(family, "maml-trpo", changes=changes)
    Slow.often = 60
    learner = experiment.train(tmp_path / "run")
    capsys.readouterr()
    Slow.steps = 0
    result = experiment.evaluate(learner, "test", shots=[0, 1], tasks=3, episodes=4)
    assert len(result.tasks) == 3
    assert "it took longer than" in capsys.readouterr().out


def test_an_expert_that_hangs_or_fails_while_it_is_recorded(slow, tmp_path):
    family = slow()
    for expert, said in ((lambda env, x: time.sleep(100), "TimeoutError"), (lambda env, x: 1 / 0, "ZeroDivisionError")):
        family._expert = expert
        with pytest.raises(QuickstudyError, match=rf"expert of 'slow' failed on task slow/train/0 \({said}"):
            record(family, "train", 1, 1, tmp_path / "x.npz")
        assert not list(tmp_path.iterdir())


def test_a_recording_goes_on(slow, tmp_path, capsys):
    family = slow()
    Slow.often = 23
    record(family, "train", 4, 2, tmp_path / "x.npz")
    assert len(datasets.load(tmp_path / "x.npz")) == 8
    assert "it took longer than" in capsys.readouterr().out
