"""The contract of a method that learns from demonstrations, point by point: what training and evaluation rely on.

`quickstudy check FAMILY --method my_module:MyMethod` goes through it. Each point is a function that returns what it
found, raises `BrokenError` with what to do about it, or raises `SkippedError` where it does not apply. Whatever must be
exact is computed in float64.
"""

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_leaves, tree_map

from quickstudy.batching import OuterStep
from quickstudy.check.graphs import graphs_do_the_same
from quickstudy.check.points import BrokenError, Point, SkippedError, go_through
from quickstudy.data import Batch, DemonstrationSet, DrawsFresh, Scaling, Source, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import SkillPolicy, skills_after
from quickstudy.io import checkpoint
from quickstudy.learner import MetaLearner, Skill
from quickstudy.method import Method
from quickstudy.methods.demonstrations.base_network import criterion
from quickstudy.settings import DataConfig, NetworkConfig, Settings, TrainConfig
from quickstudy.task import TaskFamily
from quickstudy.train import meta_train

STEPS = 400
"""Outer steps after which a demonstration must help."""
TRAIN_TASKS, HELD_OUT_TASKS, SHOTS, QUERIES = 100, 60, 2, 2
"""Of what is recorded for the points; fewer where a family has fewer."""
FEWEST_TASKS = 8
"""Held-out tasks that a point about their errors needs."""
SIGNIFICANCE = 0.01
"""The largest p-value at which a demonstration counts as helping."""


