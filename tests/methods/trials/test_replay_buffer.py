"""What the buffer of each task keeps, and what of it a context may hold."""

import pytest
import torch

from quickstudy.methods.trials.replay_buffer import ReplayBuffer, Transitions


def episode(trials: int, steps: int, number: float, padding: int = 0) -> Transitions:
    """Of two tasks; an observation is [task, trial, number of the episode, step]."""
    index = torch.meshgrid(torch.arange(2), torch.arange(trials), torch.arange(steps), indexing="ij")
    x = torch.stack([index[0], index[1], torch.full_like(index[0], int(number)), index[2]], -1).float()
    mask = (index[2] < steps - padding).float()[..., None]
    one = torch.ones_like(mask)
    return Transitions(x, one, one, x, 0 * one, mask)


def filled(tasks: int = 5, steps: int = 100) -> ReplayBuffer:
    buffer = ReplayBuffer(tasks, steps)
    buffer.add(["a", "b"], [episode(3, 4, 0, padding=1), episode(3, 5, 1)])
    return buffer


def test_all_that_is_real_is_drawn_and_nothing_else() -> None:
    drawn = filled().draw([0, 1, 0], 2000, torch.Generator().manual_seed(0))
    assert drawn.observations.shape == (3, 2000, 4)
    assert drawn.observations[..., 0].unique(dim=1).flatten().tolist() == [0.0, 1.0, 0.0]
    assert len(drawn.observations[0].unique(dim=0)) == 3 * (3 + 5)
    assert drawn.mask.min() == 1


def test_a_context_is_the_first_episodes_of_one_trial() -> None:
    buffer, rng = filled(), torch.Generator().manual_seed(0)
    buffer.add(["a", "b"], [episode(3, 4, 0, padding=1), episode(3, 5, 1)])  # other trials of the same tasks
    kept = buffer._at([0])[0]
    assert kept.trial.unique().tolist() == [0, 1, 2, 3, 4, 5]
    seen = set()
    for _ in range(60):
        x = buffer.draw_context([0], 50, rng).observations[0]
        assert len(x[:, 1].unique()) == 1  # one trial
        seen.add(tuple(x[:, 2].unique().tolist()))
    assert seen == {(0.0,), (0.0, 1.0)}


def test_the_oldest_go() -> None:
    buffer = filled(tasks=2, steps=5)
    assert len(buffer) == 2
    assert buffer._at([0])[0].steps.observations[:, 1:3].unique(dim=0).tolist() == [[2.0, 1.0]]
    buffer.add(["c", "a"], [episode(1, 3, 7)])
    assert len(buffer) == 2  # b is gone
    assert buffer._at([1])[0].steps.observations[:, 2].tolist() == [1.0, 1.0, 7.0, 7.0, 7.0]


def test_its_state_restores_it() -> None:
    buffer, other = filled(), ReplayBuffer(5, 100)
    other.restore(buffer.state())
    drawn = [r.draw_context([1, 0], 8, torch.Generator().manual_seed(3)).observations for r in (buffer, other)]
    torch.testing.assert_close(*drawn)
    for r in (buffer, other):
        r.add(["a", "b"], [episode(1, 2, 3)])
    assert other._at([0])[0].trial.tolist() == buffer._at([0])[0].trial.tolist()


def test_an_empty_buffer_gives_nothing() -> None:
    with pytest.raises(IndexError):
        ReplayBuffer(1, 1).draw([0], 1, torch.Generator())
