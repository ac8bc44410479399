"""Matching networks, part by part: numbers worked out by hand, torch's own LSTM, a plain loop; all in float64."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_map

from quickstudy.data import Batch, DemonstrationSet, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import evaluate
from quickstudy.families.classic import PointNavigation
from quickstudy.learner import BaseLearner, imitation_loss, recognition_loss
from quickstudy.methods.demonstrations.matching import (
    AttentionLSTM,
    BidirectionalLSTM,
    LSTMCell,
    MatchingConfig,
    MatchingNetworks,
    local_linear,
    masked_softmax,
    unit,
)
from quickstudy.nets import MLP
from quickstudy.settings import TrainConfig
from quickstudy.train import meta_train

HEADS = ["convex", "decoder", "local-linear"]
KINDS = [*HEADS, "labelled"]


@pytest.fixture(autouse=True)
def in_float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def learner(kind: str, full_context: bool = False, network: nn.Module | None = None) -> MatchingNetworks:
    """Embeds three observations to six numbers; with a network of its own, to as many as it gives."""
    base = BaseLearner(network or MLP(3, 6, [8]), 3, recognition_loss if kind == "labelled" else imitation_loss)
    head = "decoder" if kind == "labelled" else kind
    config = MatchingConfig(head, full_context=full_context, processing_steps=3, decoder=(7,))
    return MatchingNetworks(base, 6 if network is None else 3, 2, kind == "labelled", config)


def batch(kind: str, tasks: int = 4, shots: int = 2, steps: int = 5) -> Batch:
    """Tasks whose last shot has two steps of padding."""
    x, y = torch.randn(tasks, shots, steps, 3), torch.randn(tasks, shots, steps, 2)
    mask = torch.ones(tasks, shots, steps)
    mask[:, -1, -2:] = 0.0
    return Batch(x, torch.eye(2)[y.argmax(-1)] if kind == "labelled" else y, mask, torch.zeros(tasks, 0))


def meta_batch(kind: str) -> SupportQuery:
    return SupportQuery(batch(kind), batch(kind))


def one(tree: SupportQuery | Batch, i: int = 0):
    return tree_map(lambda t: t[i], tree)


def by_hand(labelled: bool, y: list[list[float]]) -> tuple[MatchingNetworks, Batch]:
    """Embeds by not changing anything; two steps at right angles, so that their cosines with the first are 1 and 0."""
    taught = learner("labelled" if labelled else "convex", network=nn.Identity())
    with torch.no_grad():
        taught.log_scale.fill_(math.log(2.0))
    x = torch.tensor([[[5.0, 0.0, 0.0], [0.0, 0.1, 0.0]]])
    return taught, Batch(x, torch.tensor([y]), torch.ones(1, 2), torch.zeros(0))


def test_equation_1_by_hand_combines_demonstrated_actions():
    """Cosines 1 and 0 at scale 2: weights e^2 / (e^2 + 1) and 1 / (e^2 + 1); lengths of vectors play no part."""
    taught, support = by_hand(False, [[1.0, -1.0], [3.0, 0.0]])
    weight = math.exp(2) / (math.exp(2) + 1)
    action = taught.predict(taught.adapt(support), torch.tensor([0.7, 0.0, 0.0]))
    assert action.tolist() == pytest.approx([weight + 3 * (1 - weight), -weight], abs=1e-11)


def test_equation_1_by_hand_gives_probabilities_of_labels():
    taught, support = by_hand(True, [[0.0, 1.0], [1.0, 0.0]])
    weight = math.exp(2) / (math.exp(2) + 1)
    query = Batch(torch.tensor([[[0.7, 0.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]]), torch.ones(1, 1), torch.zeros(0))
    logits = taught.predict(taught.adapt(support), query.x)
    assert logits.exp().flatten().tolist() == pytest.approx([1 - weight, weight], abs=1e-11)
    assert taught.loss(SupportQuery(support, query))[0].item() == pytest.approx(-math.log(weight), abs=1e-11)


def test_two_examples_of_a_class_add_up():
    taught, support = by_hand(True, [[1.0, 0.0], [1.0, 0.0]])
    probabilities = taught.predict(taught.adapt(support), torch.tensor([0.7, 0.3, 0.0])).exp()
    assert probabilities.tolist() == pytest.approx([1.0, 0.0], abs=1e-11)


def test_softmax_is_among_what_is_real():
    weights = masked_softmax(torch.tensor([math.log(3.0), 50.0, 0.0]), torch.tensor([1.0, 0.0, 1.0]))
    assert weights.tolist() == pytest.approx([0.75, 0.0, 0.25], abs=1e-15)
    assert masked_softmax(torch.randn(4, 3), torch.zeros(3)).abs().max() == 0.0


def test_derivatives_are_finite_where_everything_is_masked_or_zero():
    def read(scores: Tensor) -> Tensor:
        return (masked_softmax(scores, torch.zeros(3)) * scores).sum() + unit(scores * 0.0).square().sum()

    first = grad(read)
    assert first(torch.randn(3)).isfinite().all()
    assert grad(lambda s: first(s).square().sum())(torch.zeros(3)).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_embeddings_have_finite_second_derivatives(dtype):
    first = grad(lambda v: (unit(v) @ torch.ones(3, dtype=dtype)).square())
    assert grad(lambda v: first(v).sum())(torch.zeros(3, dtype=dtype)).isfinite().all()


def test_local_linear_regression_by_hand():
    """Points 0 and 2 with values 1 and 5, weights a half each: slope 4 / (2 + 2 ridge), through (1, 3)."""
    weights, keys, values = torch.tensor([[0.5, 0.5]]), torch.tensor([0.0, 2.0]), torch.tensor([[1.0], [5.0]])
    for ridge in (0.0, 0.3):
        value = local_linear(weights, keys, values, torch.tensor(4.0), torch.tensor(ridge))
        assert value.item() == pytest.approx(3 + 3 * 4 / (2 + 2 * ridge), abs=1e-14)


def test_local_linear_regression_extrapolates_a_linear_law_and_else_is_convex():
    keys, law, weights = torch.randn(20), torch.randn(2), torch.rand(5, 2, 20).softmax(-1)
    values, at = keys[:, None] * law + 0.7, 10.0 * torch.randn(5)
    exact = local_linear(weights, keys, values, at, torch.tensor(1e-13))
    torch.testing.assert_close(exact, at[:, None] * law + 0.7, rtol=1e-9, atol=1e-9)
    stiff = local_linear(weights, keys, values, at, torch.tensor(1e13))
    torch.testing.assert_close(stiff, (weights * values.mT).sum(-1), rtol=1e-9, atol=1e-9)


def reference(cell: LSTMCell, inputs: int, width: int) -> nn.LSTMCell:
    """torch's cell with the same parameters; its gates come as input, forget, cell, output."""
    other = nn.LSTMCell(inputs, width)
    enter, forget, leave, new = cell.gates.weight.detach().chunk(4)
    weight = torch.cat([enter, forget, new, leave])
    enter, forget, leave, new = cell.gates.bias.detach().chunk(4)
    with torch.no_grad():
        other.weight_ih.copy_(weight[:, :inputs])
        other.weight_hh.copy_(weight[:, inputs:])
        other.bias_ih.copy_(torch.cat([enter, forget, new, leave]))
        other.bias_hh.zero_()
    return other


