"""A family of your own Gymnasium environment: from one demonstration a cart learns where to park.

`python examples/own_environment.py` takes some seconds. `quickstudy check own_environment:family` in this folder goes
through what a family has to keep.
"""

import gymnasium
import numpy as np

from quickstudy import Experiment, families


class Cart(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)  # place and speed; the mark is not seen
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def __init__(self, mark, mass):
        self.mark, self.mass = mark, mass

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.uniform([-1.0, -0.1], [1.0, 0.1])
        return self.state.astype("f4"), {}

    def step(self, action):
        speed = self.state[1] + 0.1 * float(action[0]) / self.mass
        self.state = np.array([self.state[0] + 0.1 * speed, speed])
        parked = bool(abs(self.state[0] - self.mark) < 0.05 and abs(speed) < 0.05)
        return self.state.astype("f4"), 0.0, False, False, {"success": parked}


def family():
    masses = {"validation": {"mass": (1.5, 1.6)}, "test": {"mass": (1.6, 2.0)}}  # of training: 1 to 1.5
    varies, expert = {"mark": (-1.0, 1.0), "mass": (1.0, 1.5)}, lambda env, x: [3 * (env.mark - x[0]) - 3.5 * x[1]]
    return families.from_gymnasium(Cart, varies, {"train": {}, **masses}, expert=expert, horizon=60, name="cart")


def main(steps=300, tasks=20):
    training = {"steps": steps, "validate_every": steps, "batching": "vmap"}
    changes = {"training": training, "data": {"tasks": 100, "demonstrations": 4}}
    experiment = Experiment.of(family(), "hypernet", changes=changes)
    return experiment.evaluate(experiment.train(), tasks=tasks, episodes=3).metrics["success"].mean((1, 2))


if __name__ == "__main__":
    print("success after 0 and 1 demonstrations: {:.0%}, {:.0%}".format(*main()))
