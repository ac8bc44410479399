"""The hypernets against hand-computed numbers and against a plain loop, in float64."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves, tree_map

from quickstudy.data import Batch, DemonstrationSet, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import evaluate
from quickstudy.families.classic import PointNavigation
from quickstudy.families.recognition.family import Recognition
from quickstudy.learner import BaseLearner, MetaLearner, recognition_loss
from quickstudy.methods.demonstrations.hypernet import (
    ContextEncoder,
    FiLM,
    Hypernet,
    HypernetClassifier,
    HypernetConfig,
    insert_film,
)
from quickstudy.nets import MLP, ConvNet
from quickstudy.settings import TrainConfig
from quickstudy.train import meta_train

SMALL = HypernetConfig(hidden=8, heads=2, task=4)
KINDS = ["mlp", "normalised", "classifier", "convolutions"]


def untrained(kind: str) -> MetaLearner:
    """A learner of the kind, in float64."""
    torch.manual_seed(0)
    if kind in ("mlp", "normalised"):
        return Hypernet(BaseLearner(MLP(3, 2, (6, 5), 2, kind == "normalised"), 3), 2, SMALL).double()
    network = ConvNet((6, 6), 7, (3, 4)) if kind == "convolutions" else MLP(36, 7, (6,))
    return HypernetClassifier(BaseLearner(network, 36, recognition_loss), 3, SMALL).double()


def shaken(kind: str) -> MetaLearner:
    """The same with parameters that are not zero anywhere, as after a training."""
    learner, rng = untrained(kind), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in learner.parameters():
            p += 0.3 * torch.randn(p.shape, generator=rng, dtype=p.dtype)
    return learner


def drawn(kind: str, tasks: int = 4, shots: int = 2) -> SupportQuery:
    """Random tasks of the kind, [task, shot, step, ...]; of a policy's demonstrations, some steps are padding."""
    rng = torch.Generator().manual_seed(2)

    def batch() -> Batch:
        if kind in ("mlp", "normalised"):
            x, y = (torch.randn(tasks, shots, 5, width, generator=rng, dtype=torch.float64) for width in (3, 2))
            mask = (torch.arange(5) < torch.tensor([[5], [3]])[:shots]).double().expand(tasks, -1, -1)
        else:
            x = torch.randn(tasks, shots, 3, 36, generator=rng, dtype=torch.float64)
            y = torch.eye(3, dtype=torch.float64)[torch.rand(tasks, shots, 3, generator=rng).argsort(-1)]
            mask = torch.ones(tasks, shots, 3, dtype=torch.float64)
        return Batch(x, y, mask, torch.zeros(tasks, 0, dtype=torch.float64))

    return SupportQuery(batch(), batch())


def one(batch: Batch) -> Batch:
    return tree_map(lambda t: t[0], batch)