def test_the_cell_is_torchs():
    cell = LSTMCell(3, 4)
    x, h, c = torch.randn(5, 3), torch.randn(5, 4), torch.randn(5, 4)
    torch.testing.assert_close(cell(x, h, c), reference(cell, 3, 4)(x, (h, c)), rtol=1e-13, atol=1e-13)


def test_support_in_context_is_torchs_bidirectional_lstm_and_a_skip():
    context, embedded = BidirectionalLSTM(4), torch.randn(6, 4)
    both = nn.LSTM(4, 4, bidirectional=True)
    with torch.no_grad():
        for cell, end in ((context.ahead, ""), (context.back, "_reverse")):
            for name, value in reference(cell, 4, 4).named_parameters():
                kind, which = name.split("_")
                getattr(both, f"{kind}_{which}_l0{end}").copy_(value)
    expected = embedded + both(embedded)[0].unflatten(-1, (2, 4)).sum(-2)
    torch.testing.assert_close(context(embedded, torch.ones(6)), expected, rtol=1e-13, atol=1e-13)


def test_support_in_context_passes_over_padding_in_both_directions():
    context, embedded = BidirectionalLSTM(4), torch.randn(6, 4)
    real = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    together = context(embedded[real > 0], torch.ones(3))
    torch.testing.assert_close(context(embedded, real)[real > 0], together, rtol=1e-13, atol=1e-13)


