"""Few-shot recognition: what may meet what, by properties over made-up classes whose examples say what they are."""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy import Experiment, datasets, families
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import evaluate
from quickstudy.families.recognition.family import Recognition, jittered
from quickstudy.families.recognition.omniglot import VALIDATION_ALPHABETS, Omniglot
from quickstudy.learner import BaseLearner
from quickstudy.results import runs

SPLITS = ("train", "validation", "test")


def family_of(lengths: dict[str, list[int]], ways: int, queries: int, domains: bool = False) -> Recognition:
    """Classes with so many examples each; an example is [its class, its number], classes counted over all splits."""
    examples, classes, count = [], {}, 0
    for split, many in lengths.items():
        classes[split] = []
        for length in many:
            start = sum(map(len, examples))
            examples.append(np.array([[count, i] for i in range(length)], "f4"))
            classes[split].append(np.arange(start, start + length))
            count += 1
    numbers = {split: np.arange(len(many)) % 2 for split, many in lengths.items()}
    return Recognition(
        "made-up", np.concatenate(examples), classes, ways, queries, domains=numbers if domains else None
    )


@st.composite
def some_families(draw) -> Recognition:
    ways, queries, domains = draw(st.integers(2, 5)), draw(st.integers(1, 4)), draw(st.booleans())
    classes = st.lists(st.integers(queries + 3, queries + 9), min_size=2 * ways, max_size=2 * ways + 4)
    return family_of({split: draw(classes) for split in SPLITS}, ways, queries, domains)


def pairs(x) -> set[tuple[float, float]]:
    return {tuple(row) for row in np.asarray(x).reshape(-1, 2).tolist()}


def perfect(family: Recognition, tasks, seed: int):
    """Recognises by the class that an example says it is of."""
    (shots,) = zip(*family.demonstrate(tasks, 1, seed), strict=True)
    prototypes = np.stack([d.observations[d.actions.argmax(1).argsort(), 0] for d in shots])  # [task, way]
    return lambda x: -np.abs(x[..., :1] - prototypes[:, None])


@settings(max_examples=40, deadline=None)
@given(some_families(), st.integers(0, 2**32), st.integers(1, 6))
def test_a_meta_batch_holds_what_it_says(family, seed, tasks):
    shots, queries = 1, 2
    source = family.fresh()
    support, query = source.sample(torch.Generator().manual_seed(seed), tasks, shots, queries)
    assert support.x.shape == (tasks, shots, family.ways, 2)
    assert query.y.shape == (tasks, queries, family.ways, family.ways)
    assert support.mask.shape == support.x.shape[:-1]
    assert len(source.names()) == tasks
    training = {float(i) for i in range(len(family.classes["train"]))}
    for t in range(tasks):
        x, y = torch.cat([support.x[t], query.x[t]]), torch.cat([support.y[t], query.y[t]])
        assert len(pairs(x)) == x[..., 0].numel()  # no example twice: no query was shown
        labels = y.argmax(-1)
        assert (y.sum(-1) == 1).all()
        assert (labels.sort(-1).values == torch.arange(family.ways)).all()  # a shot is one look at every class
        classes = x[..., 0].gather(-1, labels.argsort(-1))
        assert (classes == classes[0]).all()  # a label means one class throughout a task
        assert len(set(classes[0].tolist())) == family.ways
        assert set(classes[0].tolist()) <= training
        drawn = family._among["train"]
        assert any(set(classes[0].tolist()) <= set(some.tolist()) for some in drawn)


@settings(max_examples=30, deadline=None)
@given(some_families(), st.integers(0, 99), st.integers(0, 99), st.sampled_from(SPLITS))
def test_a_query_is_never_shown_whatever_the_seeds(family, one, other, split):
    tasks, seen = family.tasks(split, 4), []

    def policy(x):
        seen.append(x)
        return np.zeros((*x.shape[:2], family.ways))

    family.run(tasks, family.ways * family.queries, policy, one)
    for shots, queries in zip(family.demonstrate(tasks, 2, other), seen[0], strict=True):
        shown = pairs(np.concatenate([d.observations for d in shots]))
        assert len(shown) == 2 * family.ways
        assert len(pairs(queries)) == family.ways * family.queries
        assert not shown & pairs(queries)


