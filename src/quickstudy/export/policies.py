"""What of a trained learner becomes graphs: the skill before any experience, how it adapts, how it acts."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from quickstudy.data import Batch
from quickstudy.errors import QuickstudyError
from quickstudy.export.graphs import graph
from quickstudy.learner import MetaLearner
from quickstudy.methods.trials.baselines import MultiTask
from quickstudy.methods.trials.policy import GaussianPolicy
from quickstudy.methods.trials.recurrent import Recurrent
from quickstudy.results.adaptation import leaf_names

_PRIMES = (11, 13, 17, 19, 23, 29, 31, 37)
"""Numbers of demonstrations and of steps to trace with: none may be the length of anything else, or the tracer takes
the two for one."""


@dataclass(frozen=True)
class Exported:
    """A learner as graphs.

    Attributes:
        skill: by name, each tensor of a skill: its shape, -1 where it follows the demonstrations, and its type.
        begin: the skill before any demonstration, by name.
        changes: names of what acting changes.
        graphs: 'act' and perhaps 'adapt', as ONNX.
        inputs: what acting takes beside the skill: 'observation', and by trial 'previous_action', 'reward' and 'done'.
        action_size: width of an action.
        adapt, act: the same in PyTorch, for parity: from demonstrations [shot, step, obs + act + 1], with the mask
            last, to a skill's tensors, and from these and the `inputs` to an action and the tensors that follow.
        exact: `adapt` in float64.
    """

    skill: dict[str, tuple[tuple[int, ...], str]]
    begin: dict[str, np.ndarray]
    changes: tuple[str, ...]
    graphs: dict[str, bytes]
    inputs: tuple[str, ...]
    action_size: int
    act: Callable[..., list[Tensor]]
    adapt: Callable[[Tensor], list[Tensor]] | None = None
    exact: Callable[[Tensor], list[Tensor]] | None = None


def of_demonstrations(learner: MetaLearner, observation_size: int, action_size: int) -> Exported:
    """A learner that adapts to demonstrations.

    Raises:
        QuickstudyError: the exporter does not know what the method does.
    """
    skill = learner.begin()
    names, (begun, spec) = leaf_names(skill), tree_flatten(skill)
    begun = [leaf.detach().clone() for leaf in begun]

    def adapted(by: MetaLearner, support: Tensor) -> list[Tensor]:
        x, y, mask = support.split([observation_size, action_size, 1], -1)
        return list(tree_flatten(by.adapt(Batch(x, y, mask[..., 0], support.new_zeros(1))))[0])

    def adapt(support: Tensor) -> list[Tensor]:
        return adapted(learner, support)

    def exact(support: Tensor) -> list[Tensor]:
        return adapted(copy.deepcopy(learner).double(), support.double())

    def act(*given: Tensor) -> list[Tensor]:
        *leaves, observation = given
        action, following = learner.act(tree_unflatten(list(leaves), spec), observation)
        return [action, *tree_flatten(following)[0]]

    rng = torch.Generator().manual_seed(0)
    taken = {n for tensor in (*learner.parameters(), *learner.buffers(), *begun) for n in tensor.shape}
    free = [n for n in _PRIMES if n not in taken | {observation_size, action_size}]
    lengths = (free[0], free[1]), (free[2], free[3]), (2, 5)
    supports = [_support(rng, shots, steps, observation_size, action_size) for shots, steps in lengths]
    made = [[leaf.detach() for leaf in adapt(support)] for support in supports]
    every = [begun, *made]
    if any(len(leaves) != len(begun) for leaves in every):
        raise QuickstudyError("A skill must be a tree of the same form before and after adaptation to be exported.")
    varying = [
        [axis for axis in range(parts[0].ndim) if len({part.shape[axis] for part in parts}) > 1]
        for parts in zip(*every, strict=True)
    ]
    described = {
        name: (tuple(-1 if axis in axes else n for axis, n in enumerate(leaf.shape)), _kind(leaf))
        for name, leaf, axes in zip(names, begun, varying, strict=True)
    }
    graphs = {"adapt": graph(learner, adapt, [supports[0]], [[0, 1]], ["support"], names)}
    example, observation = made[0], torch.randn(observation_size, generator=rng)
    changed = _changed(act(*example, observation), example)
    # A leaf that stays as it was is no output of a graph.
    act_names = ["action", *(f"next.{names[i]}" for i in changed)]
    graphs["act"] = graph(
        learner, lambda *given: _kept(act(*given), changed), [*example, observation], [*varying, []],
        [*names, "observation"], act_names,
    )  # fmt: skip
    return Exported(
        described, {n: leaf.numpy() for n, leaf in zip(names, begun, strict=True)}, tuple(names[i] for i in changed),
        graphs, ("observation",), action_size, lambda *given: _kept(act(*given), changed),
        adapt, exact,
    )  # fmt: skip


def of_trials(learner: Any, observation_size: int, action_size: int) -> Exported:
    """A policy whose memory learns the task while it tries (RL^2 and its kin): its state is the skill.

    Or one that is the same for all tasks and does not adapt: its parameters are.

    Raises:
        QuickstudyError: the learner has no such memory, or the exporter does not know what it does.
    """
    if isinstance(learner, MultiTask) and learner.at_test == "nothing":
        return _of_policy(learner.policy, observation_size, action_size)
    if not isinstance(learner, Recurrent):
        raise QuickstudyError(
            f"{type(learner).__name__} learns a task by gradients from its own trials, which a robot's bundle does not "
            "hold; methods with a memory, such as rl2, and those that learn from demonstrations can be exported."
        )
    state = learner.core.begin(1)
    names, (begun, spec) = leaf_names(state), tree_flatten(state)
    unit = learner.unit.tolist()

    def act(*given: Tensor) -> list[Tensor]:
        *leaves, observation, action, reward, done = given
        # Section 2.2 of RL^2: (s, a, r, d).
        scaled = observation / (unit if isinstance(unit, float) else torch.tensor(unit))
        x = torch.cat([scaled, action.clamp(-1, 1), reward, done])[None]
        features, following = learner.core.advance(tree_unflatten(list(leaves), spec), x)
        return [learner.act(features).mean[0], *tree_flatten(following)[0]]

    begun = [leaf.detach().contiguous().clone() for leaf in begun]
    given = [*begun, torch.randn(observation_size), torch.zeros(action_size), torch.zeros(1), torch.zeros(1)]
    changed = _changed(act(*given), begun)
    inputs = ("observation", "previous_action", "reward", "done")
    outputs = ["action", *(f"next.{names[i]}" for i in changed)]
    act_graph = graph(
        learner, lambda *given: _kept(act(*given), changed), given, [[] for _ in given], [*names, *inputs], outputs
    )
    return Exported(
        {name: (tuple(leaf.shape), _kind(leaf)) for name, leaf in zip(names, begun, strict=True)},
        {n: leaf.numpy() for n, leaf in zip(names, begun, strict=True)}, tuple(names[i] for i in changed),
        {"act": act_graph}, inputs, action_size, lambda *given: _kept(act(*given), changed),
    )  # fmt: skip


def _of_policy(policy: GaussianPolicy, observation_size: int, action_size: int) -> Exported:
    """A policy without a memory."""
    policy, unit = copy.deepcopy(policy), policy.unit
    del policy.unit
    policy.register_buffer("unit", unit)  # a constant of the graph, as parameters are
    parameters = {name: p.detach().clone() for name, p in policy.initial().items() if name != "log_std"}

    def act(*given: Tensor) -> list[Tensor]:
        *leaves, x = given
        return [policy.predict({**dict(zip(parameters, leaves, strict=True)), "log_std": policy.log_std}, x).mean]

    given = [*parameters.values(), torch.randn(observation_size)]
    act_graph = graph(policy, act, given, [[] for _ in given], [*parameters, "observation"], ["action"])
    return Exported(
        {name: (tuple(leaf.shape), _kind(leaf)) for name, leaf in parameters.items()},
        {name: leaf.numpy() for name, leaf in parameters.items()}, (), {"act": act_graph}, ("observation",),
        action_size, act,
    )  # fmt: skip


def _support(rng: torch.Generator, shots: int, steps: int, obs: int, act: int) -> Tensor:
    """Made-up demonstrations as the graph takes them: observations, actions, mask side by side, [shot, step, ...]."""
    mask = torch.ones(shots, steps, 1)
    mask[0, -1:] = 0.0
    x, y = torch.randn(shots, steps, obs, generator=rng), 0.3 * torch.randn(shots, steps, act, generator=rng)
    return torch.cat([x, y, mask], -1)


def _changed(made: list[Tensor], before: list[Tensor]) -> list[int]:
    """Which leaves acting changes: those that are not handed on as they were."""
    return [i for i, (new, old) in enumerate(zip(made[1:], before, strict=True)) if new is not old]


def _kept(made: list[Tensor], changed: list[int]) -> list[Tensor]:
    return [made[0], *(made[1 + i] for i in changed)]


def _kind(leaf: Tensor) -> str:
    return str(leaf.dtype).removeprefix("torch.")
