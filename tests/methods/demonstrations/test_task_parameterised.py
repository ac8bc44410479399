"""Task-parameterised matching: equivariance, hand-computed numbers, and that it really learns to carry."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carrying import Carrying
from quickstudy.data import Batch, DemonstrationSet
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import evaluate
from quickstudy.experiment import Experiment
from quickstudy.methods.demonstrations import baselines
from quickstudy.methods.demonstrations.task_parameterised import (
    TaskParameterisedConfig,
    TaskParameterisedMatching,
    _later,
)
from quickstudy.settings import TrainConfig
from quickstudy.train import meta_train

FAMILY = Carrying()


def learner(**options) -> TaskParameterisedMatching:
    torch.manual_seed(0)
    made = TaskParameterisedMatching(
        baselines.recorded_base(10), 4, FAMILY.observation_layout, TaskParameterisedConfig(**options)
    ).double()
    for parameter in made.parameters():  # so that no part is at the zeros that it begins with
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made


def shown(count: int = 2) -> Batch:
    batch = DemonstrationSet.record(FAMILY, FAMILY.tasks("test", 1), count, 0).batch
    return Batch(*(t[0].double() for t in batch))


def moved(x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """Observations of a scene that is shifted as a whole."""
    x = x.clone()
    for place in FAMILY.observation_layout[:3]:
        x[..., place] += by
    return x


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=3))
def test_a_scene_that_is_shifted_as_a_whole_is_met_alike_but_for_the_frame_of_the_world(by):
    it, support = learner(), shown(1)
    it.follow.head.bias.data[0] = -1e9  # no part for the world's frame
    query = shown(2).x[1]
    plain, elsewhere = (it.predict(it.adapt(support), moved(query, torch.tensor(b))) for b in ([0.0] * 3, by))
    torch.testing.assert_close(plain, elsewhere, rtol=1e-9, atol=1e-9)


def test_the_step_to_follow_is_the_mean_of_a_softmax_of_likeness_and_clock():
    it, support = learner(), shown(1)
    it.log_tick.data.fill_(-math.log(5.0))
    skill, x = it.adapt(support), support.x[0, 7]
    own, keys = it._embed(x, x).detach(), skill.keys[0].detach()
    logits = [-0.5 * (own - keys[i]).square().sum() - 0.5 * ((i - 9) / 5) ** 2 for i in range(FAMILY.horizon)]
    mean = torch.stack(logits).softmax(0) @ torch.arange(FAMILY.horizon).double()
    due = it._due(skill, it._likeness(skill, x), torch.tensor([9.0]).double())
    torch.testing.assert_close(due, mean.clamp(8.25, 9.5)[None])


def test_the_clock_neither_stands_still_nor_skips():
    it, support = learner(), shown(1)
    skill = it.adapt(support)
    for step, due in ((0, 5.0 - 0.75), (30, 5.0 + 0.5)):  # attention far behind the clock, and far ahead of it
        likeness = torch.full((1, FAMILY.horizon), -1e6).double()
        likeness[0, step] = 0.0
        torch.testing.assert_close(it._due(skill, likeness, torch.tensor([5.0]).double()), torch.tensor([due]).double())


def test_the_hand_is_followed_some_steps_ahead_and_to_the_end_of_the_real_steps():
    hand, mask = torch.arange(30.0).reshape(1, 30, 1), torch.ones(1, 30)
    mask[0, 20:] = 0.0
    later = _later(hand, mask)[0, :, :, 0]
    assert later[3].tolist() == [3.0, 8.0, 18.0]
    assert later[12].tolist() == [12.0, 17.0, 19.0]


def test_before_anything_is_learned_the_frame_passes_from_the_object_to_the_goal_as_the_object_moves():
    it = TaskParameterisedMatching(baselines.recorded_base(10), 4, FAMILY.observation_layout)
    x = torch.zeros(1, 3, 10)
    x[0, :, 4] = torch.tensor([0.0, 0.5, 1.0])
    values = it._values(x, torch.zeros(1, 3, 4), torch.ones(1, 3))[0].detach()
    start, now, goal = values[:, 3:6].unbind(-1)
    assert start[0] > 0.8 > 0.1 > goal[0]
    assert goal[2] > 0.9 > 0.1 > start[2]
    assert now[1] == pytest.approx(float(start[1]) * math.exp(-2.0))


def test_the_clock_goes_on_with_the_demonstration_that_it_follows():
    it, support = learner(), shown(1)
    it.log_metric.data.fill_(3.0)
    skill, clocks = it.adapt(support), []
    for x in support.x[0, :10]:
        _, skill = it.act(skill, x)
        clocks.append(skill.clock[0].item())
    assert clocks == pytest.approx(range(1, 11), abs=0.5)


def test_it_learns_to_carry_from_one_demonstration():
    """To spots that training did not have; a network that has learned nothing fails in spite of the demonstration."""
    experiment = Experiment.of(FAMILY, "matching-frames", changes={"data": {"tasks": 100, "demonstrations": 4}})
    it, source = experiment.build(), experiment.source()
    it.standardise(source.batch)

    def success() -> float:
        return float(evaluate(it, FAMILY, "test", shots=[1], tasks=30, episodes=3).metrics["success"].mean())

    assert success() < 0.1
    meta_train(it, source, TrainConfig(200, rate=3e-3), seed=0)
    assert success() > 0.3


@pytest.mark.parametrize("name", ["embedding", "pull", "ticks"])
def test_settings_that_mean_nothing_are_refused(name):
    with pytest.raises(QuickstudyError, match=f"{name} must be positive; got 0"):
        TaskParameterisedConfig(**{name: 0})