@settings(max_examples=30, deadline=None)
@given(some_families(), st.integers(0, 99))
def test_splits_share_no_class(family, seed):
    seen = []
    for split in SPLITS:
        shots = family.demonstrate(family.tasks(split, 20), 1, seed)
        seen.append({float(c) for row in shots for d in row for c in d.observations[:, 0]})
    assert not seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2]


@settings(max_examples=30, deadline=None)
@given(some_families(), st.integers(0, 99))
def test_labels_of_queries_are_those_of_the_demonstrations(family, seed):
    tasks = family.tasks("test", 5)
    accuracy = family.run(tasks, family.ways * family.queries, perfect(family, tasks, seed), seed)["accuracy"]
    assert accuracy.shape == (5, family.ways * family.queries)
    assert (accuracy == 1).all()


def test_every_answer_alike_is_chance_however_few_queries():
    """The first queries of a task are of classes drawn anew for each: no label is favoured."""
    family = family_of({split: [20] * 12 for split in SPLITS}, 5, 4)
    always = np.eye(5)[3]
    full = family.run(family.tasks("test", 6), 20, lambda x: np.broadcast_to(always, (*x.shape[:2], 5)), 0)
    np.testing.assert_allclose(full["accuracy"].mean(1), 0.2)
    tasks = family.tasks("test", 2000)
    first = family.run(tasks, 1, lambda x: np.broadcast_to(always, (*x.shape[:2], 5)), 0)
    assert first["accuracy"].mean() == pytest.approx(0.2, abs=0.03)


def test_shots_come_in_an_order_that_says_nothing():
    family = family_of({split: [20] * 8 for split in SPLITS}, 4, 2)
    support, _ = family.fresh().sample(torch.Generator().manual_seed(0), 4000, 1, 1)
    counts = support.y[:, 0].sum(0)  # [place, label]
    assert (counts / 4000 - 0.25).abs().max() < 0.03
    orders = [d.actions.argmax(1) for row in family.demonstrate(family.tasks("test", 500), 2, 0) for d in row]
    assert np.abs(np.eye(4)[np.array(orders)].mean(0) - 0.25).max() < 0.06


def test_all_training_classes_and_examples_are_drawn_equally():
    family = family_of({"train": [5, 9, 7, 5], "validation": [5] * 2, "test": [5] * 2}, 2, 1)
    support, _ = family.fresh().sample(torch.Generator().manual_seed(0), 12_000, 1, 1)
    classes, numbers = support.x.reshape(-1, 2).unbind(-1)
    for c, length in enumerate((5, 9, 7, 5)):
        there = numbers[classes == c].long()
        assert len(there) / 24_000 == pytest.approx(0.25, abs=0.02)
        assert (torch.bincount(there, minlength=length) / len(there) - 1 / length).abs().max() < 0.02


def test_the_same_call_gives_the_same_and_a_task_does_not_depend_on_its_neighbours():
    family = family_of({split: [20] * 12 for split in SPLITS}, 5, 4)
    one, other = (family.fresh().sample(torch.Generator().manual_seed(3), 4, 1, 2) for _ in range(2))
    for a, b in zip([*one.support, *one.query], [*other.support, *other.query], strict=True):
        assert torch.equal(a, b)
    alone = family.demonstrate(family.tasks("test", 1, first=3), 1, 0)[0][0]
    among = family.demonstrate(family.tasks("test", 6), 1, 0)[3][0]
    np.testing.assert_array_equal(alone.observations, among.observations)


