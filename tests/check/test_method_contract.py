"""Every method that learns from demonstrations keeps the contract, and what breaks it is named.

The tasks are 2D point navigation (skills), clusters of numbers (recognition) and, for methods that must be told where
things are, made-up carrying (places), because they cost nothing. Methods are found by their records: a new one needs no
line here.
"""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from carrying import Carrying
from quickstudy import methods
from quickstudy.check.methods import POINTS, Subject, check_method
from quickstudy.check.points import BrokenError, Point
from quickstudy.data import Batch
from quickstudy.errors import QuickstudyError
from quickstudy.families import own as families
from quickstudy.families.classic import PointNavigation
from quickstudy.families.recognition.family import Recognition
from quickstudy.learner import BaseLearner
from quickstudy.method import Method
from quickstudy.methods.demonstrations.base_network import base_learner
from quickstudy.methods.demonstrations.baselines import FineTuneConfig
from quickstudy.methods.demonstrations.hypernet import Hypernet
from quickstudy.methods.demonstrations.maml import MAML, MAMLConfig
from quickstudy.methods.demonstrations.mann import MANNConfig
from quickstudy.methods.demonstrations.meta_lstm import MetaLSTMConfig
from quickstudy.methods.demonstrations.reptile import ReptileConfig
from quickstudy.settings import NetworkConfig, Settings, TrainConfig


def clusters() -> Recognition:
    """Classes are directions in eight dimensions, blurred; ways are three."""
    rng = np.random.default_rng(0)
    x = 2.0 * rng.normal(size=(60, 1, 8)) + 0.5 * rng.normal(size=(60, 20, 8))
    return families.from_arrays(x.reshape(-1, 8), np.repeat(np.arange(60), 20), ways=3, name="clusters")


FAMILIES = {"skills": PointNavigation(), "recognition": clusters(), "places": Carrying()}
RECORDS = [methods.get(name) for name in methods.names("demonstrations")]
CASES = [
    (kind, record.name)
    for kind, family in FAMILIES.items()
    for record in RECORDS
    if not record.why_not(family) and (kind != "places" or record.why_not(FAMILIES["skills"]))
]
SMALL = {
    FineTuneConfig: {"steps": 30, "rate": 3e-3},
    MAMLConfig: {"inner_steps": 2},
    MANNConfig: {"slots": 16, "width": 12, "heads": 2, "controller": 32},
    MetaLSTMConfig: {"inner_steps": 3, "hidden": 8, "initial_rate": 0.05},
    ReptileConfig: {"inner_steps": 4, "test_steps": 20, "inner_rate": 5e-3},
}
"""Settings that make tests of some methods faster than their defaults would."""
SLOW_TO_LEARN = (MANNConfig,)


def settings(kind: str, record: Method) -> Settings:
    steps = 300 if record.settings in SLOW_TO_LEARN else 150
    queries, most = (8, 2) if kind == "recognition" else (2, 1)
    training = TrainConfig(steps, 8, most_shots=most, queries=queries, rate=3e-3)
    return Settings(
        FAMILIES[kind].name,
        record.name,
        network=NetworkConfig((32, 32), context=4, normalise=True, embedding=16),
        algorithm=record.settings(**SMALL.get(record.settings, {}) | record.fixed),
        training=replace(training, **record.changes.get("training", {})),
    )


def in_words(points: list[Point]) -> str:
    return "\n".join(f"{point.name}: {point.said}" for point in points)


@pytest.mark.parametrize(("kind", "method"), CASES)
def test_a_method_keeps_the_contract(kind, method):
    record = methods.get(method)
    points = check_method(record, FAMILIES[kind], settings(kind, record))
    assert [point.name for point in points] == list(POINTS)
    broken = [point for point in points if point.passed is False]
    assert not broken, in_words(broken)


SKIPS = {
    "maml": set(),
    "oracle": {"its graphs do what PyTorch does"},
    "matching": set(),
    "fomaml": {"the meta-gradient is right"},
    "mann": {"the order of demonstrations does not matter"},
    "no-adaptation": {"a demonstration helps", "another task's demonstration does not"},
    "nearest": {"the meta-gradient is right", "training resumes exactly", "training lowers the loss"},
}
"""What does not apply to some methods: a point that skipped everything would prove nothing."""


@pytest.mark.parametrize("method", SKIPS)
def test_no_more_is_skipped_than_does_not_apply(method):
    record = methods.get(method)
    quick = settings("skills", record)
    quick = replace(quick, training=replace(quick.training, steps=1))
    points = check_method(record, FAMILIES["skills"], quick)
    assert {point.name for point in points if point.passed is None} == SKIPS[method], in_words(points)


