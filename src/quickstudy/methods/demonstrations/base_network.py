"""The base learners that methods start from: networks by `NetworkConfig`, shaped by what a family shows and wants."""

from collections.abc import Callable

from torch import Tensor, nn

from quickstudy.data import Batch
from quickstudy.learner import BaseLearner, imitation_loss, recognition_loss, root_imitation_loss
from quickstudy.nets import MLP, ConvClassifier, ConvNet
from quickstudy.settings import Settings
from quickstudy.task import TaskFamily


def base_learner(s: Settings, family: TaskFamily, outputs: int | None = None, extra: int = 0) -> BaseLearner:
    """A base learner with as many outputs as the family's actions, or that many; `extra` inputs beside observations."""
    inputs = family.observation_size + extra
    network: nn.Module
    if family.image is None or extra:
        layers = s.network.hidden, s.network.context, s.network.normalise
        network = MLP(inputs, outputs or family.action_size, *layers)
    else:
        options = s.network.channels, s.network.batch_statistics, s.network.bfloat16, s.network.num_augmentations
        network = ConvNet(family.image, outputs or s.network.embedding, *options)
        network = network if outputs else ConvClassifier(network, family.action_size)
    return BaseLearner(network, inputs, criterion(family), family.image is not None)


def raw_learner(family: TaskFamily) -> BaseLearner:
    """A base learner that hands its standardised observations on."""
    return BaseLearner(nn.Identity(), family.observation_size, criterion(family), family.image is not None)


def embedder(s: Settings, family: TaskFamily) -> tuple[BaseLearner, int]:
    """What embeds observations, and the width of that."""
    width = s.network.embedding
    return (base_learner(s, family, width), width) if width else (raw_learner(family), family.observation_size)


def criterion(family: TaskFamily) -> Callable[[Tensor, Batch], Tensor]:
    """How badly a prediction imitates, as the family judges it."""
    if family.labelled:
        return recognition_loss
    return root_imitation_loss if family.metric == "rmse" else imitation_loss