@pytest.mark.parametrize(
    ("lengths", "ways", "queries", "domains", "sentence"),
    [
        ([9] * 4, 1, 2, False, "at least 2 classes; got ways=1"),
        ([9] * 4, 2, 0, False, "at least 1 query"),
        ([9] * 4, 5, 2, False, "Split 'train' of 'made-up' has 4 classes; 5 ways need 5."),
        ([9] * 5, 4, 2, True, "has 3 classes in its largest domain; 4 ways need 4."),
        ([9, 9, 4, 9], 2, 4, False, "Class '2' of 'made-up' has 4 examples; 4 queries and at least one shot need 5."),
    ],
)
def test_too_little_of_something(lengths, ways, queries, domains, sentence):
    with pytest.raises(QuickstudyError) as error:
        family_of(dict.fromkeys(SPLITS, lengths), ways, queries, domains)
    assert sentence in str(error.value)


def test_asking_for_more_than_there_is():
    family = family_of({split: [9] * 4 for split in SPLITS}, 3, 4)
    with pytest.raises(QuickstudyError, match="Asked for 6 shots of 'made-up/test/0'; a class has 5 besides its 4"):
        family.demonstrate(family.tasks("test", 1), 6, 0)
    with pytest.raises(QuickstudyError, match="Asked for 13 queries of a task; 4 of each of 3 classes"):
        family.run(family.tasks("test", 1), 13, lambda x: x, 0)
    with pytest.raises(QuickstudyError, match="Asked for 7 support and 3 query examples of each class"):
        family.fresh().sample(torch.Generator(), 2, 7, 3)
    with pytest.raises(QuickstudyError, match="Only images can be jittered"):
        Recognition("flat", np.zeros((20, 4)), {"train": [np.arange(10), np.arange(10, 20)]}, 2, 1, jitter=True)


# What is seen of an example


