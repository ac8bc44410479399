"""How the learners that come with the package are trained: whose demonstrations, and what becomes narrow."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from quickstudy.data import Batch
from quickstudy.errors import QuickstudyError
from quickstudy.experiment import Experiment
from quickstudy.studio.learners import card, packaged

ROOT = Path(__file__).parents[2]
if not (ROOT / "tools/train_studio_learners.py").exists():
    pytest.skip("a source distribution may lack the tool", allow_module_level=True)
sys.path.insert(0, str(ROOT / "tools"))
import train_studio_learners as tool  # noqa: E402


def demonstrations(tasks: int = 12, each: int = 3) -> tool.WithPeople:
    """Observations say whose a demonstration is: 0 the expert's, 1 a person's; actions say which task it is of."""
    family = Experiment.of("point-navigation", "maml").family
    x = torch.cat([torch.zeros(tasks, each, 4, 2), torch.ones(tasks, each, 4, 2)], dim=1)
    y = torch.arange(tasks).float()[:, None, None, None].expand(tasks, 2 * each, 4, 2).clone()
    batch = Batch(x, y, torch.ones(tasks, 2 * each, 4), torch.zeros(tasks, 2))
    return tool.WithPeople(family.tasks("train", tasks), batch)


def test_half_of_the_support_is_peoples_and_none_of_the_query():
    source, rng, by_people = demonstrations(), torch.Generator().manual_seed(0), []
    for _ in range(50):
        support, query = source.sample(rng, tasks=8, shots=1, queries=2)
        assert (query.x == 0).all()
        assert torch.equal(support.y[:, 0, 0, 0], query.y[:, 0, 0, 0])
        by_people.append(float(support.x.mean()))
    assert 0.4 < np.mean(by_people) < 0.6


def test_the_experts_demonstration_is_never_both_support_and_query():
    source, rng = demonstrations(), torch.Generator().manual_seed(0)
    each = source.batch.x.shape[1] // 2
    source.batch.x[:, :each] = torch.arange(each).float()[None, :, None, None]  # which of the expert's it is
    source.batch.x[:, each:] = -1.0
    for _ in range(50):
        support, query = source.sample(rng, tasks=8, shots=1, queries=2)
        assert not (support.x[:, :1, 0, 0] == query.x[:, :, 0, 0]).any()


def test_more_demonstrations_than_were_recorded_are_refused():
    with pytest.raises(QuickstudyError, match="has 3"):
        demonstrations().sample(torch.Generator(), tasks=2, shots=2, queries=2)


def test_parameters_become_narrow_and_what_standardises_does_not():
    learner = Experiment.of("point-navigation", "maml").build()
    tensors = learner.state_dict()
    made = tool.narrow(learner, tensors)
    parameters = {name for name, _ in learner.named_parameters()}
    assert parameters
    assert made.keys() == tensors.keys()
    for name, tensor in made.items():
        assert tensor.dtype == (torch.float16 if name in parameters else tensors[name].dtype)


def test_each_recipe_has_a_learner_and_each_learner_a_recipe():
    assert {recipe.name for recipe in tool.RECIPES} == {run.name for run in packaged()}


@pytest.mark.parametrize("recipe", tool.RECIPES, ids=lambda recipe: recipe.name)
def test_a_learner_has_the_settings_of_its_recipe(recipe):
    told = card(next(run for run in packaged() if run.name == recipe.name))
    settings = Experiment.of(recipe.family, recipe.method, 0, recipe.changes).settings
    assert told["training"] == f"{settings.training.steps} outer steps"
    assert told["seed"] == settings.seed


def test_peoples_families_have_the_tasks_of_the_experts():
    for name, people in tool.PEOPLE.items():
        expert = Experiment.of(name).family
        assert people().tasks("validation", 3) == expert.tasks("validation", 3)
        assert people().name == expert.name
