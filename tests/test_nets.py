"""Networks: exact under second-order vmap, what normalisation does to a query alone, and what settings are refused."""

import pytest
import torch
from torch.func import vmap
from torch.utils._pytree import tree_map

from quickstudy.data import Batch, SupportQuery
from quickstudy.errors import QuickstudyError
from quickstudy.experiment import Experiment
from quickstudy.families.classic import Sinusoid
from quickstudy.learner import BaseLearner, recognition_loss
from quickstudy.methods.demonstrations.maml import MAML, MAMLConfig
from quickstudy.nets import BatchStatistics, ConvClassifier, ConvNet, distorted
from quickstudy.settings import DataConfig, NetworkConfig


def images(tasks: int = 3, shots: int = 2, seed: int = 0) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(tasks, shots, 3, 63, generator=rng, dtype=torch.float64)
    y = torch.eye(3, dtype=torch.float64).expand(tasks, shots, 3, 3)
    return Batch(x, y, torch.ones(tasks, shots, 3, dtype=torch.float64), torch.zeros(tasks, 0, dtype=torch.float64))


@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("shared_head", [False, True])
def test_second_order_through_convolutions_is_the_same_under_vmap_and_in_a_loop(batch_statistics, shared_head):
    torch.manual_seed(0)
    network = ConvClassifier(ConvNet((7, 9), 8, (4, 5, 6), batch_statistics), 3)
    torch.nn.init.normal_(network.head.weight, std=0.1)  # at zero, the layers before it would not move at first
    base = BaseLearner(network, 63, recognition_loss)
    learner = MAML(base, MAMLConfig(2, 0.03, shared_head=shared_head)).double()
    batch, parameters = SupportQuery(images(seed=1), images(seed=2)), list(learner.parameters())
    together = vmap(learner.loss)(batch)[0]
    alone = torch.stack([learner.loss(tree_map(lambda t, i=i: t[i], batch))[0] for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-13)
    gradients = [torch.autograd.grad(losses.mean(), parameters, allow_unused=True) for losses in (together, alone)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_an_image_is_recognised_alone_unless_the_batch_is_its_measure():
    torch.manual_seed(0)
    x = images()[0].flatten(0, 2)
    for batch_statistics in (False, True):
        network = ConvNet((7, 9), 3, (4, 5), batch_statistics).double()
        alone = torch.cat([network(one[None]) for one in x])
        assert torch.allclose(network(x), alone) != batch_statistics


def test_batch_statistics_are_those_of_batch_normalisation_in_training():
    x = torch.randn(5, 4, 3, 2, dtype=torch.float64)
    expected = torch.nn.BatchNorm2d(4).double().train()(x)
    torch.testing.assert_close(BatchStatistics(4).double()(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("leading", [(), (4,), (2, 3)])
def test_images_come_with_any_leading_shape(leading):
    assert ConvNet((28, 28), 5, (4, 4, 4, 4))(torch.rand(*leading, 784)).shape == (*leading, 5)


def test_a_gradient_step_on_a_head_at_zero_compares_cosines():
    """At first all classes are equally likely, so row c becomes rate (mean of class c - mean of all) / classes."""
    torch.manual_seed(0)
    network, batch = ConvClassifier(ConvNet((7, 9), 6, (4, 5)), 3).double(), images(1, 2)
    base = BaseLearner(network, 63, recognition_loss).double()
    support = tree_map(lambda t: t[0], batch)
    embedded = network.normalise(network.embedding(support.x)).detach()
    torch.testing.assert_close(embedded.norm(dim=-1), torch.full((2, 3), 6.0, dtype=torch.float64), rtol=1e-3, atol=0)
    rows = MAML(base, MAMLConfig(1, 0.3)).double().adapt(support)["network.head.weight"]
    means = embedded.mean(0)
    torch.testing.assert_close(rows, 0.3 * (means - means.mean(0)) / 3)


def test_a_network_with_views_says_the_mean_of_what_it_says_about_each():
    torch.manual_seed(0)
    several = ConvNet((7, 9), 3, (4, 5), num_augmentations=3).double()
    once = ConvNet((7, 9), 3, (4, 5)).double()
    once.load_state_dict(several.state_dict())
    x = torch.rand(2, 4, 63, dtype=torch.float64)
    pictures = x.reshape(8, 1, 7, 9)
    copies = [distorted(pictures, several.amounts[:, k, None].expand(6, 8), "border") for k in range(3)]
    torch.testing.assert_close(copies[0], pictures)
    assert not torch.allclose(copies[1], pictures)
    expected = torch.stack([once(copy.reshape(2, 4, 63)) for copy in copies]).mean(0)
    torch.testing.assert_close(several(x), expected)


@pytest.mark.parametrize(
    "bad", [{"context": -1}, {"num_augmentations": 0}, {"embedding": -1}, {"hidden": (8, 0)}, {"channels": (-4,)}]
)
def test_settings_of_networks_are_checked(bad):
    with pytest.raises(QuickstudyError, match=next(iter(bad))):
        NetworkConfig(**bad)


@pytest.mark.parametrize("bad", [{"tasks": 0}, {"demonstrations": -1}, {"validation_episodes": 0}])
def test_settings_of_data_are_checked(bad):
    with pytest.raises(QuickstudyError, match=f"{next(iter(bad))} must be positive"):
        DataConfig(**bad)


def test_without_an_embedding_observations_themselves_are_compared():
    family = Sinusoid()
    for method in ("matching", "siamese", "mann"):
        learner = Experiment.of(family, method, changes={"network": {"embedding": 0}}).build()
        assert not list(learner.base.parameters())
        assert learner.base(torch.tensor([[2.0]])).tolist() == [[2.0]]
