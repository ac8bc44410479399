"""Demonstrations, batches and the sets that meta-batches are drawn from."""

import errno

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.data import DemonstrationSet, collate
from quickstudy.demonstration import Demonstration
from quickstudy.errors import QuickstudyError
from quickstudy.families.classic import PointNavigation


def demonstration(steps: int, obs: int = 2, act: int = 1, seed: int = 0) -> Demonstration:
    rng = np.random.default_rng(seed)
    return Demonstration(rng.normal(size=(steps, obs)), rng.normal(size=(steps, act)))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=2), min_size=1, max_size=4))
def test_collating_keeps_every_step_and_masks_the_rest(lengths):
    shots = [[demonstration(n, seed=10 * i + j) for j, n in enumerate(row)] for i, row in enumerate(lengths)]
    batch = collate(shots, np.zeros((len(lengths), 3)))
    assert batch.x.shape == (len(lengths), 2, max(map(max, lengths)), 2)
    np.testing.assert_array_equal(batch.mask.sum(-1).numpy(), np.array(lengths))
    for i, row in enumerate(shots):
        for j, d in enumerate(row):
            np.testing.assert_array_equal(batch.x[i, j, : len(d)].numpy(), d.observations)
            np.testing.assert_array_equal(batch.y[i, j, : len(d)].numpy(), d.actions)
    assert (batch.x[batch.mask == 0] == 0).all()


@pytest.mark.parametrize(
    ("observations", "actions", "sentence"),
    [
        (np.zeros((0, 2)), np.zeros((0, 1)), "at least one step"),
        (np.zeros((3, 2)), np.zeros((2, 1)), "3 observations and 2 actions"),
        (np.zeros(3), np.zeros((3, 1)), "[step, width]"),
        (np.array([["a"]]), np.zeros((1, 1)), "must be numbers"),
        (np.array([[0.0, 1.0], [2.0, np.nan]]), np.zeros((2, 1)), "step 1, column 1 is nan"),
        (np.zeros((1, 1)), np.array([[np.inf]]), "step 0, column 0 is inf"),
    ],
)
def test_a_bad_demonstration_is_refused_with_one_sentence(observations, actions, sentence):
    with pytest.raises(QuickstudyError) as error:
        Demonstration(observations, actions)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_demonstration_survives_its_file(tmp_path):
    saved = demonstration(5)
    saved.save(tmp_path / "new" / "it.npz")
    loaded = Demonstration.load(tmp_path / "new" / "it.npz")
    np.testing.assert_array_equal(loaded.observations, saved.observations)
    np.testing.assert_array_equal(loaded.actions, saved.actions)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["it.npz"]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "it.npz"
    demonstration(5).save(path)
    before = path.read_bytes()

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(QuickstudyError, match="the disk is full"):
        demonstration(6).save(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_that_is_no_demonstration_is_named(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "nan.npz", observations=np.full((2, 2), np.nan), actions=np.zeros((2, 1)))
    np.savez(tmp_path / "objects.npz", observations=np.array([None, 1]), actions=np.zeros((2, 1)))
    whole = tmp_path / "whole.npz"
    demonstration(50).save(whole)
    (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:-100])
    cases = {
        "missing": "There is no file",
        "text": "not a readable .npz",
        "other": "lacks the array 'observations'; it needs observations, actions, and holds a",
        "nan": "step 0, column 0 is nan",
        "objects": "not a readable .npz",
        "cut": "not a readable .npz",
    }
    for name, sentence in cases.items():
        with pytest.raises(QuickstudyError, match=sentence) as error:
            Demonstration.load(tmp_path / f"{name}.npz")
        assert f"{name}.npz" in str(error.value)


def test_unequal_demonstrations_are_refused():
    with pytest.raises(QuickstudyError, match=r"equal widths; got .*\[\(2, 1\), \(3, 1\)\]"):
        collate([[demonstration(4), demonstration(4, obs=3)]], np.zeros((1, 0)))
    with pytest.raises(QuickstudyError, match="same number of demonstrations"):
        collate([[demonstration(4)], []], np.zeros((2, 0)))
    with pytest.raises(QuickstudyError, match="got no task"):
        collate([], np.zeros((0, 0)))


@pytest.fixture(scope="module")
def recorded() -> DemonstrationSet:
    family = PointNavigation()
    return DemonstrationSet.record(family, family.tasks("train", 12), 5, seed=0)


@settings(max_examples=30, deadline=None)
@given(tasks=st.integers(1, 12), shots=st.integers(1, 3), queries=st.integers(1, 2), seed=st.integers(0, 2**31))
def test_support_and_query_share_no_demonstration(recorded, tasks, shots, queries, seed):
    support, query = recorded.sample(torch.Generator().manual_seed(seed), tasks, shots, queries)
    assert support.x.shape[:2] == (tasks, shots)
    assert query.x.shape[:2] == (tasks, queries)
    starts = torch.cat([support.x[:, :, 0], query.x[:, :, 0]], 1)
    for row in starts:
        assert len({tuple(start.tolist()) for start in row}) == shots + queries
    assert len(set(recorded.names())) == tasks


def test_the_same_generator_draws_the_same_meta_batch(recorded):
    one, other = (recorded.sample(torch.Generator().manual_seed(7), 4, 1, 2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip([*one[0], *one[1]], [*other[0], *other[1]], strict=True))


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ((4, 0, 1), "0 support and 1 query"),
        ((4, 4, 2), "fewest has 5"),
        ((13, 1, 1), "meta-batch of 13 tasks; 12 were recorded"),
    ],
)
def test_asking_for_more_than_was_recorded(recorded, numbers, sentence):
    with pytest.raises(QuickstudyError, match=sentence):
        recorded.sample(torch.Generator(), *numbers)
