"""MAML in one page: an arm learns to learn how an object it has never seen must be grasped, from one demonstration.

`python examples/maml_grasping.py` takes about two minutes. The library's own version is methods/demonstrations/maml.py.
"""

import torch
from torch.func import functional_call, grad, vmap

import quickstudy
from quickstudy import DemonstrationSet
from quickstudy.families.grasping.family import Grasping
from quickstudy.nets import MLP


class BaseLearner(quickstudy.BaseLearner):
    """Solves one task: a network that imitates demonstrations by descending its error."""

    def __init__(self, observation_size, action_size):
        super().__init__(MLP(observation_size, action_size, hidden=[128, 128], context=16), observation_size)

    def loss(self, parameters, demonstrations):
        error = functional_call(self, parameters, (demonstrations.x,)) - demonstrations.y
        return (error.square().mean(-1) * demonstrations.mask).sum() / demonstrations.mask.sum()


class MetaLearner(quickstudy.MetaLearner):
    """Learns what the base learner starts from, so that a few steps of gradient descent solve a new task."""

    inner_steps, inner_rate = 5, 0.1

    def begin(self):
        return dict(self.base.named_parameters())

    def adapt(self, support):
        """The inner loop: one task, a few steps down the error on its demonstrations."""
        parameters = self.begin()
        for _ in range(self.inner_steps):
            gradient = grad(self.base.loss)(parameters, support)
            parameters = {name: p - self.inner_rate * gradient[name] for name, p in parameters.items()}
        return parameters

    def predict(self, parameters, x):
        return functional_call(self.base, parameters, (x,))

    def loss(self, task):
        """How well the adapted base learner imitates other demonstrations of the same task."""
        return self.base.loss(self.adapt(task.support), task.query), {}


def meta_train(learner, demonstrations, steps):
    """The outer loop: many tasks, each step moves the start to where adapting to a meta-batch of them works better."""
    optimiser = torch.optim.Adam(learner.parameters(), lr=2e-3)
    rng = torch.Generator().manual_seed(0)
    for step in range(steps):
        meta_batch = demonstrations.sample(rng, tasks=16, shots=1, queries=2)
        losses, _ = vmap(learner.loss)(meta_batch)
        optimiser.zero_grad()
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 10.0)
        optimiser.step()
        if step % 50 == 0:
            print(f"step {step}: error after adaptation {losses.mean():.4f}")


def main(train_tasks=150, test_tasks=40, steps=600):
    torch.manual_seed(0)
    family = Grasping()
    demonstrations = DemonstrationSet.record(family, family.tasks("train", train_tasks), count=4, seed=0)
    learner = MetaLearner(BaseLearner(family.observation_size, family.action_size))
    learner.standardise(demonstrations.batch)
    meta_train(learner, demonstrations, steps)
    result = quickstudy.evaluate(learner, family, "sizes", shots=[0, 1], tasks=test_tasks)
    before, after = result.metrics["success"].mean((1, 2))
    print(f"Objects of unseen sizes: {before:.0%} grasped before a demonstration, {after:.0%} after one.")
    return before, after


if __name__ == "__main__":
    main()
