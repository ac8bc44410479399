"""MANN: each part alone by hand-computed numbers, then the whole against a plain loop, in float64."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import vmap
from torch.utils._pytree import tree_map

from quickstudy.batching import OuterStep
from quickstudy.data import Batch, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.learner import BaseLearner, recognition_loss
from quickstudy.methods.demonstrations.mann import MANN, MANNConfig, Memory, cosine, least_used
from quickstudy.nets import MLP

SMALL = MANNConfig(slots=6, width=3, heads=2, controller=5)


def tensor(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def small(config: MANNConfig = SMALL) -> MANN:
    torch.manual_seed(0)
    return MANN(BaseLearner(MLP(2, 4, [5]), 2), 4, 2, config).double()


def batch(tasks: int, shots: int, steps: int, seed: int = 0) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, tasks, shots, steps, 2, generator=rng, dtype=torch.float64)
    mask = torch.ones(tasks, shots, steps, dtype=torch.float64)
    mask[0, 0, -1] = 0.0
    return Batch(x, y, mask, x.new_zeros(tasks, 0))


def meta_batch(tasks: int = 3) -> SupportQuery:
    return SupportQuery(batch(tasks, 2, 4, seed=1), batch(tasks, 2, 3, seed=2))


def by_hand() -> MANN:
    """One head, two slots one wide, a controller of one unit: everything else is then set number by number."""
    learner = MANN(BaseLearner(nn.Identity(), 1), 1, 1, MANNConfig(2, 1, 1, 1, decay=0.5, strength=1.0)).double()
    for p in learner.parameters():
        nn.init.zeros_(p)
    return learner


def test_similarity_is_the_cosine_and_nothing_is_similar_to_nothing():
    keys, rows = tensor([3.0, 4.0], [0.0, 2.0]), tensor([1.0, 0.0], [-6.0, -8.0], [0.0, 0.0])
    expected = tensor([0.6, -1.0, 0.0], [0.0, -0.8, 0.0])
    torch.testing.assert_close(cosine(keys, rows), expected, rtol=0.0, atol=1e-8)
    empty = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(cosine(keys, empty).sum(), empty)[0].isfinite().all()


def test_the_least_used_slots_are_marked():
    usage = tensor([0.3, 0.1, 0.9, 0.2], [4.0, 3.0, 2.0, 1.0])
    assert least_used(usage, 1).tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]
    assert least_used(usage, 2).tolist() == [[0, 1, 0, 1], [0, 0, 1, 1]]
    torch.testing.assert_close(vmap(lambda u: least_used(u, 2))(usage), least_used(usage, 2))


def test_a_read_is_the_mean_of_the_rows_by_the_softmax_of_strength_times_similarity():
    """Key tanh(b) against rows 2 and -1: similarities 1 and -1; strength log 2, so weights 4 : 1 and 4/5 * 2 - 1/5."""
    learner = by_hand()
    with torch.no_grad():
        learner.keys.bias.fill_(0.7)  # softplus(0) = log 2 is the strength
        learner.output.weight.copy_(tensor([0.0, 10.0]))
    skill = learner.begin()._replace(rows=tensor([2.0], [-1.0]))
    prediction, _, _, following = learner._read(skill, torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(following.weights, tensor([0.8, 0.2]), rtol=0.0, atol=1e-7)
    torch.testing.assert_close(following.read, tensor(1.4), rtol=0.0, atol=1e-7)
    torch.testing.assert_close(prediction, tensor(14.0), rtol=0.0, atol=1e-6)


def test_a_write_erases_and_divides_the_key_between_last_read_and_least_used():
    """Slot 1 is least used and erased. Gate 3/4: 3/4 of the key where was read, (1/2, 1/2), and 1/4 to slot 1.

    w^w = (3/8, 3/8 + 1/4). M = (2 + 3/8 k, 0 + 5/8 k). w^u = 1/2 (6, 4) + w^r + w^w.
    """
    learner = by_hand()
    with torch.no_grad():
        learner.keys.bias.fill_(0.7)
        learner.gates.bias.fill_(np.log(3.0))
    key = np.tanh(0.7)
    skill = learner.begin()._replace(rows=tensor([2.0], [-1.0]), usage=tensor(6.0, 4.0), weights=tensor([0.5, 0.5]))
    _, following = learner._step(skill, torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(following.rows, tensor([2.0 + 0.375 * key], [0.625 * key]))
    torch.testing.assert_close(following.usage, tensor(3.0 + 0.8 + 0.375, 2.0 + 0.2 + 0.625), rtol=0.0, atol=1e-7)


def test_all_heads_write_into_the_marked_slots():
    """Two heads, nothing read yet, gate 1/2: the two least used slots get half of the sum of both keys each."""
    learner = MANN(BaseLearner(nn.Identity(), 1), 1, 1, MANNConfig(3, 1, 2, 1)).double()
    for p in learner.parameters():
        nn.init.zeros_(p)
    with torch.no_grad():
        learner.keys.bias.copy_(torch.atanh(tensor(0.2, 0.4)))
    skill = learner.begin()._replace(rows=tensor([1.0], [1.0], [1.0]), usage=tensor(1.0, 3.0, 2.0))
    _, following = learner._step(skill, torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(following.rows, tensor([0.3], [1.0], [0.3]))


def test_the_controller_is_an_lstm():
    cell = nn.LSTMCell(4, 5).double()
    learner = small()
    with torch.no_grad():
        forget_first = torch.cat([torch.arange(5, 10), torch.arange(5), torch.arange(15, 20), torch.arange(10, 15)])
        learner.inputs.weight.copy_(cell.weight_ih[forget_first])
        learner.inputs.bias.copy_((cell.bias_ih + cell.bias_hh)[forget_first])
        learner.recurrent.weight.zero_()[:, :5] = cell.weight_hh[forget_first]
    x, h, c = (torch.randn(width, dtype=torch.float64) for width in (4, 5, 5))
    following = learner._read(learner.begin()._replace(hidden=h, cell=c), learner.inputs(x))[3]
    torch.testing.assert_close((following.hidden, following.cell), cell(x, (h, c)))


def test_a_label_is_seen_one_step_late():
    """What is predicted of step t depends on the labels before t, and on no other."""
    learner, support = small(), tree_map(lambda t: t[1], batch(2, 2, 3))
    slopes = torch.autograd.functional.jacobian(
        lambda y: learner._adapt(support._replace(y=y))[1].flatten(0, 1), support.y
    )
    depends = slopes.flatten(2, 3).abs().sum((1, 3)) > 0
    assert torch.equal(depends, torch.ones(6, 6).tril(-1).bool())
    last = learner.adapt(support).label
    torch.testing.assert_close(last, support.y[-1, -1])


def test_the_first_strength_is_the_setting():
    learner = small(config=MANNConfig(strength=7.0))
    torch.testing.assert_close(nn.functional.softplus(learner.strengths.bias), torch.full((4,), 7.0).double())


def test_labels_go_in_in_units_of_their_deviation():
    support, skills = batch(3, 2, 4), []
    for shown in (support, support._replace(y=support.y * 10.0)):
        learner = small()
        learner.standardise(shown)
        skills.append(vmap(learner.adapt)(shown))
    torch.testing.assert_close(*skills)


def test_calibration_standardises_embeddings_as_they_are_before_training():
    """Embeddings far from zero and hardly apart, and others of every scale, drive the controller alike."""
    shown, gates = batch(3, 2, 4), []
    for scale, shift in ((1.0, 0.0), (0.01, 5.0)):
        learner = small()
        with torch.no_grad():
            learner.base.network.head.weight.mul_(scale)
            learner.base.network.head.bias.mul_(scale).add_(shift)
        learner.calibrate(shown)
        gates.append(learner.inputs(learner.base(shown.x)))
    torch.testing.assert_close(*gates)
    centred = gates[0][shown.mask.bool()].mean(0)
    torch.testing.assert_close(centred, torch.cat([torch.ones(5), torch.zeros(15)]).double())


def test_vmap_equals_a_plain_loop_and_finite_differences():
    learner, tasks = small(), meta_batch()
    parameters = list(learner.parameters())
    losses = vmap(learner.loss)(tasks)[0]
    looped = torch.stack([learner.loss(tree_map(lambda t, i=i: t[i], tasks))[0] for i in range(3)])
    torch.testing.assert_close(losses, looped, rtol=1e-12, atol=1e-14)
    one, other = (torch.autograd.grad(some.mean(), parameters, create_graph=True) for some in (losses, looped))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)
    curvatures = [torch.autograd.grad(sum(g.square().sum() for g in some), parameters) for some in (one, other)]
    torch.testing.assert_close(*curvatures, rtol=1e-9, atol=1e-12)
    rng, h = torch.Generator().manual_seed(1), 1e-6
    directions = [torch.randn(p.shape, generator=rng, dtype=p.dtype) for p in parameters]
    values = []
    with torch.no_grad():
        for by in (h, -2 * h):
            for p, d in zip(parameters, directions, strict=True):
                p += by * d
            values.append(vmap(learner.loss)(tasks)[0].mean())
    expected = sum((g * d).sum() for g, d in zip(one, directions, strict=True))
    torch.testing.assert_close((values[0] - values[1]) / (2 * h), expected, rtol=1e-5, atol=1e-8)


def test_a_compiled_outer_step_sees_the_same_graph():
    from torch.fx.experimental.proxy_tensor import make_fx

    learner, tasks = small(), meta_batch()
    graph = make_fx(lambda *t: vmap(learner.loss)(SupportQuery(Batch(*t[:4]), Batch(*t[4:])))[0])(*tasks[0], *tasks[1])
    torch.testing.assert_close(graph(*tasks[0], *tasks[1]), vmap(learner.loss)(tasks)[0])


def test_padding_changes_nothing():
    """Junk behind every demonstration, and a whole shot of it between two."""
    learner, (support, query) = small(), meta_batch()

    def padded(b: Batch) -> Batch:
        x, y, mask = (
            torch.cat([t, torch.full_like(t[:, :, :2], fill)], 2)
            for t, fill in zip(b[:3], (3.0, -5.0, 0.0), strict=True)
        )
        x, y, mask = (
            torch.cat([t[:, :1], fill * torch.ones_like(t[:, :1]), t[:, 1:]], 1)
            for t, fill in ((x, 9.0), (y, 9.0), (mask, 0.0))
        )
        return Batch(x, y, mask, b.hidden)

    plain = vmap(learner.loss)(SupportQuery(support, query))[0]
    torch.testing.assert_close(
        vmap(learner.loss)(SupportQuery(padded(support), padded(query)))[0], plain, rtol=1e-12, atol=1e-14
    )
    skills = [vmap(learner.adapt)(some) for some in (support, padded(support))]
    torch.testing.assert_close(*skills, rtol=1e-12, atol=1e-14)


def test_queries_are_answered_alike_alone_and_together():
    learner, (support, query) = small(), meta_batch()
    skill = learner.adapt(tree_map(lambda t: t[0], support))
    together = learner.predict(skill, query.x[0])
    assert together.shape == (2, 3, 2)
    torch.testing.assert_close(learner.predict(skill, query.x[0, 1, 2]), together[1, 2])


def test_acting_writes_nothing():
    """Every step of an episode reads the memory that the demonstrations left."""
    support, x = meta_batch().support, torch.randn(4, 2, dtype=torch.float64)
    learner = small()
    skill = learner.adapt(tree_map(lambda t: t[1], support))
    action, following = learner.act(skill, x[0])
    assert following is skill
    torch.testing.assert_close(action, learner.predict(skill, x[0]))


@pytest.mark.parametrize(
    "bad", [{"heads": 0}, {"width": 0}, {"slots": 3}, {"decay": 1.0}, {"strength": 0.0}, {"support_loss": -1.0}]
)
def test_settings_are_checked(bad):
    with pytest.raises(QuickstudyError, match=next(iter(bad))):
        MANNConfig(**bad)


def novel_classes(rng: torch.Generator, tasks: int, ways: int = 3, queries: int = 6) -> SupportQuery:
    """Classes are random directions; one look at each, then `queries` more."""
    classes = torch.randn(tasks, 1, ways, 8, generator=rng)
    order = torch.rand(tasks, 1 + queries, ways, generator=rng).argsort(-1)
    x = classes.expand(-1, 1 + queries, -1, -1).gather(2, order[..., None].expand(-1, -1, -1, 8))
    x, y = x + 0.1 * torch.randn(x.shape, generator=rng), torch.eye(ways)[order]
    shown = Batch(x, y, torch.ones(x.shape[:-1]), torch.zeros(tasks, 0))
    return SupportQuery(*(Batch(*(t[:, part] for t in shown[:3]), shown.hidden) for part in (slice(1), slice(1, None))))


def test_it_learns_to_bind_new_classes_to_labels_in_its_memory():
    torch.manual_seed(0)
    learner = MANN(BaseLearner(nn.Identity(), 8, recognition_loss), 8, 3, MANNConfig(12, 16, 2, 48))
    step, adam = OuterStep(learner, "vmap"), torch.optim.Adam(learner.parameters(), 5e-3)
    rng = torch.Generator().manual_seed(0)
    for _ in range(200):
        step(novel_classes(rng, 16))
        adam.step()
    support, query = novel_classes(rng, 200)
    skills = vmap(learner.adapt)(support)

    def accuracy(skills: Memory) -> float:
        return float((vmap(learner.predict)(skills, query.x).argmax(-1) == query.y.argmax(-1)).float().mean())

    assert accuracy(skills) > 0.8
    assert accuracy(skills._replace(rows=0 * skills.rows)) < 0.6