def arrays(classes: int = 25, each: int = 8, width: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = 5.0 + 3.0 * rng.normal(size=(classes, 1, width)) + 0.1 * rng.normal(size=(classes, each, width))
    return x.reshape(-1, width), np.repeat(np.arange(classes), each)


def test_features_are_standardised_by_the_training_classes_alone():
    x, y = arrays()
    x[:, 2] = 7.0  # constant: only centred
    family = families.from_arrays(x, y)
    base = BaseLearner(torch.nn.Identity(), 3)
    base.standardise(family.fresh().batch)
    training = np.concatenate(family.classes["train"])
    np.testing.assert_allclose(base.mean, x[training].mean(0), rtol=0.1)
    np.testing.assert_allclose(base.deviation[:2], x[training, :2].std(0), rtol=0.1)
    assert base.deviation[2] == 1.0
    np.testing.assert_array_equal(family.encode(x), family.read(np.arange(len(x))))


def test_pixels_share_one_mean_and_one_deviation():
    x = np.random.default_rng(0).integers(0, 256, (250, 4, 6), "u1")
    x[:, 0, 0] = 0  # a pixel that is never inked must not become infinitely telling
    base = BaseLearner(torch.nn.Identity(), 24, whole=True)
    base.standardise(families.from_arrays(x, np.repeat(np.arange(25), 10)).fresh().batch)
    assert base.mean.unique().numel() == base.deviation.unique().numel() == 1
    assert base.deviation[0] == pytest.approx(x.std() / 255, rel=0.05)


def test_images_are_scaled():
    x = np.random.default_rng(0).integers(0, 256, (250, 4, 6), "u1")
    family = families.from_arrays(x, np.repeat(np.arange(25), 10))
    assert family.image == (4, 6)
    assert family.observation_size == 24
    np.testing.assert_allclose(family.encode(x), x.reshape(250, 24) / 255, rtol=1e-6)
    np.testing.assert_array_equal(family.encode(x), family.read(np.arange(250)))
    flat = families.from_arrays(x.reshape(250, 24) / 255, np.repeat(np.arange(25), 10), image=(4, 6))
    np.testing.assert_allclose(flat.read(np.arange(250)), family.encode(x), rtol=1e-6)
    assert family.snapshot(family.tasks("test", 1)[0]).shape == (16, 60, 3)


def test_what_a_family_cannot_encode():
    family = families.from_arrays(*arrays())
    with pytest.raises(QuickstudyError, match=r"has the shape \(3,\); got \(4,\)"):
        family.encode(np.zeros((2, 4)))
    with pytest.raises(QuickstudyError, match="got none"):
        family.encode(np.zeros((0, 3)))


# A user's own arrays


@pytest.mark.parametrize("kind", [list, str, object, np.int16])
def test_labels_of_any_kind_split_by_class(kind):
    x, y = arrays()
    names = np.array([f"class {c}" for c in y])
    y = {list: y.tolist(), str: names, object: names.astype(object), np.int16: y.astype(np.int16)}[kind]
    family = families.from_arrays(x, y)
    rows = [{int(row) for some in family.classes[split] for row in some} for split in SPLITS]
    assert [len(family.classes[split]) for split in SPLITS] == [15, 5, 5]
    assert sorted(set.union(*rows)) == list(range(len(x)))
    for split in SPLITS:
        for title, some in zip(family.titles[split], family.classes[split], strict=True):
            assert {str(np.asarray(y)[row]) for row in some} == {title}
    assert family.caption(family.tasks("test", 1)[0]).count(", ") == 4


def test_few_classes_may_go_without_validation():
    family = families.from_arrays(*arrays(10), ways=3, splits=(0.7, 0, 0.3))
    assert {split: len(rows) for split, rows in family.classes.items()} == {"train": 7, "test": 3}
    with pytest.raises(QuickstudyError, match="Known: test, train"):
        family.tasks("validation", 1)


def test_another_seed_splits_otherwise():
    one, other = (families.from_arrays(*arrays(), seed=seed).titles["test"] for seed in range(2))
    assert set(one) != set(other)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"y": np.zeros(3, int)}, "equally long; got 200 examples and 3 labels"),
        ({"y": np.zeros(200)}, "y must be one integer or string for each example; got shape (200,) of float64"),
        ({"y": np.eye(200, dtype=int)}, "got shape (200, 200) of int64"),
        ({"y": np.array([None] * 200)}, "got shape (200,) of object"),
        ({"x": np.array([["a"]] * 200)}, "x must be numbers"),
        ({"x": np.zeros(200)}, "x must be numbers [example, ...]; got shape (200,)"),
        ({"x": np.where(np.arange(600) == 7, np.nan, 0.0).reshape(200, 3)}, "x must be finite; number 2 holds nan"),
        ({"x": np.zeros((0, 3)), "y": np.zeros(0, int)}, "at least one; got none"),
        ({"x": np.zeros((200, 4, 4, 3))}, "got shape (200, 4, 4, 3)"),
        ({"image": (2, 2)}, "got shape (200, 3) for images of 2 x 2"),
        ({"splits": (0.5, 0.2, 0.2)}, "sum to 1; got (0.5, 0.2, 0.2)"),
        ({"splits": (0.8, 0.2)}, "three shares"),
        ({"splits": (0.8, 0.2, 0.0)}, "sum to 1; got (0.8, 0.2, 0.0)"),
        ({"splits": (1.2, -0.4, 0.2)}, "sum to 1; got (1.2, -0.4, 0.2)"),
        ({"splits": (0.7, 0.1, 0.2)}, "Of 25 classes the split 'validation' gets 2; 5 ways need at least 5"),
        ({"ways": 6}, "Of 25 classes the split 'validation' gets 5; 6 ways need at least 6"),
        ({"ways": 1}, "at least 2 classes; got ways=1"),
        ({"queries": 8}, "has 8 examples; 8 queries and at least one shot need 9"),
        ({"y": np.array(["rare"] * 2 + [f"c{i % 24:02}" for i in range(198)])}, "Class 'rare' of 'arrays' has 2 exam"),
    ],
)
def test_bad_arrays_get_one_sentence(change, sentence):
    x, y = arrays()
    with pytest.raises(QuickstudyError) as error:
        families.from_arrays(**{"x": x, "y": y, **change})
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_is_a_family(tmp_path):
    x, y = arrays()
    path = tmp_path / "My Data_2.npz"
    np.savez(path, x=x, y=y)
    family = families.get(str(path))
    assert (family.name, family.ways) == ("my-data-2", 5)
    np.savez(path, x=x, y=y, ways=3)
    assert families.get(str(path)).ways == 3
    for wrong, sentence in (({"x": x}, "lacks the array 'y'"), ({"x": x, "y": y, "ways": 2.5}, "one whole number")):
        np.savez(path, **wrong)
        with pytest.raises(QuickstudyError, match=sentence):
            families.get(str(path))
    np.savez(path, x=x, y=y[:-1])
    with pytest.raises(QuickstudyError, match=r"My Data_2\.npz': x and y must be equally long"):
        families.get(str(path))
    with pytest.raises(QuickstudyError, match="There is no file"):
        families.get(str(tmp_path / "none.npz"))