def test_query_in_context_by_hand():
    """With all of the cell zero its output is zero, so h_k = f'(x) whatever is read."""
    context, embedded, keys = AttentionLSTM(4, 3), torch.randn(2, 4), torch.randn(5, 4)
    with torch.no_grad():
        for p in context.parameters():
            p.zero_()
    assert torch.equal(context(embedded, keys, torch.ones(5)), embedded)


def test_query_in_context_reads_evenly_first_and_then_by_similarity():
    """Two steps of equations 3 to 6, with torch's cell; padding is not read."""
    context, embedded, keys = AttentionLSTM(4, 2), torch.randn(4), torch.randn(5, 4)
    cell, real = reference(context.cell, 8, 4), torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0])
    there = keys[real > 0]
    read = there.mean(0)
    output, c = cell(torch.cat([embedded, read]), (torch.zeros(4), torch.zeros(4)))
    h = output + embedded
    read = (there @ h).softmax(0) @ there
    expected = cell(torch.cat([embedded, read]), (h, c))[0] + embedded
    torch.testing.assert_close(context(embedded, keys, real), expected, rtol=1e-13, atol=1e-13)


def test_in_local_regression_every_number_of_an_action_has_its_own_scale():
    """A number whose scale is nearly nothing averages all steps alike; the other attends as it did."""
    taught, support, x = learner("local-linear"), one(batch("local-linear")), torch.randn(5, 3)
    with torch.no_grad():
        taught.log_ridge.fill_(30.0)  # so stiff that nothing is left but the weights
        before = taught.predict(taught.adapt(support), x)
        taught.log_scale[1] = -30.0
        after = taught.predict(taught.adapt(support), x)
    torch.testing.assert_close(after[:, 0], before[:, 0], rtol=0, atol=1e-12)
    mean = support.y[support.mask > 0][:, 1].mean()
    torch.testing.assert_close(after[:, 1], mean.expand(5), rtol=0, atol=1e-9)


