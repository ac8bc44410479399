"""Few-shot recognition of images in one page: having seen some two-digit numbers, others are learned from one look.

The numbers are not quite centred, which hides them from whoever compares pixels; that it does not matter is what the
training numbers teach. `pip install scikit-learn`, then `python examples/digits_prototypical.py`; it takes some
seconds. Your own images go in the same way: x is [example, height, width], y the class of each.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits

from quickstudy import BaseLearner, TrainConfig, evaluate, families, meta_train
from quickstudy.learner import recognition_loss
from quickstudy.methods.demonstrations.baselines import NearestNeighbour, recorded_base
from quickstudy.methods.demonstrations.prototypical import PrototypicalNetworks
from quickstudy.nets import ConvNet

WAYS, EMBEDDING, EXAMPLES = 5, 64, 8


def handwritten_numbers():
    """00 to 99, eight of each, somewhere in 10 x 18 pixels; every scan of a digit is in one of them alone."""
    digits, rng = load_digits(), np.random.default_rng(0)
    scans = [iter(digits.images[digits.target == digit] / 16) for digit in range(10)]
    y = np.repeat(np.arange(100), EXAMPLES)
    x = np.zeros((len(y), 10, 18))
    for page, number, (down, right) in zip(x, y, rng.integers(0, 3, (len(y), 2)), strict=True):
        page[down : down + 8, right : right + 16] = np.hstack([next(scans[number // 10]), next(scans[number % 10])])
    return x, y


def main(steps=400, tasks=200):
    """Accuracy on numbers that training never saw, by shots: of the meta-learned and of nearest neighbours."""
    x, y = handwritten_numbers()
    family = families.from_arrays(x, y, ways=WAYS, queries=3, name="numbers")

    torch.manual_seed(0)
    network = ConvNet(family.image, EMBEDDING, channels=[32, 32, 32])
    base = BaseLearner(network, family.observation_size, recognition_loss)
    learner = PrototypicalNetworks(base, EMBEDDING, WAYS, labelled=True)
    meta_train(learner, family.fresh(), TrainConfig(steps, meta_batch=8, shots=1, queries=3, batching="vmap"))

    nearest = NearestNeighbour(recorded_base(family.observation_size), WAYS)
    accuracy = {}
    for name, one in {"prototypical": learner, "nearest neighbour": nearest}.items():
        result = evaluate(one, family, "test", shots=[1, 5], tasks=tasks, episodes=15)
        accuracy[name] = after_one, after_five = result.metrics["accuracy"].mean((1, 2))
        print(f"{name:18} {after_one:.1%} after one example of each number, {after_five:.1%} after five")
    print(f"chance             {1 / WAYS:.1%}")
    return accuracy


if __name__ == "__main__":
    main()