def test_a_file_is_trained_on_and_its_run_is_evaluated(tmp_path):
    x, y = arrays()
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    changes = {
        "training": {"steps": 60, "meta_batch": 8, "validate_every": 60, "batching": "vmap"},
        "data": {"validation_tasks": 5, "validation_episodes": 5},
    }
    Experiment.of(str(tmp_path / "mine.npz"), changes=changes).train(tmp_path / "run")
    ((row,),) = (cell.rows for cell in runs.evaluate_run(tmp_path / "run", None, [1], 20, 5, 0, "best", "test"))
    assert row.value > 0.8
    assert (tmp_path / "run/results/mine-test.json").exists()


def test_learning_which_components_tell_classes_apart():
    """Two of eight components do, and the others are loud: neighbours by all of them do badly."""
    rng = np.random.default_rng(0)
    told, noise = rng.normal(size=(60, 1, 2)) + 0.1 * rng.normal(size=(60, 20, 2)), rng.normal(size=(60, 20, 6))
    x, y = np.concatenate([told, noise], -1).reshape(-1, 8), np.repeat(np.arange(60), 20)
    family = families.from_arrays(x, y)
    changes = {
        "network": {"hidden": (32,), "context": 0, "embedding": 8},
        "training": {"steps": 300, "meta_batch": 8, "rate": 3e-3, "validate_every": 300, "batching": "vmap"},
        "data": {"validation_tasks": 1, "validation_episodes": 1},
    }
    learner = Experiment.of(family, "prototypical", changes=changes).train()
    nearest = Experiment.of(family, "nearest").build()
    accuracy = [
        evaluate(one, family, "test", shots=[1], tasks=100, episodes=25).metrics["accuracy"].mean()
        for one in (learner, nearest)
    ]
    assert accuracy[0] > 0.75
    assert accuracy[1] < accuracy[0] - 0.15

    classes = family.classes["test"][:5]  # as a user would, with raw examples
    skill = learner.adapt(family.support(x[np.concatenate([rows[:3] for rows in classes])], np.repeat(np.arange(5), 3)))
    answers = learner.predict(skill, torch.from_numpy(family.encode(x[[rows[5] for rows in classes]]))).argmax(-1)
    assert (answers == torch.arange(5)).sum() >= 4


# A user's own support


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(1, 4), st.randoms(use_true_random=False))
def test_a_support_holds_each_example_once_with_its_label(ways, each, random):
    labels = [way for way in range(ways) for _ in range(each)]
    random.shuffle(labels)
    x = np.array([[label, i] for i, label in enumerate(labels)], "f8")
    support = family_of({split: [3] * ways for split in SPLITS}, ways, 1).support(x, labels)
    assert support.x.shape == (each, ways, 2)
    assert support.x.dtype == torch.float32
    assert pairs(support.x) == pairs(x)
    assert torch.equal(support.y.argmax(-1).float(), support.x[..., 0])
    assert (support.y.sum(-1) == 1).all()
    assert support.mask.shape == (each, ways)
    assert (support.mask == 1).all()