@dataclass(frozen=True)
class Subject:
    """A method on a family, and what several points look at, made once."""

    method: Method
    family: TaskFamily
    settings: Settings

    @property
    def trained(self) -> bool:
        """Whether training tasks teach it anything."""
        return self.method.uses == "all"

    @property
    def source(self) -> Source:
        return _source(self.family, self.settings.data.demonstrations)

    def build(self) -> MetaLearner:
        """Untrained, in float32 and without the scale of observations; always the same."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            learner = self.method.build(self.settings, self.family)
        if not isinstance(learner, MetaLearner):
            raise BrokenError(f"build must return a quickstudy.MetaLearner; got {type(learner).__name__}.")
        learner.scaling = copy.deepcopy(_scaling(self.source))
        return learner

    def fresh(self) -> MetaLearner:
        """Untrained, in float32."""
        learner = self.build()
        if self.source.batch is not None:
            learner.standardise(self.source.batch)
        return learner

    def exact(self) -> MetaLearner:
        """After a few outer steps, because what begins at zero would hide mistakes; in float64."""
        return copy.deepcopy(self._begun).double()

    @cached_property
    def _begun(self) -> MetaLearner:
        learner = self.fresh()
        if self.trained:
            _outer_steps(learner, _optimiser(learner, self), self, 0, 3)
            learner.zero_grad()
        return learner

    def batch(self, tasks: int = 5) -> SupportQuery:
        """Held-out tasks in float64."""
        recorded = _held_out(self.family, _scaling(self.source))
        shown = recorded.batch.mask.shape[1]
        queries = min(QUERIES, shown // 2)
        numbers = min(tasks, len(recorded)), min(SHOTS, shown - queries), queries
        sampled = recorded.sample(torch.Generator().manual_seed(0), *numbers)
        return tree_map(lambda t: t.double(), sampled)

    @cached_property
    def errors(self) -> tuple[Tensor, Tensor, Tensor]:
        """After training: errors on held-out tasks [task] without a demonstration, with the task's own, and with those
        of another task."""
        learner, batch = _after_training(self), self.batch(HELD_OUT_TASKS)
        before, own = (skills_after(learner, batch.support, shots) for shots in (0, batch.support.x.shape[1]))
        if all(torch.equal(a, b) for a, b in zip(tree_leaves(before), tree_leaves(own), strict=True)):
            if self.method.role == "meta-learner":
                raise BrokenError("adapt returns what begin does, whatever the demonstrations.")
            raise SkippedError("it does not adapt")
        if not self.trained and _changes_while_acting(learner, own, batch.support.x[0, 0, 0]):
            raise SkippedError("what it does depends on a clock, not on the observation alone")
        other = skills_after(learner, tree_map(lambda t: t.roll(1, 0), batch.support), batch.support.x.shape[1])
        before, own, other = (_query_errors(learner, self.family, batch, s) for s in (before, own, other))
        return before, own, other


def check_method(method: Method, family: TaskFamily, settings: Settings | None = None) -> list[Point]:
    """Goes through all points of the contract of a method on a family.

    Args:
        settings: the defaults where not given; the training is shortened to `STEPS` outer steps in any case.

    Raises:
        QuickstudyError: the method cannot learn the tasks of the family, or learns by trial.
    """
    if reason := method.why_not(family):
        raise QuickstudyError(reason)
    if method.learns_from != "demonstrations":
        raise QuickstudyError(f"Only methods that learn from demonstrations have a contract; '{method.name}' does not.")
    subject = Subject(method, family, settings or method.defaults(family.name, family))
    return go_through(f"checking {method.name} on {family.name}", POINTS, subject)


# ---- the points


def says_what_it_is(subject: Subject) -> str:
    method = subject.method
    if not method.name or not method.summary:
        raise BrokenError("Give the record a name and a summary.")
    first, second = (subject.build().state_dict() for _ in range(2))
    if first.keys() != second.keys() or any(not torch.equal(first[name], second[name]) for name in first):
        raise BrokenError("Two learners of one seed differ: draw initial parameters from torch's own generator.")
    parameters = sum(p.numel() for p in subject.build().parameters() if p.requires_grad)
    return f"{method.role}, {parameters} parameters"


def skills_are_trees_of_tensors(subject: Subject) -> str:
    learner, batch = subject.exact(), subject.batch()
    support = tree_map(lambda t: t[0], batch.support)
    leaves: list[Any] = []
    for name, skill in (("begin()", learner.begin()), ("adapt(support)", learner.adapt(support))):
        leaves = tree_leaves(skill)
        for leaf in leaves:
            if not isinstance(leaf, Tensor):
                raise BrokenError(f"{name} must return a tree of tensors; it holds a {type(leaf).__name__}.")
            if not leaf.isfinite().all():
                raise BrokenError(f"{name} holds a number that is not finite.")
        action, following = learner.act(skill, support.x[0, 0])
        if action.shape != (subject.family.action_size,):
            wanted = [subject.family.action_size]
            raise BrokenError(f"act must return an action {wanted}; got {list(action.shape)}.")
        if [leaf.shape for leaf in tree_leaves(following)] != [leaf.shape for leaf in leaves]:
            raise BrokenError("The skill that act returns has other shapes than the one that it was given.")
        shape = learner.predict(skill, support.x).shape
        if shape != support.y.shape:
            raise BrokenError(
                f"predict must turn [..., obs] into [..., act], {list(support.y.shape)}; got {list(shape)}."
            )
    return f"{len(leaves)} tensors, {sum(leaf.numel() for leaf in leaves)} numbers"


def vmap_equals_a_loop(subject: Subject) -> str:
    learner, batch = subject.exact(), subject.batch()
    losses = vmap(learner.loss)(batch)[0]
    looped = torch.stack([learner.loss(tree_map(lambda t, i=i: t[i], batch))[0] for i in range(len(losses))])
    if difference := _difference([losses], [looped], 1e-12, 1e-14):
        raise BrokenError(f"The losses of all tasks under vmap differ from those of a loop {difference}.")
    if not subject.trained:
        return "the losses of many tasks at once are those of each alone"
    parameters = [p for p in learner.parameters() if p.requires_grad]
    one, other = (torch.autograd.grad(some.mean(), parameters, allow_unused=True) for some in (losses, looped))
    if difference := _difference(one, other, 1e-10, 1e-13):
        raise BrokenError(
            f"The meta-gradient under vmap differs from that of a loop {difference}: torch's own layer, instance and "
            "batch normalisation are silently wrong here; use those of quickstudy.nets."
        )
    return "losses and meta-gradients of many tasks at once are those of each alone"


def meta_gradient_is_right(subject: Subject) -> str:
    learner, batch = subject.exact(), subject.batch()
    if not subject.trained:
        raise SkippedError("it is not trained")
    if not learner.follows_gradient:
        raise SkippedError("its outer step is not the gradient of its loss, as it says by follows_gradient")
    OuterStep(learner, "vmap")(batch)
    graded = [(p, p.grad) for p in learner.parameters() if p.grad is not None]
    rng = torch.Generator().manual_seed(1)
    directions = [(p, torch.randn(p.shape, generator=rng, dtype=p.dtype)) for p, _ in graded]
    expected = torch.stack([(g * d).sum() for (_, g), (_, d) in zip(graded, directions, strict=True)]).sum()

    def moved(by: float) -> Tensor:
        with torch.no_grad():
            for p, d in directions:
                p.add_(by * d)
            value = vmap(learner.loss)(batch)[0].mean()
            for p, d in directions:
                p.sub_(by * d)
        return value

    difference = ""
    for h in (1e-6, 1e-7, 1e-8):  # a small step is less likely to meet the kink of a ReLU, but rounds more
        found = (moved(h) - moved(-h)) / (2 * h)
        difference = _difference([expected], [found], 2e-4, 1e-7)
        if not difference:
            return f"{float(found):.4g} along a direction, as by finite differences"
    raise BrokenError(
        f"The meta-gradient along a direction differs from finite differences {difference}: something in the inner "
        "loop is detached. If that is meant, set follows_gradient = False."
    )


def padding_changes_nothing(subject: Subject) -> str:
    learner, batch = subject.exact(), subject.batch()

    def padded(b: Batch) -> Batch:
        junk = [torch.full_like(t[:, :, :7], value) for t, value in zip(b[:3], (3.0, -5.0, 0.0), strict=True)]
        x, y, mask = (torch.cat([t, j], 2) for t, j in zip(b[:3], junk, strict=True))
        return Batch(x, y, mask, b.hidden)

    plain, other = (vmap(learner.loss)(b)[0] for b in (batch, SupportQuery(*map(padded, batch))))
    if difference := _difference([plain], [other], 1e-10, 1e-13):
        raise BrokenError(f"Steps whose mask is 0 change the loss {difference}: multiply by the mask.")
    return "steps whose mask is 0 do not count"


def order_does_not_matter(subject: Subject) -> str:
    learner, (support, query) = subject.exact(), subject.batch()
    if learner.order_matters:
        raise SkippedError("it depends on the order of demonstrations, as it says by order_matters")
    flipped = Batch(support.x.flip(1), support.y.flip(1), support.mask.flip(1), support.hidden)
    plain, other = (vmap(learner.loss)(SupportQuery(s, query))[0] for s in (support, flipped))
    if difference := _difference([plain], [other], 1e-9, 1e-12):
        raise BrokenError(
            f"Demonstrations in another order change the loss {difference}. If that is meant, set order_matters = True."
        )
    return "demonstrations may come in any order"


def hidden_stays_hidden(subject: Subject) -> str:
    learner, (support, query) = subject.exact(), subject.batch()
    changed = support._replace(hidden=support.hidden + 1.0)
    plain, other = (vmap(learner.loss)(SupportQuery(s, query))[0] for s in (support, changed))
    same = torch.equal(plain, other)
    if subject.method.role != "oracle" and not same:
        raise BrokenError("Its loss depends on support.hidden, which no robot knows; only an oracle may read it.")
    if subject.method.role == "oracle" and same:
        raise BrokenError("It is called an oracle and does not read support.hidden.")
    return "what is hidden is " + ("not read" if same else "read")


def saved_learner_acts_the_same(subject: Subject) -> str:
    learner, support = subject.fresh(), tree_map(lambda t: t.float(), subject.batch().support)
    if subject.trained:
        _outer_steps(learner, _optimiser(learner, subject), subject, 0, 1)
    loaded = subject.build()
    with TemporaryDirectory() as folder:
        checkpoint.save(Path(folder) / "it", learner.state_dict(), {})
        checkpoint.load_into(loaded, checkpoint.load(Path(folder) / "it").tensors, "it")
    observations = np.random.default_rng(0).normal(size=(len(support.x), 3, support.x.shape[-1])).astype("f4")
    one, other = (
        SkillPolicy(some, skills_after(some, support, support.x.shape[1]))(observations) for some in (learner, loaded)
    )
    if not np.array_equal(one, other):
        raise BrokenError("A learner loaded from its checkpoint acts otherwise: keep all state in buffers.")
    return "a checkpoint holds all of it"


def training_resumes_exactly(subject: Subject) -> str:
    if not subject.trained:
        raise SkippedError("it is not trained")
    learner = subject.fresh()
    optimiser = _optimiser(learner, subject)
    _outer_steps(learner, optimiser, subject, 0, 2)
    with TemporaryDirectory() as folder:
        checkpoint.save(Path(folder) / "it", learner.state_dict(), {}, optimiser.state_dict())
        saved = checkpoint.load(Path(folder) / "it")
    resumed = subject.build()
    checkpoint.load_into(resumed, saved.tensors, "it")
    optimiser_of_resumed = _optimiser(resumed, subject)
    optimiser_of_resumed.load_state_dict(saved.training or {})
    _outer_steps(learner, optimiser, subject, 2, 4)
    _outer_steps(resumed, optimiser_of_resumed, subject, 2, 4)
    for name, tensor in learner.state_dict().items():
        if not torch.equal(tensor, resumed.state_dict()[name]):
            raise BrokenError(
                f"A training that went on from a checkpoint has another '{name}' than one without a break: keep all "
                "state in parameters and buffers, and draw nothing from a generator of your own."
            )
    return "four outer steps with and without a break give the same learner"


def training_lowers_the_loss(subject: Subject) -> str:
    if not subject.trained:
        raise SkippedError("it is not trained")
    learner, batch = subject.fresh(), tree_map(lambda t: t.float(), subject.batch())
    step, optimiser, losses = OuterStep(learner, "vmap"), _optimiser(learner, subject), []
    for _ in range(20):
        losses.append(float(step(batch).losses.mean()))
        optimiser.step()
    after = float(step(batch).losses.mean())
    if not after < losses[0]:
        raise BrokenError(
            f"Twenty outer steps on the same tasks change their loss from {losses[0]:.4g} to {after:.4g}."
        )
    return f"twenty outer steps on the same tasks lower their loss from {losses[0]:.4g} to {after:.4g}"


def a_demonstration_helps(subject: Subject) -> str:
    before, after, _ = subject.errors
    p = _p_value((before - after).numpy())
    _check_enough(p, before - after)
    if p >= SIGNIFICANCE:
        raise BrokenError(
            f"After {STEPS} outer steps, demonstrations change the error on held-out tasks from "
            f"{before.mean():.4g} to {after.mean():.4g} (p = {p:.3f}): adapt must use them, or training takes longer."
        )
    return f"demonstrations of held-out tasks lower the error from {before.mean():.4g} to {after.mean():.4g}"


def another_tasks_demonstration_does_not(subject: Subject) -> str:
    _, own, other = subject.errors
    p = _p_value((other - own).numpy())
    _check_enough(p, other - own)
    if p >= SIGNIFICANCE:
        raise BrokenError(
            f"Demonstrations of another task help as much as those of the task itself: the error is {other.mean():.4g} "
            f"with them and {own.mean():.4g} with its own (p = {p:.3f})."
        )
    if subject.trained or subject.method.role == "floor":  # a random network learns something from any demonstration
        s = subject.settings
        nothing = _pooled_errors(subject.family, s.network, s.data, s.training.shots, s.training.queries)
        if other.mean() <= 0.95 * nothing.mean():
            raise BrokenError(
                f"Demonstrations of another task give an error of {other.mean():.4g}, "
                f"less than the {nothing.mean():.4g} of a network that never sees any: does it read what is hidden?"
            )
    return f"the error is {own.mean():.4g} with the task's own, {other.mean():.4g} with another task's"


def graphs_do_what_pytorch_does(subject: Subject) -> str:
    if subject.method.role == "oracle":
        raise SkippedError("it is told what no robot knows")
    support = tree_map(lambda t: t[0], subject.batch().support)
    one = support._replace(x=support.x[:1], y=support.y[:1], mask=support.mask[:1])
    some = -(-one.x.shape[1] // 2)
    sooner = one._replace(x=one.x[:, :some], y=one.y[:, :some], mask=one.mask[:, :some])
    return graphs_do_the_same(subject.exact().float(), [one, sooner, support])


POINTS: dict[str, Callable[[Subject], str]] = {
    "says what it is": says_what_it_is,
    "a skill is a tree of tensors": skills_are_trees_of_tensors,
    "many tasks at once are each alone": vmap_equals_a_loop,
    "the meta-gradient is right": meta_gradient_is_right,
    "padding changes nothing": padding_changes_nothing,
    "the order of demonstrations does not matter": order_does_not_matter,
    "only an oracle sees what is hidden": hidden_stays_hidden,
    "a saved learner acts the same": saved_learner_acts_the_same,
    "its graphs do what PyTorch does": graphs_do_what_pytorch_does,
    "training resumes exactly": training_resumes_exactly,
    "training lowers the loss": training_lowers_the_loss,
    "a demonstration helps": a_demonstration_helps,
    "another task's demonstration does not": another_tasks_demonstration_does_not,
}


# ---- what they look at


def _check_enough(p: float, gains: Tensor) -> None:
    """Skips a point where there are too few held-out tasks to tell, and what there is points the right way."""
    if p >= SIGNIFICANCE and len(gains) < FEWEST_TASKS and float(gains.mean()) > 0:
        raise SkippedError(f"{len(gains)} held-out tasks are too few to tell (p = {p:.3f})")


@functools.lru_cache(maxsize=4)
def _source(family: TaskFamily, demonstrations: int) -> Source:
    if isinstance(family, DrawsFresh):
        return family.fresh()
    tasks = family.tasks("train", min(TRAIN_TASKS, family.sizes["train"]))
    return DemonstrationSet.record(family, tasks, demonstrations, 0, for_training=True)


def _scaling(source: Source) -> Scaling | None:
    return source.scaling if isinstance(source, DemonstrationSet) else None


@functools.lru_cache(maxsize=4)
def _held_out(family: TaskFamily, scaling: Scaling | None) -> DemonstrationSet:
    tasks = family.tasks("validation", min(HELD_OUT_TASKS, family.sizes["validation"]))
    for count in range(SHOTS + QUERIES, 2, -1):  # a user's own data may have fewer of a task
        try:
            return DemonstrationSet.record(family, tasks, count, 3, scaling)
        except QuickstudyError:
            continue
    return DemonstrationSet.record(family, tasks, 2, 3, scaling)


def _after_training(subject: Subject) -> MetaLearner:
    """In float64."""
    learner, training = subject.fresh(), subject.settings.training
    if subject.trained:
        steps = min(STEPS, training.steps)
        config = replace(training, steps=steps, validate_every=steps, batching="vmap")
        meta_train(learner, subject.source, config, title=f"training {subject.method.name}")
    return learner.double()


@functools.lru_cache(maxsize=4)
def _pooled_errors(family: TaskFamily, network: NetworkConfig, data: DataConfig, shots: int, queries: int) -> Tensor:
    """Errors on held-out tasks [task] of one network for all tasks, which never sees a demonstration."""
    from quickstudy import methods

    method = methods.get("no-adaptation")
    training = TrainConfig(STEPS, shots=shots, queries=queries, rate=3e-3)
    subject = Subject(method, family, Settings(family.name, method.name, network=network, training=training, data=data))
    learner, batch = _after_training(subject), subject.batch(HELD_OUT_TASKS)
    return _query_errors(learner, family, batch, skills_after(learner, batch.support, 0))


def _changes_while_acting(learner: MetaLearner, skills: Skill, x: Tensor) -> bool:
    skill = tree_map(lambda t: t[0], skills)
    following = learner.act(skill, x)[1]
    return any(not torch.equal(a, b) for a, b in zip(tree_leaves(skill), tree_leaves(following), strict=True))


def _query_errors(learner: MetaLearner, family: TaskFamily, batch: SupportQuery, skills: Skill) -> Tensor:
    """How badly the query is imitated, [task]."""
    judge = criterion(family)
    with torch.no_grad():
        return vmap(lambda skill, query: judge(learner.predict(skill, query.x), query))(skills, batch.query)


def _optimiser(learner: MetaLearner, subject: Subject) -> torch.optim.Optimizer:
    training = subject.settings.training
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[training.optimiser]
    return kind(learner.parameters(), lr=training.rate)


def _outer_steps(
    learner: MetaLearner, optimiser: torch.optim.Optimizer, subject: Subject, first: int, last: int
) -> None:
    """Outer steps `first` to `last`, each on a meta-batch of its own."""
    step = OuterStep(learner, "vmap")
    for i in range(first, last):
        step(subject.source.sample(torch.Generator().manual_seed(i), 4, 1, 1))
        optimiser.step()


def _difference(one: Sequence[Tensor | None], other: Sequence[Tensor | None], rtol: float, atol: float) -> str:
    """By how much tensors differ, in words; empty where they are close."""
    for a, b in zip(one, other, strict=True):
        if (a is None) != (b is None):
            return "(some are missing)"
        if a is not None and b is not None and not torch.allclose(a, b, rtol=rtol, atol=atol):
            most, size = (t.detach().abs().max().item() for t in (a - b, b))
            return f"by up to {most:.2g} of {size:.2g}"
    return ""


def _p_value(gains: np.ndarray) -> float:
    """Of the hypothesis that gains [task] are as likely up as down, by a permutation test on their mean."""
    rng = np.random.default_rng(0)
    flipped = rng.choice([-1.0, 1.0], (2000, len(gains))) @ gains
    return float((flipped >= gains.sum()).mean())