def assert_same(skill, other) -> None:
    for a, b in zip(tree_leaves(skill), tree_leaves(other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_film_scales_and_shifts_each_channel():
    film = FiLM(2, 1, 1)
    images = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    torch.testing.assert_close(film(images), images, rtol=0, atol=0)
    film.gamma, film.beta = torch.tensor([2.0, 10.0])[:, None, None], torch.tensor([-1.0, 5.0])[:, None, None]
    assert film(images).tolist() == [[[[1.0, 3.0]], [[35.0, 45.0]]]]


@pytest.mark.parametrize(
    ("network", "shapes"),
    [
        (MLP(3, 2, (6, 5)), [(6,), (5,)]),
        (MLP(3, 2, (6, 5), normalise=True), [(6,), (5,)]),
        (ConvNet((6, 6), 2, (3, 4)), [(3, 1, 1), (4, 1, 1)]),
    ],
)
def test_film_comes_right_before_each_relu_and_changes_nothing_at_first(network, shapes):
    x = torch.randn(4, 36 if isinstance(network, ConvNet) else 3)
    before = network(x)
    names = list(network.state_dict())
    insert_film(network)
    assert list(network.state_dict()) == names, "a start from the plain network finds every layer by its name"
    layers = list(network.modules())
    films = [i for i, layer in enumerate(layers) if isinstance(layer, FiLM)]
    assert [tuple(layers[i].gamma.shape) for i in films] == shapes
    assert [i + 1 for i in films] == [i for i, layer in enumerate(layers) if isinstance(layer, nn.ReLU)]
    torch.testing.assert_close(network(x), before, rtol=0, atol=0)


def test_the_base_network_needs_a_body_with_relu_and_a_head():
    with pytest.raises(QuickstudyError, match="named 'body'"):
        Hypernet(BaseLearner(nn.Linear(3, 2), 3), 2)
    with pytest.raises(QuickstudyError, match="named 'head'"):
        HypernetClassifier(BaseLearner(nn.Linear(3, 2), 3), 2)


@pytest.mark.parametrize("bad", [{"hidden": 0}, {"heads": 0}, {"task": 0}])
def test_settings_are_checked(bad):
    with pytest.raises(QuickstudyError, match=next(iter(bad))):
        HypernetConfig(**bad)


def test_the_mean_and_the_attention_by_hand():
    """Two elements 0 and ln 3 and padding: weights 1/2, 1/2 in the mean; with the element as score 1/4, 3/4."""
    encoder = ContextEncoder(1, HypernetConfig(hidden=2, heads=1, task=1)).double()
    with torch.no_grad():
        encoder.scores.weight.copy_(torch.tensor([[1.0, 0.0, 0.0]]))
        encoder.scores.bias.fill_(7.0)
    features = torch.tensor([[0.0, 5.0, 5.0], [math.log(3.0), 5.0, 5.0], [100.0, 5.0, 5.0]], dtype=torch.float64)
    mask = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    expected = torch.tensor([[0.5, 0.25], [0.5, 0.75], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(encoder.weights(features, mask), expected, rtol=1e-14, atol=1e-14)


def test_the_aggregate_holds_the_elements_themselves():
    """With no features (their layer is zero) the aggregate is the mean of the elements, and their attention's mean."""
    encoder = ContextEncoder(2, HypernetConfig(hidden=1, heads=1, task=6)).double()
    with torch.no_grad():
        for p in (*encoder.element.head.parameters(), *encoder.scores.parameters()):
            p.zero_()
    encoder.aggregate = nn.Identity()
    elements = torch.tensor([[1.0, 2.0], [3.0, 6.0]], dtype=torch.float64)
    z = encoder(elements, torch.ones(2, dtype=torch.float64))
    assert z.tolist() == [2.0, 4.0, 0.0, 2.0, 4.0, 0.0]


@pytest.mark.parametrize("kind", KINDS)
def test_before_training_every_modulation_is_the_identity(kind):
    learner, support = untrained(kind), one(drawn(kind).support)
    for skill in (learner.begin(), learner.adapt(support)):
        modulation = skill if kind in ("mlp", "normalised") else skill.modulation
        assert set(modulation) == {n for n, _ in learner.base.named_buffers() if "body" in n}
        assert all(bool((v == (1.0 if n.endswith("gamma") else 0.0)).all()) for n, v in modulation.items())


def test_a_modulated_policy_by_hand():
    """Weights 2 then 3, and a generator that writes gamma = 1 + 0.5 and beta = 0.25: 3 relu(1.5 * 2 x + 0.25)."""
    learner = Hypernet(BaseLearner(MLP(1, 1, (1,)), 1), 1, SMALL).double()
    with torch.no_grad():
        for p, value in zip(learner.base.parameters(), (2.0, 0.0, 3.0, 0.0), strict=True):
            p.fill_(value)
        learner.modulate.generator.bias.copy_(torch.tensor([0.5, 0.25]))
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    assert learner.predict(learner.begin(), x).tolist() == [[9.75], [0.0]]
    assert learner.predict(learner.begin(), x[0]).tolist() == [9.75]


def test_the_elements_of_a_policy_are_standardised_steps():
    learner, (support, _) = untrained("mlp"), drawn("mlp")
    learner.standardise(support._replace(y=10.0 * support.y + 3.0))
    torch.testing.assert_close(learner.base.mean, support.x[support.mask.bool()].mean(0), rtol=1e-12, atol=1e-12)
    steps = learner.step(torch.cat([support.x, 10.0 * support.y + 3.0], -1))[support.mask.bool()]
    torch.testing.assert_close(steps.mean(0), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(steps.std(0), torch.ones(5, dtype=torch.float64), rtol=1e-12, atol=0)


def test_a_generated_classifier_in_closed_form():
    """What writes it is made constant: weights are class means + 2, biases 0.5; an absent class has none."""
    learner, support = untrained("classifier"), one(drawn("classifier").support)
    support = support._replace(mask=1.0 - support.y[..., 2])
    with torch.no_grad():
        learner.classify.head.weight.zero_()
        learner.classify.head.bias.copy_(torch.tensor([2.0] * 7 + [0.5]))
    skill, embedded = learner.adapt(support), learner.base(support.x)
    for k in (0, 1):
        mean = embedded[support.y[..., k] == 1].mean(0)
        torch.testing.assert_close(skill.weights[k], mean + 2.0, rtol=1e-12, atol=1e-12)
    assert skill.biases.tolist() == [0.5, 0.5, -1e4]
    assert not skill.weights[2].any()
    x = torch.randn(4, 36, dtype=torch.float64)
    expected = learner.base(x) @ skill.weights.T + skill.biases
    torch.testing.assert_close(learner.predict(skill, x), expected, rtol=1e-12, atol=1e-12)
    assert learner.predict(skill, x[0]).shape == (3,)
    assert recognition_loss(learner.predict(skill, support.x), support._replace(mask=torch.ones(2, 3))).isfinite()


@pytest.mark.parametrize("kind", ["classifier", "convolutions"])
def test_support_and_queries_are_embedded_by_the_modulated_network(kind):
    """gamma = beta = 0 leaves nothing of an image, so that all of them embed to the bias of the head."""
    learner, support = shaken(kind), one(drawn(kind).support)
    with torch.no_grad():
        learner.modulate.generator.weight.zero_()
        gone = [torch.full(s, -1.0 if n.endswith("gamma") else 0.0) for n, s in learner.modulate.shapes.items()]
        learner.modulate.generator.bias.copy_(torch.cat([t.flatten() for t in gone]))
        learner.classify.head.weight.zero_()
        learner.classify.head.bias.zero_()
    skill, embedded = learner.adapt(support), learner.base.network.head.bias
    assert_same(skill.weights, embedded.expand(3, -1))
    assert_same(learner.predict(skill, support.x), embedded.square().sum().expand(2, 3, 3))


@pytest.mark.parametrize("kind", ["classifier", "convolutions"])
def test_before_any_support_every_class_is_as_likely(kind):
    learner = shaken(kind)
    assert not learner.predict(learner.begin(), torch.randn(4, 36, dtype=torch.float64)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_vmap_equals_a_plain_loop_at_second_order(kind):
    learner, tasks = shaken(kind), drawn(kind)
    parameters = list(learner.parameters())
    looped = torch.stack([learner.loss(tree_map(lambda t, i=i: t[i], tasks))[0] for i in range(4)])
    results = []
    for losses in (vmap(learner.loss)(tasks)[0], looped):
        first = torch.autograd.grad(losses.mean(), parameters, create_graph=True)
        length = sum(g.square().sum() for g in first)
        results.append([losses, *first, *torch.autograd.grad(length, parameters, allow_unused=True)])
    for batched, plain in zip(*results, strict=True):
        torch.testing.assert_close(batched, plain, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_can_be_traced(kind):
    learner, tasks = shaken(kind), drawn(kind)

    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        return vmap(learner.loss)(SupportQuery(Batch(*tensors[:4]), Batch(*tensors[4:])))[0]

    tensors = (*tasks.support, *tasks.query)
    torch.testing.assert_close(make_fx(loss)(*tensors)(*tensors), loss(*tensors), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_order_change_nothing(kind):
    """Padded steps, a shot that is padding altogether, and demonstrations and steps in another order."""
    learner, support = shaken(kind), one(drawn(kind).support)

    def padded(t: torch.Tensor, junk: float) -> torch.Tensor:
        wide = torch.cat([t, torch.full_like(t[:, :2], junk)], 1)
        return torch.cat([wide, torch.full_like(wide[:1], junk)])

    more = Batch(padded(support.x, 3.0), padded(support.y, -5.0), padded(support.mask, 0.0), support.hidden)
    other = Batch(*(t.flip(0, 1) for t in support[:3]), support.hidden)
    for same in (more, other):
        assert_same(learner.adapt(same), learner.adapt(support))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_padding_is_no_demonstration(kind):
    learner, support = shaken(kind), one(drawn(kind).support)
    nothing = support._replace(mask=torch.zeros_like(support.mask))
    skill, begin = learner.adapt(nothing), learner.begin()
    x = support.x[0, 0]
    assert_same(learner.predict(skill, x).softmax(-1), learner.predict(begin, x).softmax(-1))
    gradients = torch.autograd.grad(learner.loss(SupportQuery(nothing, support))[0], learner.modulate.parameters())
    assert all(g.isfinite().all() for g in gradients)


def test_it_learns_to_navigate_from_one_demonstration():
    family = PointNavigation()
    recorded = DemonstrationSet.record(family, family.tasks("train", 100), 4, seed=0)
    torch.manual_seed(0)
    learner = Hypernet(BaseLearner(MLP(2, 2, (32, 32)), 2), 2, HypernetConfig(hidden=32, heads=4, task=16))
    learner.standardise(recorded.batch)
    meta_train(learner, recorded, TrainConfig(steps=250, meta_batch=16, rate=3e-3, batching="vmap"))
    before, after = evaluate(learner, family, "validation", tasks=40, episodes=3).metrics["success"].mean((1, 2))
    assert before < 0.2
    assert after > 0.9


def test_it_learns_to_recognise_where_most_of_what_it_sees_is_noise():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, 1, 4))
    examples = np.concatenate(
        [centres + 0.2 * rng.normal(size=(60, 10, 4)), 2.0 * rng.normal(size=(60, 10, 12))], -1
    ).astype("f4")
    rows = np.arange(600).reshape(60, 10)
    family = Recognition("blobs", examples.reshape(600, 16), {"train": rows[:40], "validation": rows[40:]}, queries=5)
    torch.manual_seed(0)
    base = BaseLearner(MLP(16, 8, (32,)), 16, recognition_loss)
    learner = HypernetClassifier(base, 5, HypernetConfig(hidden=32, heads=4, task=16))

    def accuracy() -> float:
        return float(
            evaluate(learner, family, "validation", shots=[1], tasks=60, episodes=25).metrics["accuracy"].mean()
        )

    before = accuracy()
    config = TrainConfig(steps=300, meta_batch=16, shots=1, queries=3, rate=3e-3, batching="vmap")
    meta_train(learner, family.fresh(), config)
    assert before < 0.5
    assert accuracy() > before + 0.3