@pytest.mark.parametrize(
    ("x", "labels", "sentence"),
    [
        (np.zeros((5, 2)), [0, 1, 2, 0, 1], "class 0 has 2, class 2 has 1"),
        (np.zeros((2, 2)), [0, 1], "class 0 has 1, class 2 has 0"),
        (np.zeros((3, 2)), [1, 2, 3], "The labels of a 3-way support are 0 to 2; got 1 to 3"),
        (np.zeros((3, 2)), [-1, 0, 1], "got -1 to 1"),
        (np.zeros((3, 2)), [1, 1, 1], "class 1 has 3, class 0 has 0"),
        (np.zeros((0, 2)), [], "got none"),
        (np.zeros((3, 2)), [0, 1], "each of its 3 examples; got shape (2,)"),
        (np.zeros((3, 2)), [0.0, 1.0, 2.0], "one whole number as label"),
        (np.zeros((3, 2)), ["a", "b", "c"], "one whole number as label"),
        (np.full((3, 2), np.inf), [0, 1, 2], "must be finite; number 0 holds inf"),
    ],
)
def test_a_support_that_is_none_gets_one_sentence(x, labels, sentence):
    with pytest.raises(QuickstudyError) as error:
        family_of({split: [3] * 3 for split in SPLITS}, 3, 1).support(x, labels)
    assert sentence in str(error.value)


# Jitter


def test_only_training_images_are_jittered_and_only_if_asked():
    x = np.random.default_rng(0).integers(0, 256, (250, 5, 5), "u1")
    classes = {"train": list(np.arange(250).reshape(25, 10)), "test": list(np.arange(250).reshape(25, 10))}
    plain, moved = (Recognition("tiles", x, classes, 5, 2, (5, 5), jitter=jitter) for jitter in (False, True))
    tasks = plain.tasks("test", 3)
    for a, b in zip(plain.demonstrate(tasks, 1, 0), moved.demonstrate(tasks, 1, 0), strict=True):
        np.testing.assert_array_equal(a[0].observations, b[0].observations)
    seen = {row.tobytes() for row in plain.read(np.arange(250))}
    one, other, again = (f.fresh().sample(torch.Generator().manual_seed(0), 3, 1, 1) for f in (plain, moved, moved))
    assert {row.tobytes() for row in one.support.x.reshape(-1, 25).numpy()} <= seen
    assert not {row.tobytes() for row in other.support.x.reshape(-1, 25).numpy()} & seen
    assert torch.equal(other.query.x, again.query.x)
    assert torch.equal(one.support.y, other.support.y)


def jittered_by(monkeypatch, image: torch.Tensor, **drawn: float) -> torch.Tensor:
    """One square image, jittered by these numbers from -1 to 1, the others zero."""
    names = ("turn", "shear", "wide", "high", "right", "down")
    uniform = torch.tensor([[(drawn.get(name, 0.0) + 1) / 2] for name in names])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: uniform)
    side = image.shape[-1]
    return jittered(image.reshape(1, -1), (side, side), torch.Generator()).reshape(side, side)


def centre(image: torch.Tensor) -> tuple[float, float]:
    """Of mass: (x, y) from the middle of the image."""
    place = torch.arange(len(image)) - (len(image) - 1) / 2
    return float((image.sum(0) * place).sum() / image.sum()), float((image.sum(1) * place).sum() / image.sum())


