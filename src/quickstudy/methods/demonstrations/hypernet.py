"""Conditioned networks: one pass over the demonstrations writes the adaptation; no gradient is taken at test.

A context encoder turns the support into a task vector z (Garnelo et al. 2018, Conditional Neural Processes, Eqs. 1-3: a
network of every element, an aggregation, a network of the aggregate). A hypernetwork (Ha et al. 2017) maps z to a scale
and a shift of every hidden channel of the base network, FiLM (Perez et al. 2018, Visual Reasoning with a General
Conditioning Layer, Eq. 2). Everything is trained end to end by the query loss. There are two:

- `Hypernet`, for control: a policy conditioned on its demonstrations, as in one-shot imitation (Duan et al. 2017) and
  TecNets (James et al. 2018).
- `HypernetClassifier`, for recognition: CNAPs (Requeima et al. 2019, section 2.2).

Deviations. The aggregate is the mean of deep sets (Zaheer et al. 2017, Theorem 2) together with attention by learned
seeds (Lee et al. 2019, Set Transformer, section 3.2), which can read a goal from the few steps that show it; the
elements themselves are aggregated along with their features. Duan et al. and James et al. give the task vector to the
policy as an input; here it modulates the policy. CNAPs has a pre-trained and frozen feature extractor, a set encoder of
its own and an autoregressive generator; here the base network is the extractor, trained with the rest, it embeds the
elements of the set too, and z alone generates all layers.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.data import Batch
from quickstudy.errors import QuickstudyError
from quickstudy.learner import BaseLearner, MetaLearner
from quickstudy.method import Method
from quickstudy.methods.demonstrations.base_network import base_learner
from quickstudy.nets import MLP
from quickstudy.settings import Config, PositiveInt, Settings
from quickstudy.task import TaskFamily

Modulation = dict[str, Tensor]
"""gamma and beta of every `FiLM` layer, by name in the base learner."""

_NEVER = -1e4
"""The logit of a class without an example in the support; finite, so that the loss is."""


@dataclass(frozen=True)
class HypernetConfig(Config):
    """Settings of the context encoder.

    Attributes:
        hidden: width of the network of each element, and of that of the aggregate.
        heads: learned seeds of attention, in addition to the mean.
        task: width of the task vector z.
    """

    hidden: PositiveInt = 128
    heads: PositiveInt = 8
    task: PositiveInt = 64


class FiLM(nn.Module):
    """Scales and shifts each channel: the identity unless a skill replaces gamma and beta."""

    gamma: Tensor
    beta: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("gamma", torch.ones(shape), persistent=False)
        self.register_buffer("beta", torch.zeros(shape), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # FiLM (Perez et al. 2018, Eq. 2): gamma x + beta
        return self.gamma * x + self.beta


def insert_film(network: nn.Module) -> None:
    """Puts a `FiLM` before each ReLU of the network's `body`, as wide as the linear layer or convolution before it.

    The other layers keep their names, so that a training may start from a network without it.

    Raises:
        QuickstudyError: the network has no such body.
    """
    layers: list[nn.Module] = []
    shape: tuple[int, ...] = ()
    for layer in getattr(network, "body", []):
        if isinstance(layer, nn.Linear):
            shape = (layer.out_features,)
        elif isinstance(layer, nn.Conv2d):
            shape = (layer.out_channels, 1, 1)
        layers.append(nn.Sequential(FiLM(*shape), layer) if isinstance(layer, nn.ReLU) else layer)
    if not any(isinstance(layer, nn.ReLU) for layer in getattr(network, "body", [])):
        raise QuickstudyError("A hypernet needs a base network whose layers, ReLU among them, are named 'body'.")
    network.body = nn.Sequential(*layers)


class ContextEncoder(nn.Module):
    """A set of elements to a task vector, whatever their order (Zaheer et al. 2017; Lee et al. 2019, section 3.2)."""

    def __init__(self, elements: int, config: HypernetConfig) -> None:
        super().__init__()
        features = elements + config.hidden
        self.element = MLP(elements, config.hidden, (config.hidden,))
        self.scores = nn.Linear(features, config.heads)
        self.aggregate = MLP((1 + config.heads) * features, config.task, (config.hidden,))

    def forward(self, elements: Tensor, mask: Tensor) -> Tensor:
        """Elements [n, element] and their mask [n] to z [task]; without a real element the aggregate is zero."""
        # Garnelo et al. 2018, Eq. 1: a network of every element
        features = torch.cat([elements, self.element(elements).relu()], -1)
        # Eqs. 2 and 3: an aggregate that knows no order, and a network of it
        return self.aggregate((self.weights(features, mask).mT @ features).flatten())

    def weights(self, features: Tensor, mask: Tensor) -> Tensor:
        """The weight of each element in the mean and for each seed, [n, 1 + heads]; 0 for padding."""
        mean = mask / mask.sum().clamp(min=1.0)
        # Lee et al. 2019, section 3.2: attention by seeds; seed . key(features) is one linear function of the features
        scores = self.scores(features).masked_fill(mask[:, None] == 0, -1e9)
        return torch.cat([mean[:, None], scores.softmax(0) * mask[:, None]], -1)


class Modulator(nn.Module):
    """A set of elements to the modulation of a base learner, which gets its `FiLM` layers here.

    The generator starts at zero, so that every modulation is the identity before any training.
    """

    def __init__(self, base: BaseLearner, elements: int, config: HypernetConfig) -> None:
        super().__init__()
        insert_film(base.network)
        self.elements = elements
        self.shapes = {n: b.shape for n, b in base.named_buffers() if n.endswith((".gamma", ".beta"))}
        self.encoder = ContextEncoder(elements, config)
        self.generator = nn.Linear(config.task, sum(shape.numel() for shape in self.shapes.values()))
        nn.init.zeros_(self.generator.weight)
        nn.init.zeros_(self.generator.bias)

    def forward(self, elements: Tensor, mask: Tensor) -> Modulation:
        """Elements [n, element] and their mask [n] to gamma and beta of every layer."""
        # Ha et al. 2017: the hypernetwork, one linear layer from z to all gamma - 1 and beta
        generated = self.generator(self.encoder(elements, mask)).split([s.numel() for s in self.shapes.values()])
        return {
            name: part.reshape(shape) + (1.0 if name.endswith(".gamma") else 0.0)
            for (name, shape), part in zip(self.shapes.items(), generated, strict=True)
        }

    def of_nothing(self) -> Modulation:
        """The modulation by an empty support."""
        nothing = self.generator.bias.new_zeros(1, self.elements)
        return self(nothing, nothing[:, 0])


class Hypernet(MetaLearner):
    """A policy that is conditioned on its demonstrations. Skill: the modulation of the base network.

    An element of the context is a step, [observation, action], both standardised. The order of steps does not matter.

    Args:
        base: gives actions; its network gets `FiLM` layers.
        actions: width of an action.
    """

    adapts_weights = False

    def __init__(self, base: BaseLearner, actions: int, config: HypernetConfig = HypernetConfig()) -> None:
        super().__init__(base)
        elements = len(base.mean) + actions
        self.modulate = Modulator(base, elements, config)
        self.step = BaseLearner(nn.Identity(), elements)

    def standardise(self, batch: Batch) -> None:
        super().standardise(batch)
        self.step.standardise(batch._replace(x=torch.cat([batch.x, batch.y], -1)))

    def begin(self) -> Modulation:
        return self.modulate.of_nothing()

    def adapt(self, support: Batch) -> Modulation:
        steps = self.step(torch.cat([support.x, support.y], -1))
        return self.modulate(steps.flatten(0, 1), support.mask.flatten())

    def predict(self, skill: Modulation, x: Tensor) -> Tensor:
        return self.base.predict(skill, x)


class Classifier(NamedTuple):
    """The skill of `HypernetClassifier`: the modulation of the embedding, and a linear classifier of what it embeds.

    Attributes:
        weights: [class, embedding].
        biases: [class].
    """

    modulation: Modulation
    weights: Tensor
    biases: Tensor


class HypernetClassifier(MetaLearner):
    """CNAPs: a modulated embedding and a generated linear classifier. Skill: both.

    Args:
        base: embeds; its network gets `FiLM` layers, and its last layer, `head`, gives the embedding.
        classes: of a task.
    """

    adapts_weights = False

    def __init__(self, base: BaseLearner, classes: int, config: HypernetConfig = HypernetConfig()) -> None:
        super().__init__(base)
        head = getattr(base.network, "head", None)
        if not isinstance(head, nn.Linear):
            raise QuickstudyError("HypernetClassifier needs a base network whose last, linear layer is named 'head'.")
        self.classes, self.embedding = classes, head.out_features
        self.modulate = Modulator(base, self.embedding, config)
        self.classify = MLP(self.embedding, self.embedding + 1, (config.hidden,))

    def begin(self) -> Classifier:
        nothing = self.base.mean.new_zeros(self.classes, 1 + self.embedding)
        return Classifier(self.modulate.of_nothing(), nothing[:, 1:], nothing[:, 0])

    def adapt(self, support: Batch) -> Classifier:
        modulation = self.modulate(self.base(support.x).flatten(0, 1), support.mask.flatten())
        # Requeima et al. 2019, section 2.2: the classifier of a class is generated from its mean embedding
        labels = (support.y * support.mask[..., None]).flatten(0, 1)
        counts = labels.sum(0)
        means = labels.mT @ self.base.predict(modulation, support.x).flatten(0, 1) / counts.clamp(min=1.0)[:, None]
        weights, biases = self.classify(means).split([self.embedding, 1], -1)
        seen = counts > 0
        return Classifier(
            modulation,
            torch.where(seen[:, None], means + weights, 0.0),
            torch.where(seen, biases[:, 0], _NEVER),
        )

    def predict(self, skill: Classifier, x: Tensor) -> Tensor:
        return self.base.predict(skill.modulation, x) @ skill.weights.mT + skill.biases


def _build(s: Settings, family: TaskFamily) -> MetaLearner:
    if family.labelled:
        return HypernetClassifier(base_learner(s, family, s.network.embedding), family.action_size, s.algorithm)
    return Hypernet(base_learner(s, family), family.action_size, s.algorithm)


METHODS = (
    Method(
        "hypernet",
        "one pass over the demonstrations modulates the base network",
        _build,
        paper="Garnelo et al. 2018, Conditional Neural Processes, ICML; Perez et al. 2018, FiLM: Visual Reasoning with "
        "a General Conditioning Layer, AAAI; Requeima et al. 2019, Fast and Flexible Multi-Task Classification Using "
        "Conditional Neural Adaptive Processes, NeurIPS",
        settings=HypernetConfig,
    ),
)
