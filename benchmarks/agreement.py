"""Whether the batched worlds do what the package does, step for step."""

from dataclasses import dataclass

import numpy as np

from quickstudy.families.metaworld import official
from quickstudy.families.metaworld.catalogue import TASKS
from quickstudy.families.metaworld.worlds import ACTION, MetaWorlds

OBSERVATION_LIMIT, REWARD_LIMIT = 1e-9, 1e-6
"""The largest differences that count as agreement; successes must be equal."""


@dataclass(frozen=True)
class Agreement:
    """How far two simulations of one task are apart.

    Attributes:
        task: its name.
        steps: that were compared, resets not counted.
        observation, reward: the largest absolute difference.
        success: steps at which one says success and the other does not.
        successes: steps with success, so that one sees that there were some.
    """

    task: str
    steps: int
    observation: float
    reward: float
    success: int
    successes: int

    @property
    def holds(self) -> bool:
        return self.observation <= OBSERVATION_LIMIT and self.reward <= REWARD_LIMIT and self.success == 0


def compare(name: str, episodes: int = 3, steps: int = 150, seed: int = 0, ported: bool = True) -> Agreement:
    """Runs a task in the package's own environment and in `MetaWorlds`, with the same starts and actions.

    Each start is run twice: with random actions, and with the expert's, which sees the package's observations.

    Args:
        ported: compare the batched task, if there is one; otherwise the adapter.
    """
    rng, env, expert = np.random.default_rng(seed), official.environment(name), official.expert(name)
    vectors = [TASKS[name].vector(rng) for _ in range(episodes) for _ in range(2)]
    n = len(vectors)
    random = rng.uniform(-1.0, 1.0, (steps, n, ACTION)).astype(np.float32)
    seen, actions = np.zeros((steps + 1, n, 39)), random
    reward, success = np.zeros((steps, n)), np.zeros((steps, n), dtype=bool)
    for i, vector in enumerate(vectors):
        official.fix(env, vector)
        seen[0, i], _ = env.reset()
        for step in range(steps):
            if i % 2:
                actions[step, i] = expert(seen[step, i][None])[0]
            seen[step + 1, i], reward[step, i], _, _, info = env.step(actions[step, i])
            success[step, i] = bool(info["success"])
    worlds = MetaWorlds([name] * n, ported=ported)
    ours, our_reward, our_success = np.empty_like(seen), np.empty_like(reward), np.empty_like(success)
    ours[0] = worlds.reset(vectors)
    for step in range(steps):
        ours[step + 1] = worlds.step(actions[step])
        our_reward[step], our_success[step] = worlds.reward, worlds.success
    worlds.close()
    return Agreement(
        name,
        steps * n,
        observation=float(np.abs(ours - seen).max()),
        reward=float(np.abs(our_reward - reward).max()),
        success=int((our_success != success).sum()),
        successes=int(success.sum()),
    )