def test_what_cannot_be_checked_is_told():
    with pytest.raises(QuickstudyError, match="is for recognition"):
        check_method(methods.get("prototypical"), FAMILIES["skills"])
    with pytest.raises(QuickstudyError, match="that learn from demonstrations have a contract"):
        check_method(methods.get("maml-trpo"), FAMILIES["skills"])


# ---- what breaks the contract


class ForgetsTheMask(Hypernet):
    def adapt(self, support: Batch) -> dict[str, Tensor]:
        return super().adapt(support._replace(mask=torch.ones_like(support.mask)))


class ReadsTheFirstShot(Hypernet):
    def adapt(self, support: Batch) -> dict[str, Tensor]:
        return super().adapt(Batch(*(t[:1] for t in support[:3]), support.hidden))


class Peeks(Hypernet):
    def adapt(self, support: Batch) -> dict[str, Tensor]:
        return super().adapt(support._replace(y=support.y + support.hidden.mean()))


class Detaches(MAML):
    def path(self, support: Batch, steps: int) -> list[dict[str, Tensor]]:
        begun, *path = super().path(support, steps)
        return [begun, *({n: p.detach() + 0 * begun[n] for n, p in phi.items()} for phi in path)]


class HidesState(MAML):
    calls = 0.0

    def loss(self, task):
        self.calls += 1.0
        value, metrics = super().loss(task)
        return value * (1.0 + self.calls), metrics


class ForgetsABuffer(MAML):
    scale: Tensor

    def __init__(self, base: BaseLearner, config: MAMLConfig) -> None:
        super().__init__(base, config)
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def standardise(self, batch: Batch) -> None:
        super().standardise(batch)
        self.scale.fill_(3.0)

    def predict(self, skill, x: Tensor) -> Tensor:
        return self.scale * super().predict(skill, x)


class LearnsNothing(MAML):
    def adapt(self, support: Batch, steps: int | None = None) -> dict[str, Tensor]:
        return dict(self.begin())


class KeepsNames(Hypernet):
    def begin(self) -> dict[str, Tensor]:
        return {**super().begin(), "name": "a skill"}  # type: ignore[dict-item]


class DrawsFromElsewhere(MAML):
    numbers = itertools.count(1)

    def __init__(self, base: BaseLearner, config: MAMLConfig) -> None:
        super().__init__(base, config)
        base.network.head.bias.data.fill_(float(next(self.numbers)))


class NormalisesByTorch(MAML):
    """torch 2.13's own layer normalisation is silently wrong at second order under vmap."""

    def __init__(self, base: BaseLearner, config: MAMLConfig) -> None:
        base.network.body.append(nn.LayerNorm(32))
        super().__init__(base, config)


def record_of(kind: type, **options) -> Method:
    if issubclass(kind, Hypernet):
        return Method(kind.__name__, "broken", lambda s, f: kind(base_learner(s, f), f.action_size), **options)
    return Method(
        kind.__name__, "broken", lambda s, f: kind(base_learner(s, f), s.algorithm), settings=MAMLConfig, **options
    )


@pytest.mark.parametrize(
    ("kind", "point", "sentence"),
    [
        (ForgetsTheMask, "padding changes nothing", "multiply by the mask"),
        (ReadsTheFirstShot, "the order of demonstrations does not matter", "set order_matters"),
        (Peeks, "only an oracle sees what is hidden", "only an oracle may read it"),
        (Detaches, "the meta-gradient is right", "is detached"),
        (HidesState, "training resumes exactly", "in parameters and buffers"),
        (ForgetsABuffer, "a saved learner acts the same", "keep all state in buffers"),
        (LearnsNothing, "a demonstration helps", "adapt returns what begin does"),
        (KeepsNames, "a skill is a tree of tensors", "holds a str"),
        (DrawsFromElsewhere, "says what it is", "draw initial parameters from torch's own generator"),
        (NormalisesByTorch, "many tasks at once are each alone", "silently wrong"),
    ],
)
def test_what_breaks_the_contract_is_named(kind, point, sentence):
    record = record_of(kind)
    made = settings("skills", methods.get("maml"))
    made = replace(made, algorithm=record.settings(), training=replace(made.training, steps=1))
    with pytest.raises(BrokenError, match=sentence):
        POINTS[point](Subject(record, FAMILIES["skills"], made))


def test_an_oracle_reads_what_is_hidden():
    with pytest.raises(BrokenError, match="called an oracle"):
        POINTS["only an oracle sees what is hidden"](
            Subject(record_of(Hypernet, role="oracle"), FAMILIES["skills"], settings("skills", methods.get("hypernet")))
        )