def test_jitter_by_hand(monkeypatch):
    """A dot at (16, 0) of a 41 x 41 image moves as dots do; the grid says where from, so everything is inverted."""
    dot = torch.zeros(41, 41)
    dot[19:22, 35:38] = 1.0
    move = functools.partial(jittered_by, monkeypatch, dot)
    torch.testing.assert_close(move(), dot, atol=1e-4, rtol=0)
    assert centre(move(right=1.0)) == pytest.approx((16 - 0.08 * 41, 0), abs=0.05)
    assert centre(move(down=-1.0)) == pytest.approx((16, 0.08 * 41), abs=0.05)
    angle = math.radians(6)
    assert centre(move(turn=1.0)) == pytest.approx((16 * math.cos(angle), -16 * math.sin(angle)), abs=0.05)
    assert centre(move(wide=1.0))[0] == pytest.approx(16 / 1.08, abs=0.08)
    assert centre(move(high=-1.0))[0] == pytest.approx(16, abs=0.05)
    upright = dot.T.contiguous()
    assert centre(jittered_by(monkeypatch, upright, shear=1.0)) == pytest.approx((-0.1 * 16, 16), abs=0.05)


# Omniglot


@pytest.fixture(scope="module")
def like_omniglot(tmp_path_factory):
    """A file of Omniglot's shape whose drawings tell their character: its number in two pixels of a corner."""
    rng = np.random.default_rng(0)
    names = [*VALIDATION_ALPHABETS, *(f"Alphabet_{i}" for i in range(45))]
    sizes = np.full(50, 32)
    sizes[:5] = (41, 46, 22, 22, 41)  # 172 characters
    sizes[-1] += 1623 - sizes.sum()
    order = np.array([*rng.permutation(30), *range(30, 50)])
    alphabet = np.repeat(np.arange(50), sizes[order])
    images = np.zeros((1623, 16, 28, 28), "u1")
    images[:, :, 0, 0], images[:, :, 0, 1] = (np.arange(1623)[:, None] // 256, np.arange(1623)[:, None] % 256)
    path = tmp_path_factory.mktemp("data") / "omniglot28.npz"
    character = np.concatenate([np.arange(1, n + 1) for n in sizes[order]])
    names = np.array(names)[order]
    np.savez(
        path, images=images, alphabet=alphabet, alphabet_names=names, character=character, evaluation=alphabet >= 30
    )
    return path


def characters_of(family: Recognition, split: str) -> tuple[set[int], np.ndarray]:
    """The characters of a split, whichever way they are turned, and how many classes it has."""
    first = family.read(np.array([rows[0] for rows in family.classes[split]])).reshape(-1, 28, 28)
    turned = [np.rot90(first, -turn, (1, 2))[:, 0, :2] for turn in range(4)]
    codes = np.rint(255 * np.stack(turned)).astype(int) @ np.array([256, 1])
    return set(codes.max(0).tolist()), len(first)


@pytest.mark.parametrize(
    ("protocol", "counts", "turns"),
    [("vinyals", None, 4), ("random", (1100, 100, 423), 4), ("within-alphabet", None, 1)],
)
def test_splits_of_omniglot_share_no_character_in_any_rotation(like_omniglot, protocol, counts, turns):
    family = Omniglot(5, protocol, like_omniglot)
    found = {split: characters_of(family, split) for split in SPLITS}
    for split, (characters, classes) in found.items():
        assert classes == turns * len(characters), split
    train, validation, test = (found[split][0] for split in SPLITS)
    assert not train & validation | train & test | validation & test
    if counts:
        assert tuple(len(found[split][0]) for split in SPLITS) == counts
    data = datasets.load_omniglot(like_omniglot)
    if protocol == "vinyals":
        assert test == set(range(1200, 1623))
        assert train | validation == set(range(1200))
    if protocol == "within-alphabet":
        assert test == set(np.flatnonzero(data.evaluation).tolist())
        for task in family.tasks("test", 50):
            titles = {family.titles["test"][c].rsplit(" ", 1)[0] for c in task.parameters["classes"]}
            assert len(titles) == 1
    assert family.name == {"vinyals": "omniglot-5way"}.get(protocol, f"omniglot-{protocol}-5way")
    assert family.protocol.startswith("5 classes")


def test_titles_say_the_character_and_how_it_is_turned(like_omniglot):
    family = Omniglot(5, "vinyals", like_omniglot)
    assert len(set(family.titles["train"])) == len(family.classes["train"])
    data = datasets.load_omniglot(like_omniglot)
    for turn in range(4):
        place = turn * 423
        image = family.read(family.classes["test"][place][:1]).reshape(28, 28)
        upright = np.rot90(image, -turn)
        assert np.rint(255 * upright[0, :2]) @ [256, 1] == 1200
        name = f"{data.alphabet_names[data.alphabet[1200]]} {data.character[1200]}"
        assert family.titles["test"][place] == name + (f" turned {90 * turn}°" if turn else "")


def test_an_unknown_protocol(like_omniglot):
    with pytest.raises(QuickstudyError, match="Did you mean 'vinyals'"):
        Omniglot(5, "vinyal", like_omniglot)


fetched = pytest.mark.skipif(
    not datasets.omniglot._omniglot().exists(), reason="'quickstudy data omniglot' was not run"
)


@fetched
def test_the_vinyals_split_has_the_published_sizes():
    family = families.get("omniglot-20way")
    assert {split: len(rows) for split, rows in family.classes.items()} == {
        "train": 4 * 1028,
        "validation": 4 * 172,
        "test": 4 * 423,
    }
    assert family.ways == 20


@fetched
def test_within_alphabet_tasks_are_of_the_twenty_evaluation_alphabets():
    family = families.get("omniglot-within-alphabet-20way")
    titles = [family.titles["test"][c] for task in family.tasks("test", 300) for c in task.parameters["classes"]]
    assert len({title.rsplit(" ", 1)[0] for title in titles}) == 20


@fetched
def test_one_shot_recognition_of_unseen_characters_is_learned():
    family = families.get("omniglot-5way")
    changes = {
        "network": {"channels": (16, 16, 16, 16), "embedding": 64, "bfloat16": False},
        "training": {"steps": 100, "meta_batch": 4, "rate": 3e-3, "validate_every": 100},
        "data": {"validation_tasks": 5, "validation_episodes": 5},
    }
    learner, nearest = Experiment.of(family, changes=changes).train(), Experiment.of(family, "nearest").build()
    accuracy = [
        evaluate(one, family, "test", shots=[1], tasks=60, episodes=15).metrics["accuracy"].mean()
        for one in (learner, nearest)
    ]
    assert accuracy[0] > 0.65
    assert accuracy[0] > accuracy[1] + 0.2


@pytest.mark.parametrize("kind", ["u1", "f4", "f8", "i8", "u2"])
def test_images_of_0_to_255_are_0_to_1_whatever_their_type(kind):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (90, 6, 6))
    y = np.repeat(np.arange(15), 6)
    family = families.from_arrays(x.astype(kind), y, ways=2, queries=2)
    np.testing.assert_allclose(family.encode(x.astype(kind)), x.reshape(90, 36) / 255, rtol=1e-6)
    np.testing.assert_allclose(family.read(np.arange(90)), x.reshape(90, 36) / 255, rtol=1e-6)
    np.testing.assert_allclose(family.encode((x[:1] // 60).astype(kind)), (x[:1] // 60).reshape(1, 36) / 255, rtol=1e-6)


def test_images_of_another_range_are_refused():
    y = np.repeat(np.arange(15), 6)
    for x in (np.full((90, 6, 6), 4000.0), np.full((90, 6, 6), -40.0)):
        with pytest.raises(QuickstudyError, match="must be of 0 to 255 or of about 0 to 1; these are of"):
            families.from_arrays(x, y, ways=2, queries=2)
    standardised = families.from_arrays(np.random.default_rng(0).normal(size=(90, 6, 6)), y, ways=2, queries=2)
    assert float(standardised.read(np.arange(90)).std()) == pytest.approx(1, abs=0.1)
