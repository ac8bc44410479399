"""The meta-learner LSTM against hand-computed numbers, gradient descent and a plain loop, in float64."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_map

from quickstudy.batching import OuterStep, adapt_tasks
from quickstudy.compilation.written_out import WrittenOutPass
from quickstudy.data import Batch, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.learner import BaseLearner, imitation_loss, recognition_loss
from quickstudy.methods.demonstrations.meta_lstm import MetaLSTM, MetaLSTMConfig, State, Weights, preprocess, update
from quickstudy.nets import MLP

SMALL = MetaLSTMConfig(3, hidden=4)


def learner(config: MetaLSTMConfig = SMALL, labelled: bool = False) -> MetaLSTM:
    """A small one in float64, whose weights are large enough for every gate to depend on everything."""
    torch.manual_seed(0)
    criterion = recognition_loss if labelled else imitation_loss
    made = MetaLSTM(BaseLearner(MLP(3, 2, [6], context=2), 3, criterion), config).double()
    with torch.no_grad():
        for name, weight in made.weights.items():
            if name != "bias":
                weight.uniform_(-0.7, 0.7)
        made.weights["bias"].copy_(torch.tensor([[-1.0], [2.0]]))
    return made


def meta_batch(tasks: int = 3, shots: int = 2, queries: int = 3, steps: int = 5) -> SupportQuery:
    rng = torch.Generator().manual_seed(1)

    def batch(count: int) -> Batch:
        x, label = torch.randn(tasks, count, steps, 3, generator=rng), torch.rand(tasks, count, steps, generator=rng)
        y = torch.stack([label < 0.5, label >= 0.5], -1)
        there = Batch(x, y, torch.ones(tasks, count, steps), torch.zeros(tasks, 0))
        return Batch(*(t.double() for t in there))

    return SupportQuery(batch(shots), batch(queries))


def first(tree):
    return tree_map(lambda t: t[0], tree)


def gradients(loss: Tensor, of: MetaLSTM) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(of.parameters())))


def test_preprocessing_by_hand():
    """log(1) / 10, log(e^-5) / 10; e^-10 is the smallest that is not small; below it the sign becomes e^10 x."""
    x = torch.tensor([1.0, -math.exp(-5), math.exp(-10), 0.0, 1e-5, -1e-6, 1e3], dtype=torch.float64)
    size, sign = preprocess(x)
    expected_size = [0.0, -0.5, -1.0, -1.0, -1.0, -1.0, math.log(1e3) / 10]
    expected_sign = [1.0, -1.0, 1.0, 0.0, 1e-5 * math.exp(10), -1e-6 * math.exp(10), 1.0]
    torch.testing.assert_close(size.tolist(), expected_size, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sign.tolist(), expected_sign, rtol=1e-12, atol=1e-12)


def test_preprocessing_is_the_two_cases_of_the_paper():
    x = torch.linspace(-3e-4, 3e-4, 1001, dtype=torch.float64)
    large = x.abs() >= math.exp(-10)
    torch.testing.assert_close(preprocess(x)[0], torch.where(large, x.abs().log() / 10, -1.0))
    torch.testing.assert_close(preprocess(x)[1], torch.where(large, x.sign(), math.exp(10) * x))


def test_one_update_by_hand():
    """One coordinate, hidden width one.

    The first layer has weight 0.1 everywhere and input (1, 2, 3, 4), h = 0.5, c = -1: all its gates see 0.1 * 10.5.
    """
    one = torch.ones(1, 1, dtype=torch.float64)
    weights = Weights(
        0.1 * one.expand(4, 5),
        0.0 * one.expand(4, 1),
        *(
            torch.tensor([[i], [f]], dtype=torch.float64)
            for i, f in [(0.3, -0.2), (0.5, 0.7), (-1.0, 2.0), (-2.0, 3.0)]
        ),
    )
    state = State(0.5 * one, -one, torch.tensor([[0.25], [0.75]], dtype=torch.float64), 1.5 * one[0])
    x = torch.tensor([[1.0], [2.0], [3.0], [4.0]], dtype=torch.float64)

    def sigmoid(a: float) -> float:
        return 1 / (1 + math.exp(-a))

    c = sigmoid(1.05) * -1.0 + sigmoid(1.05) * math.tanh(1.05)
    h = sigmoid(1.05) * math.tanh(c)
    i = sigmoid(0.3 * h + 0.5 * 1.5 - 1.0 * 0.25 - 2.0)
    f = sigmoid(-0.2 * h + 0.7 * 1.5 + 2.0 * 0.75 + 3.0)
    after = update(torch.tensor([0.4], dtype=torch.float64), x, weights, state)
    expected = [h, c, i, f, f * 1.5 - i * 0.4]
    torch.testing.assert_close(torch.cat([t.flatten() for t in after]).tolist(), expected, rtol=1e-14, atol=1e-14)


def test_the_first_layer_is_an_lstm():
    """torch orders its gates i, f, candidate, o; here the three sigmoids are one block."""
    made, rng = learner(), torch.Generator().manual_seed(2)
    weights, hidden, count = Weights(**made.weights), made.config.hidden, 7
    h, c = (torch.randn(hidden, count, generator=rng, dtype=torch.float64) for _ in range(2))
    x, gradient = (torch.randn(*shape, generator=rng, dtype=torch.float64) for shape in [(4, count), (count,)])
    cell = nn.LSTMCell(4, hidden, dtype=torch.float64)
    i, f, o, candidate = torch.cat([weights.lstm, weights.lstm_bias], 1).detach().chunk(4)
    rows = torch.cat([i, f, candidate, o])
    with torch.no_grad():
        cell.weight_ih.copy_(rows[:, :4])
        cell.weight_hh.copy_(rows[:, 4:-1])
        cell.bias_ih.copy_(rows[:, -1])
        cell.bias_hh.zero_()
    after = update(gradient, x, weights, State(h, c, h[:2], gradient))
    expected_h, expected_c = cell(x.T, (h.T, c.T))
    torch.testing.assert_close(after.h, expected_h.T, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(after.c, expected_c.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_with_constant_gates_it_is_gradient_descent(steps):
    """f = 1 and i = 0.05 whatever is seen, also for more steps than in training."""
    made, (support, _) = learner(), first(meta_batch())
    with torch.no_grad():
        for weight in made.weights.values():
            weight.zero_()
        made.weights["bias"].copy_(torch.tensor([[math.log(0.05 / 0.95)], [40.0]], dtype=torch.float64))
    theta = made.begin()
    for _ in range(steps):
        slope = torch.autograd.grad(made.base.loss(theta, support), list(theta.values()))
        theta = {name: p - 0.05 * g for (name, p), g in zip(theta.items(), slope, strict=True)}
    torch.testing.assert_close(made.adapt(support, steps), theta, rtol=1e-12, atol=1e-12)


def test_it_begins_near_gradient_descent_at_the_initial_rate():
    torch.manual_seed(0)
    made = MetaLSTM(BaseLearner(MLP(3, 2, [6]), 3), MetaLSTMConfig(initial_rate=0.03))
    i, f = made.weights["bias"].sigmoid().flatten().tolist()
    assert i == pytest.approx(0.03, rel=1e-5)
    assert f == pytest.approx(0.9933, abs=1e-4)
    assert all(weight.abs().max() <= 0.01 for name, weight in made.weights.items() if name != "bias")


def plain_loss(made: MetaLSTM, task: SupportQuery) -> Tensor:
    """Algorithm 1 with autograd, `detach` and matrices [coordinate, feature], as one would write it down."""
    w, names = Weights(**made.weights), list(made.begin())
    shapes = [p.shape for p in made.begin().values()]
    hidden = made.config.hidden

    def named(flat: Tensor) -> dict[str, Tensor]:
        parts = flat.split([shape.numel() for shape in shapes])
        return {name: part.reshape(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}

    theta = torch.cat([p.reshape(-1) for p in made.begin().values()])
    h = c = theta.new_zeros(len(theta), hidden)
    i = f = theta.new_zeros(len(theta))
    for _ in range(made.config.inner_steps):
        leaf = theta.detach().requires_grad_()
        loss = made.base.loss(named(leaf), task.support)
        (gradient,) = torch.autograd.grad(loss, leaf)
        seen = torch.stack([*preprocess(gradient), *preprocess(loss.detach().expand(len(theta)))], 1)
        a = torch.cat([seen, h], 1) @ w.lstm.T + w.lstm_bias.T
        gate_i, gate_f, gate_o, candidate = a.chunk(4, 1)
        c = gate_f.sigmoid() * c + gate_i.sigmoid() * candidate.tanh()
        h = gate_o.sigmoid() * c.tanh()
        i = (h @ w.gates[0] + w.theta[0] * theta + w.previous[0] * i + w.bias[0]).sigmoid()
        f = (h @ w.gates[1] + w.theta[1] * theta + w.previous[1] * f + w.bias[1]).sigmoid()
        theta = f * theta - i * gradient
    return made.base.loss(named(theta), task.query)


@pytest.mark.parametrize("labelled", [False, True])
def test_loss_and_meta_gradient_agree_with_a_plain_loop(labelled):
    made, task = learner(MetaLSTMConfig(4, hidden=4), labelled), first(meta_batch())
    loss, expected = made.loss(task)[0], plain_loss(made, task)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-14)
    ours, theirs = gradients(loss, made), gradients(expected, made)
    assert all(g.abs().max() > 1e-8 for g in theirs), "a weight that nothing depends on would prove nothing"
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-13)


def test_vmap_equals_a_plain_loop():
    made, batch = learner(MetaLSTMConfig(3, hidden=4)), meta_batch()
    batched = vmap(made.loss)(batch)[0]
    looped = torch.stack([plain_loss(made, tree_map(lambda t, i=i: t[i], batch)) for i in range(len(batched))])
    torch.testing.assert_close(batched, looped, rtol=1e-12, atol=1e-14)
    for one, other in zip(gradients(batched.mean(), made), gradients(looped.mean(), made), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-13)


def test_the_outer_step_is_the_same_batched_in_a_loop_and_written_out():
    """Written out by `make_fx`, as for compilation, but not compiled."""
    made, batch = learner(MetaLSTMConfig(2, hidden=4)), meta_batch()
    found = {}
    for how in ("vmap", "loop"):
        OuterStep(made, how, compiled=False)(batch)
        found[how] = [p.grad for p in made.parameters()]
    written = WrittenOutPass(made, True, batch, "float32")
    outputs = written.graph(*written._state(), *batch.support, *batch.query)
    for batched, looped, one in zip(found["vmap"], found["loop"], outputs[: len(found["vmap"])], strict=True):
        torch.testing.assert_close(looped, batched, rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(one / 3, batched, rtol=1e-9, atol=1e-13)


def test_padding_changes_nothing():
    """Padded steps and a shot that is padding alone."""
    made, batch = learner(), meta_batch()

    def longer(t: Tensor, junk: float) -> Tensor:
        wide = torch.cat([t, torch.full_like(t[:, :, :2], junk)], 2)
        return torch.cat([wide, torch.full_like(wide[:, :1], junk)], 1)

    def padded(b: Batch) -> Batch:
        return Batch(longer(b.x, 3.0), longer(b.y, -5.0), longer(b.mask, 0.0), b.hidden)

    plain, other = (vmap(made.loss)(one)[0] for one in (batch, SupportQuery(*map(padded, batch))))
    torch.testing.assert_close(other, plain, rtol=1e-12, atol=1e-14)
    for one, expected in zip(gradients(other.mean(), made), gradients(plain.mean(), made), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-9, atol=1e-13)


def test_a_support_of_padding_alone_has_finite_gradients():
    made, (support, query) = learner(), first(meta_batch())
    loss, _ = made.loss(SupportQuery(support._replace(mask=torch.zeros_like(support.mask)), query))
    assert all(g.isfinite().all() for g in gradients(loss, made))


def test_steps_at_test_may_differ_from_those_of_training():
    made, support = learner(MetaLSTMConfig(2, test_steps=6, hidden=4)), first(meta_batch()).support
    torch.testing.assert_close(made.adapt(support), made.adapt(support, 6), rtol=0, atol=0)
    made.config = replace(made.config, test_steps=None)
    torch.testing.assert_close(made.adapt(support), made.adapt(support, 2), rtol=0, atol=0)
    torch.testing.assert_close(made.adapt(support, 0), dict(made.begin()), rtol=0, atol=0)


@pytest.mark.parametrize(
    "bad", [{"inner_steps": 0}, {"test_steps": 0}, {"hidden": 0}, {"initial_rate": 0.0}, {"initial_rate": 1.0}]
)
def test_settings_are_checked(bad):
    with pytest.raises(QuickstudyError, match=next(iter(bad))):
        MetaLSTMConfig(**bad)


def test_it_learns_to_adapt():
    """Lines of random slope and offset: three updates, are worth far more after training."""
    rng = torch.Generator().manual_seed(3)

    def lines(tasks: int) -> SupportQuery:
        slope, offset = torch.randn(2, tasks, 1, 1, 1, generator=rng)
        x = torch.randn(2, tasks, 1, 10, 1, generator=rng)
        y, mask = slope * x + offset, torch.ones(2, tasks, 1, 10)
        return SupportQuery(*(Batch(*parts, torch.zeros(tasks, 0)) for parts in zip(x, y, mask, strict=True)))

    torch.manual_seed(0)
    made, held_out = MetaLSTM(BaseLearner(MLP(1, 1, []), 1), MetaLSTMConfig(3, initial_rate=0.1)), lines(100)

    def error() -> float:
        skills = adapt_tasks(made, held_out.support)
        return vmap(lambda skill, query: made.base.loss(skill, query))(skills, held_out.query).mean().item()

    before, outer = error(), OuterStep(made, "vmap", compiled=False)
    optimiser = torch.optim.Adam(made.parameters(), 0.03)
    for _ in range(100):
        outer(lines(16))
        optimiser.step()
    assert error() < 0.2 * before