def test_local_regression_runs_along_one_number_and_attends_by_weighed_ones():
    """The law is linear in the first number; the second, whose weight is all, singles out the steps it agrees with."""
    base = BaseLearner(nn.Identity(), 2)
    taught = MatchingNetworks(base, 2, 1, False, MatchingConfig("local-linear", scale=400.0, ridge=1e-12))
    x = torch.tensor([[[0.0, 1.0], [1.0, 1.0], [0.0, -1.0], [1.0, -1.0]]])
    y = torch.tensor([[[0.0], [2.0], [9.0], [9.0]]])
    support = Batch(x, y, torch.ones(1, 4), torch.zeros(0))
    with torch.no_grad():
        taught.log_weight[0] = -30.0
    found = taught.predict(taught.adapt(support), torch.tensor([[3.0, 0.5], [3.0, -0.5]]))
    torch.testing.assert_close(found, torch.tensor([[6.0], [9.0]]), rtol=0, atol=1e-6)
    with pytest.raises(QuickstudyError, match="along must be below 2"):
        MatchingNetworks(base, 2, 1, False, MatchingConfig("local-linear", along=2))


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_demonstration_nothing_is_read(kind):
    taught, x = learner(kind, full_context=True), torch.randn(3, 3)
    prediction = taught.predict(taught.begin(), x)
    if kind == "labelled":
        torch.testing.assert_close(prediction, torch.full((3, 2), -math.log(2.0)), rtol=0, atol=1e-15)
    elif kind != "decoder":
        assert prediction.abs().max() == 0.0
    assert taught.predict(taught.begin(), x[0]).shape == (2,)
    torch.testing.assert_close(taught.predict(taught.begin(), x[None])[0], prediction, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("full_context", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_vmap_equals_a_plain_loop_at_second_order(kind, full_context):
    taught, tasks = learner(kind, full_context), meta_batch(kind)
    parameters = list(taught.parameters())

    def sensitivity(task: SupportQuery) -> Tensor:
        """How much the loss would change with the support, so that its own gradient is of second order."""
        moved = grad(lambda x: taught.loss(SupportQuery(task.support._replace(x=x), task.query))[0])(task.support.x)
        return moved.square().sum()

    for value in (lambda task: taught.loss(task)[0], sensitivity):
        batched = vmap(value)(tasks)
        looped = torch.stack([value(one(tasks, i)) for i in range(4)])
        torch.testing.assert_close(batched, looped, rtol=1e-11, atol=1e-14)
        gradients = [torch.autograd.grad(v.sum(), parameters, allow_unused=True) for v in (batched, looped)]
        for these, those in zip(*gradients, strict=True):
            torch.testing.assert_close(these, those, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("full_context", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_agrees_with_finite_differences(kind, full_context):
    taught, task = learner(kind, full_context), one(meta_batch(kind))
    start = {name: p.detach() for name, p in taught.named_parameters()}
    towards = {name: torch.randn_like(p) for name, p in start.items()}

    def along(by: Tensor) -> Tensor:
        moved = {name: p + by * towards[name] for name, p in start.items()}
        prediction = torch.func.functional_call(_Predicts(taught), moved_names(moved), (task,))
        return taught.base.criterion(prediction, task.query)

    h = 1e-6
    expected = (along(torch.tensor(h)) - along(torch.tensor(-h))) / (2 * h)
    torch.testing.assert_close(grad(along)(torch.tensor(0.0)), expected, rtol=1e-6, atol=1e-9)


class _Predicts(nn.Module):
    """A learner's prediction as a module, so that `functional_call` can lend it other parameters."""

    def __init__(self, taught: MatchingNetworks) -> None:
        super().__init__()
        self.taught = taught

    def forward(self, task: SupportQuery) -> Tensor:
        return self.taught.predict(self.taught.adapt(task.support), task.query.x)


def moved_names(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"taught.{name}": p for name, p in parameters.items()}


@pytest.mark.parametrize("full_context", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind, full_context):
    """Neither padded steps at the end of each shot nor whole padded shots."""
    taught, tasks = learner(kind, full_context), meta_batch(kind)

    def padded(b: Batch) -> Batch:
        for axis in (1, 2):
            x, y, mask = (t.narrow(axis, 0, 1) for t in b[:3])
            junk = (torch.full_like(x, 3.0), torch.full_like(y, -5.0), torch.zeros_like(mask))
            b = Batch(*(torch.cat([t, j], axis) for t, j in zip(b[:3], junk, strict=True)), b.hidden)
        return b

    plain, after = (vmap(taught.loss)(t)[0] for t in (tasks, SupportQuery(*map(padded, tasks))))
    torch.testing.assert_close(after, plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_order_matters_only_in_full_context(kind):
    tasks = meta_batch(kind)
    x, y, mask, hidden = tasks.support
    flipped = SupportQuery(Batch(x.flip(1), y.flip(1), mask.flip(1), hidden), tasks.query)
    for full_context in (False, True):
        taught = learner(kind, full_context)
        change = (vmap(taught.loss)(flipped)[0] - vmap(taught.loss)(tasks)[0]).abs().max()
        assert change > 1e-6 if full_context else change < 1e-12


@pytest.mark.parametrize("kind", ["local-linear", "labelled"])
def test_it_is_one_graph_of_tensor_operations(kind):
    taught, tasks = learner(kind, full_context=True), meta_batch(kind)

    def flat(*tensors: Tensor) -> Tensor:
        losses = vmap(taught.loss)(SupportQuery(Batch(*tensors[:4]), Batch(*tensors[4:])))[0]
        return torch.autograd.grad(losses.sum(), taught.base.network.head.weight)[0]

    graph = make_fx(flat)(*tasks.support, *tasks.query)
    other = meta_batch(kind)
    torch.testing.assert_close(graph(*other.support, *other.query), flat(*other.support, *other.query))


@pytest.mark.parametrize(
    "bad",
    [{"head": "mean"}, {"scale": 0.0}, {"processing_steps": 0}, {"decoder": ()}, {"along": -1}, {"ridge": -1}],
)
def test_settings_are_checked(bad):
    with pytest.raises(QuickstudyError, match=next(iter(bad))):
        MatchingConfig(**bad)


def test_it_learns_to_walk_to_a_goal_that_one_demonstration_shows():
    torch.set_default_dtype(torch.float32)
    family = PointNavigation()
    recorded = DemonstrationSet.record(family, family.tasks("train", 100), 4, seed=0)
    taught = MatchingNetworks(BaseLearner(MLP(2, 32, [64]), 2), 32, 2, False)
    taught.standardise(recorded.batch)
    meta_train(taught, recorded, TrainConfig(steps=250, meta_batch=16, rate=3e-3, batching="vmap"))
    success = evaluate(taught, family, "validation", shots=[0, 1], tasks=40).metrics["success"].mean((1, 2))
    assert success[0] < 0.2
    assert success[1] > 0.7
