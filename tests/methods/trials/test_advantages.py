"""Returns, baseline and advantages against numbers worked out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.errors import QuickstudyError
from quickstudy.methods.trials.advantages import (
    ReturnsConfig,
    discounted,
    estimate_advantages,
    fit_baseline,
    gae,
    standardise,
)
from quickstudy.methods.trials.rollout import Episodes

NO, YES = torch.tensor([[False]]), torch.tensor([[True]])


def one(*numbers: float) -> torch.Tensor:
    """[task, episode, step] of one episode."""
    return torch.tensor([[numbers]], dtype=torch.float64)


def test_discounted() -> None:
    assert discounted(one(1, 2, 4), one(1, 1, 1), 0.5).tolist() == [[[3.0, 4.0, 4.0]]]


def test_padding_is_worth_nothing() -> None:
    assert discounted(one(1, 2, 4, 9), one(1, 1, 1, 0), 0.5).tolist() == [[[3.0, 4.0, 4.0, 0.0]]]


# r = 1, 2; V = 10, 20; V(last) = 40; gamma = lambda = 0.5:
# truncated: delta_1 = 2 + 20 - 20 = 2, delta_0 = 1 + 10 - 10 = 1, A_0 = 1 + 0.25 * 2 = 1.5
# terminated: delta_1 = 2 - 20 = -18, A_0 = 1 - 0.25 * 18 = -3.5
@pytest.mark.parametrize(("terminated", "expected"), [(NO, [1.5, 2.0]), (YES, [-3.5, -18.0])])
def test_gae_by_hand(terminated: torch.Tensor, expected: list[float]) -> None:
    last = torch.tensor([[40.0]], dtype=torch.float64)
    assert gae(one(1, 2), one(10, 20), last, terminated, one(1, 1), 0.5, 0.5).tolist() == [[expected]]
    padded = gae(one(1, 2, 7), one(10, 20, 5), last, terminated, one(1, 1, 0), 0.5, 0.5)
    assert padded.tolist() == [[[*expected, 0.0]]]


@given(st.integers(1, 12), st.integers(0, 2**31), st.floats(0.1, 1.0))
@settings(max_examples=30, deadline=None)
def test_gae_with_lambda_of_one_is_return_minus_value(steps: int, seed: int, discount: float) -> None:
    rng = np.random.default_rng(seed)
    rewards, values = (torch.from_numpy(rng.normal(size=(2, 3, steps))) for _ in range(2))
    mask = torch.ones_like(rewards)
    made = gae(rewards, values, torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool), mask, discount, 1.0)
    torch.testing.assert_close(made, discounted(rewards, mask, discount) - values)


def test_fit_baseline_finds_the_line_of_each_task() -> None:
    x = torch.randn(2, 3, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    true = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
    y = (x * true[:, None, None]).sum(-1)
    mask = torch.ones(2, 3, 5)
    mask[..., 4] = 0
    y[..., 4] = 1e6
    torch.testing.assert_close(fit_baseline(x, y, mask, ridge=1e-12), true)


def test_standardise_leaves_padding_out() -> None:
    made = standardise(one(1, 3, 100), one(1, 1, 0))
    torch.testing.assert_close(made, one(-1, 1, 0))


def episodes(steps: int, padding: int, seed: int = 0) -> Episodes:
    """Two tasks, three episodes each; padding holds other numbers."""
    rng = torch.Generator().manual_seed(seed)
    total = steps + padding
    real = torch.zeros(2, 3, total)
    real[..., :steps] = 1
    made = [torch.randn(2, 3, steps, n, generator=rng) for n in (2, 2, 1)]
    x, a, r = (torch.cat([t, torch.full((2, 3, padding, t.shape[-1]), 7.0)], 2) for t in made)
    flag = torch.zeros(2, 3, dtype=torch.bool)
    return Episodes(x, a, r[..., 0], 0 * a, 0 * a, real, torch.randn(2, 3, 2, generator=rng), *[flag] * 4, {})


def test_padding_changes_no_advantage() -> None:
    short, long = (estimate_advantages(episodes(6, padding), ReturnsConfig(gae_lambda=0.9)) for padding in (0, 4))
    torch.testing.assert_close(long.advantages[..., :6], short.advantages)
    assert (long.advantages[..., 6:] == 0).all()


def test_settings_are_checked() -> None:
    with pytest.raises(QuickstudyError, match=r"discount must be between 0 and 1; got 1\.5\."):
        ReturnsConfig(discount=1.5)
