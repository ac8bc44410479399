"""Recorded motions: their files, their arithmetic by hand, and what the family keeps. No recording is needed."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from quickstudy import DemonstrationSet, Experiment, families
from quickstudy.data import Batch
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import evaluate
from quickstudy.families.classic import Sinusoid
from quickstudy.families.motions import recordings
from quickstudy.families.motions.family import Motions
from quickstudy.families.motions.recordings import Motion, from_arrays, load
from quickstudy.families.motions.training import through, transformed
from quickstudy.families.motions.trajectories import (
    OBSERVATION,
    SHARES,
    STEPS,
    Curves,
    actions,
    angles_between,
    at_phases,
    best_share,
    curves,
    dynamic_time_warping,
    errors,
    observe,
    phases,
    start_offset,
    time_normalised,
    turns,
    unit_quaternions,
    warped_phases,
)
from quickstudy.learner import imitation_loss
from quickstudy.methods.demonstrations.baselines import NearestNeighbour, recorded_base
from quickstudy.task import Task


def poses(rng: np.random.Generator, shape: float, steps: int = 80) -> np.ndarray:
    """A swing from somewhere near (2, 0, 0) to a fixed end, with a turning wrist."""
    phase = np.linspace(0.0, 1.0, steps)[:, None]
    start = np.array([2.0, 0.0, 0.0]) + 0.1 * rng.normal(size=3)
    end = np.array([5.0, 5.0, 5.0])
    place = start + phase * (end - start) + np.sin(np.pi * phase) * [0.0, shape, 0.3]
    turned = Rotation.from_rotvec(phase * [0.0, 0.0, 1.0 + shape]).as_quat(scalar_first=True)
    return np.concatenate([place, turned], 1)


def recorded(tasks: int = 6, demonstrations: int = 6, width: int = 7) -> list[Motion]:
    rng = np.random.default_rng(0)
    made = [[poses(rng, 0.5 + i)[:, :width] for _ in range(demonstrations)] for i in range(tasks)]
    return [Motion(f"swing {i}", some, 2.0) for i, some in enumerate(made)]


@pytest.fixture(scope="module")
def family() -> Motions:
    return Motions(motions=recorded())


# ---- arithmetic


def test_values_between_steps_are_linear():
    values = np.array([[0.0, 1.0], [2.0, 1.0], [2.0, 5.0]])
    np.testing.assert_allclose(
        at_phases(values, np.array([0.0, 0.25, 0.5, 0.75, 1.0])), [[0, 1], [1, 1], [2, 1], [2, 3], [2, 5]]
    )
    both = np.stack([values, 10 * values])
    np.testing.assert_allclose(at_phases(both, np.array([[0.25], [0.75]])), [[[1, 1]], [[20, 30]]])


def test_a_wrist_that_goes_on_turning_does_not_jump():
    angle = np.linspace(0.0, 3 * np.pi, 200)
    quaternions = Rotation.from_rotvec(angle[:, None] * [0.0, 0.0, 1.0]).as_quat(scalar_first=True)
    np.testing.assert_allclose(turns(quaternions[None])[0, :, 2], angle, atol=1e-9)


def test_orientations_are_seen_from_the_first_of_the_first_demonstration():
    first = Rotation.from_rotvec([0.3, -0.2, 0.5])
    further = Rotation.from_rotvec([0.0, 0.1, 0.0]) * first
    quaternions = np.stack([first.as_quat(scalar_first=True)] * 2 + [further.as_quat(scalar_first=True)] * 2)
    np.testing.assert_allclose(turns(quaternions.reshape(2, 2, 4))[1], [[0, 0.1, 0]] * 2, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-2.0, 2.0), min_size=6, max_size=6))
def test_angles_are_those_of_scipy(numbers):
    one, other = np.array(numbers[:3]), np.array(numbers[3:])
    expected = (Rotation.from_rotvec(one) * Rotation.from_rotvec(other).inv()).magnitude()
    assert angles_between(unit_quaternions(one), unit_quaternions(other)) == pytest.approx(expected, abs=1e-7)


def test_small_angles_are_told_apart():
    none, small = np.zeros(3), np.array([1e-9, 0.0, 0.0])
    assert angles_between(unit_quaternions(none), unit_quaternions(small)) == pytest.approx(1e-9, rel=1e-6)


def test_dynamic_time_warping_by_hand():
    def between(one, other):
        return np.abs(np.array(one)[:, None] - np.array(other))

    assert dynamic_time_warping(between([0.0, 1.0, 2.0], [0.0, 0.0, 1.0, 2.0])) == 0.0
    # Best path: (0,0) costs 1, (1,1) costs 0, (2,2) costs 2: 3 over 3 steps.
    assert dynamic_time_warping(between([1.0, 2.0, 6.0], [0.0, 2.0, 4.0])) == pytest.approx(1.0)
    many = np.random.default_rng(0).uniform(size=(3, 2, 8, 8))
    alone = [[dynamic_time_warping(one) for one in row] for row in many]
    np.testing.assert_allclose(dynamic_time_warping(many), alone)


def test_a_warp_of_phase_is_monotone_and_keeps_the_ends():
    warped = warped_phases(30, np.array([0.0, 0.5, 2.0]), np.random.default_rng(0))
    np.testing.assert_allclose(warped[0], phases(30), atol=1e-12)
    assert (np.diff(warped, axis=1) > 0).all()
    np.testing.assert_allclose(warped[:, [0, -1]], [[0, 1]] * 3, atol=1e-12)
    assert np.abs(warped[2] - phases(30)).max() > 0.05


def test_a_way_through_points_passes_them_when_it_should():
    when, values = np.array([0.0, 0.25, 1.0]), np.array([[1.0], [3.0], [-1.0]])
    np.testing.assert_allclose(through(when, values, np.array([0.0, 0.125, 0.25, 1.0]))[:, 0], [1, 2, 3, -1])


# ---- the family


def test_a_demonstration_repeated_is_carried_to_the_new_start(family):
    found = curves(recorded()[0])
    np.testing.assert_allclose(found.positions[:, -1], 0.0, atol=1e-12)
    y = actions(found)
    assert y.shape == (6, STEPS, 6)
    np.testing.assert_allclose(y[:, 0], 0.0, atol=1e-6)
    # All of these swings are one but for their start, and that is what `start_offset` knows.
    repeated = y[:1] + start_offset(found.poses[1:, 0])
    assert errors(found.some(slice(1, None)), repeated, 1.0)["position"].max() < 1e-5
    assert observe(found).shape == (6, STEPS, OBSERVATION)


def dawdling(pauses: list[float]) -> Curves:
    """A straight way of length 1, gone evenly but for a pause of a tenth of the time at each of these phases."""
    made = []
    for pause in pauses:
        done = np.interp(phases(STEPS), [0.0, pause, pause + 0.1, 1.0], [0.0, pause / 0.9, pause / 0.9, 1.0])
        made.append(done[:, None] * [0.0, 3.0, 4.0] / 5.0 - [0.0, 0.6, 0.8])
    positions = np.stack(made)
    return Curves(positions, np.zeros_like(positions))


def test_a_time_normalised_demonstration_goes_its_way_without_its_pauses():
    found = dawdling([0.3, 0.6])
    np.testing.assert_allclose(time_normalised(found, 0.0).poses, found.poses, atol=1e-12)
    straight = phases(STEPS)[:, None] * [0.0, 0.6, 0.8] - [0.0, 0.6, 0.8]
    np.testing.assert_allclose(time_normalised(found, 1.0).positions, [straight] * 2, atol=0.02)  # a step is 1 / 49
    half = time_normalised(found, 0.5).positions
    assert (
        np.linalg.norm(half - straight, axis=-1).max(1) < np.linalg.norm(found.positions - straight, axis=-1).max(1)
    ).all()
    np.testing.assert_allclose(half[:, [0, -1]], found.positions[:, [0, -1]], atol=1e-12)
    still = Curves(np.zeros((1, STEPS, 3)), np.zeros((1, STEPS, 3)))
    np.testing.assert_array_equal(time_normalised(still, 0.4).poses, still.poses)


def test_pauses_are_taken_out_where_they_are_chance_alone():
    chance, same = dawdling([0.1, 0.3, 0.5, 0.7]), dawdling([0.4, 0.4, 0.4])
    assert best_share([chance]) == SHARES[-1]
    assert best_share([same]) == best_share([chance, same]) == 0.0


def test_held_out_motions_have_no_say_in_the_share():
    """Training's and validation's pauses are chance, those of the held-out motion are all alike."""
    chance, same = dawdling([0.1, 0.3, 0.5, 0.7]), dawdling([0.4, 0.4, 0.4, 0.4])
    made = [Motion(f"way {i}", list(one.positions), 1.0) for i, one in enumerate((same, chance, chance))]
    assert [motion.name for motion in Motions(motions=made).motions["positions"]] == ["way 0"]
    assert Motions(motions=made).share == SHARES[-1]
    assert Motions(motions=made, fold=1).share == 0.0


def test_meta_batches_show_what_is_time_normalised_and_judge_what_was_recorded(family):
    source = family.fresh()
    support, query = source.sample(torch.Generator().manual_seed(0), 5, 2, 3)
    assert (support.x.shape, query.y.shape) == ((5, 2, STEPS, OBSERVATION), (5, 3, STEPS, 6))
    for name, shown, judged in zip(source.names(), support.y, query.y, strict=True):
        found = family.trajectories(family.task("train", int(name.rsplit("/", 1)[-1])))
        np.testing.assert_array_equal(shown, actions(time_normalised(found.some(slice(2)), family.share)))
        np.testing.assert_array_equal(judged, actions(found.some(slice(2, 5))))
    other = family.fresh().sample(torch.Generator().manual_seed(0), 5, 2, 3)
    assert torch.equal(other.query.y, query.y)
    with pytest.raises(QuickstudyError, match=r"Asked for 4 support and 3 query demonstrations a task; .* has 6,"):
        source.sample(torch.Generator(), 2, 4, 3)
    with pytest.raises(QuickstudyError, match=r"Asked for 4 support and 3 query"):
        Experiment.of(family, changes={"training": {"most_shots": 4}}).source()


def test_errors_by_hand():
    true = Curves(np.zeros((1, STEPS, 3)), np.full((1, STEPS, 3), [0.2, 0.0, 0.0]))
    poses = np.tile([0.03, 0.04, 0.0, 0.1, 0.0, 0.0], (1, STEPS, 1))
    found = errors(true, poses, 20.0)
    expected = {
        "rmse": np.hypot(0.05, 0.1),
        "position": 1.0,
        "position_dtw": 1.0,
        "orientation": np.degrees(0.1),
        "orientation_dtw": np.degrees(0.1),
    }
    assert {name: float(value[0]) for name, value in found.items()} == pytest.approx(expected)


def test_flat_motions_are_not_judged_by_orientation():
    found = curves(recorded(1, 4, width=2)[0])
    assert not found.turns.any()
    poses = found.poses + [0.0, 0.0, 0.0, 0.5, 0.0, 0.0]
    assert errors(found, poses, 1.0)["rmse"].max() < 1e-12
    assert errors(found, poses, 1.0)["orientation_dtw"].max() == 0.0


def test_folds_hold_out_every_motion_once():
    motions = recorded(7)
    held_out = []
    for fold in range(6):
        parts = Motions(motions=motions, fold=fold).motions
        names = {split: {motion.name for motion in some} for split, some in parts.items()}
        assert set(names) == {"train", "validation", "poses"}
        assert sum(map(len, names.values())) == len(set.union(*names.values())) == 7
        held_out += names["poses"]
    assert sorted(held_out) == sorted(motion.name for motion in motions)


def test_training_tasks_are_never_made_of_held_out_motions(family):
    allowed = {motion.name for motion in family.motions["train"]} | {""}
    drawn = {task.parameters["motion"] for task in family.tasks("train", 200)}
    assert drawn == allowed


def test_tasks_are_plain_data_and_held_out_motions_take_turns(family):
    for split in family.sizes:
        task = family.task(split, 3)
        assert Task(task.family, split, 3, json.loads(json.dumps(task.parameters))) == family.task(split, 3)
    names = [task.parameters["motion"] for task in Motions(motions=recorded(12)).tasks("poses", 10)]
    assert sorted(names.count(name) for name in set(names)) == [5, 5]


def test_what_is_judged_is_never_shown(family):
    for task in family.tasks("poses", 3):
        shown = {d.observations.tobytes() for d in family.demonstrate([task], 3, seed=1)[0]}
        seen = []

        def watches(x, seen=seen):
            seen.append(x[0])
            return np.zeros((*x.shape[:2], 6))

        assert family.run([task], 3, watches, seed=1)["rmse"].shape == (1, 3)
        whole = np.stack(seen, 1)
        assert len(seen) == STEPS
        assert not shown & {one.tobytes() for one in whole}


def test_knowing_the_truth_has_no_error(family):
    tasks = family.tasks("poses", 2)
    truth = np.stack([actions(family.split_demonstrations(task, 4)[1].some(slice(2))) for task in tasks])
    step = iter(range(STEPS))
    found = family.run(tasks, 2, lambda seen: truth[:, :, next(step)], seed=4)
    assert max(values.max() for values in found.values()) < 1e-4


def test_a_transformation_keeps_how_demonstrations_differ():
    found = curves(recorded()[2])
    for seed in range(4):
        other = transformed(found, np.random.default_rng(seed))
        before, after = (np.linalg.norm(np.diff(one.positions[:, 0], axis=0), axis=1) for one in (found, other))
        np.testing.assert_allclose(after / before, after[0] / before[0], rtol=1e-9)
        np.testing.assert_allclose(other.positions[:, -1], 0.0, atol=1e-12)


def test_made_up_tasks_vary_like_demonstrations(family):
    made_up = [task for task in family.tasks("train", 40) if not task.parameters["motion"]][:8]
    assert len(made_up) == 8
    for task in made_up:
        found = family.trajectories(task)
        assert np.isfinite(found.poses).all()
        np.testing.assert_allclose(found.positions[:, -1], 0.0, atol=1e-9)
        spread, size = found.positions.std(0).mean(), np.abs(found.positions).mean()
        assert 0.005 < spread / size < 1.0


def test_it_is_learned_by_the_error_that_it_is_judged_by(family):
    learner = Experiment.of(family).build()
    batch = Batch(torch.zeros(1, 2, 3), torch.zeros(1, 2, 6), torch.tensor([[1.0, 0.0]]), torch.zeros(1, 0))
    assert learner.base.criterion(torch.full((1, 2, 6), 0.3), batch).item() == pytest.approx(0.3, rel=1e-4)
    assert Experiment.of(Sinusoid()).build().base.criterion is imitation_loss


def test_learners_run_on_it(family):
    known = DemonstrationSet.record(family, family.tasks("train", 20), 4, seed=0)
    learner = NearestNeighbour(recorded_base(family.observation_size), family.action_size)
    learner.standardise(known.batch)
    result = evaluate(learner, family, "poses", shots=[0, 1, 3], tasks=4, episodes=2)
    none, one, _ = result.metrics["rmse"].mean((1, 2))
    assert one < 0.1 * none


# ---- files


def test_files_of_ones_own(tmp_path):
    rng = np.random.default_rng(0)
    demonstrations = [poses(rng, i % 3, steps=30 + i)[:, :3] for i in range(12)]
    tasks = np.array([f"task {i % 3}" for i in range(12)])
    start = np.concatenate([[0], np.cumsum([len(d) for d in demonstrations])])
    np.savez(tmp_path / "own.npz", points=np.concatenate(demonstrations), start=start, task=tasks, unit=2.5)
    motions = load(tmp_path / "own.npz")
    assert [(m.name, len(m.demonstrations), m.unit) for m in motions] == [(f"task {i}", 4, 2.5) for i in range(3)]
    np.testing.assert_array_equal(motions[1].demonstrations[2], demonstrations[7])
    family = families.get(str(tmp_path / "own.npz"))
    assert (family.name, family.test_splits, family.most_episodes) == ("own", ["positions"], 2)
    own, whole = Experiment.of(str(tmp_path / "own.npz")), Experiment.of(Motions(motions=recorded()))
    assert own.method.name == "matching"
    assert (own.settings.algorithm, own.settings.network) == (whole.settings.algorithm, whole.settings.network)
    for made, numbers in ((own, (2, 1)), (whole, (3, 3))):
        assert (made.settings.data.validation_episodes, made.settings.training.queries) == numbers
    assert own.source().sample(torch.Generator(), 2, 3, 1).support.x.shape == (2, 3, STEPS, OBSERVATION)
    assert family.run(family.tasks("positions", 2), 2, lambda x: np.zeros((2, 2, 6)), 0)["rmse"].shape == (2, 2)


def test_equally_long_demonstrations_need_no_start():
    points = np.random.default_rng(0).normal(size=(8, 20, 2))
    motions = recordings._own({"points": points, "task": np.repeat([3, 4], 4)})
    assert [motion.name for motion in motions] == ["3", "4"]
    expected = np.sqrt(np.square(points - points[:, -1:]).sum(-1).mean())
    assert motions[0].unit == pytest.approx(expected)


GOOD = {"points": np.random.default_rng(0).normal(size=(8, 20, 2)), "task": np.repeat([0, 1], 4)}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"task": None}, "lacks the array 'task'; it needs points, task"),
        ({"task": np.zeros((2, 2))}, "one text or whole number a demonstration"),
        ({"task": np.arange(7)}, "got 8 and 7 tasks"),
        ({"task": np.repeat([0, 1], [5, 3])}, "Task '1' has 3 demonstrations; 4 are needed"),
        ({"points": np.zeros((8, 20, 4))}, "has the shape"),
        ({"points": np.zeros((8, 20, 2))}, "None of the motions moves"),
        ({"points": np.full((8, 20, 2), np.nan)}, "must be finite; demonstration 0 is not in row 0"),
        ({"points": np.ones((8, 20, 7))}, "length 1; demonstration 0 has one of 2.000 in row 0"),
        ({"points": np.zeros((160, 2))}, "needs 'start'; it is missing"),
        ({"points": np.zeros((160, 2)), "start": np.array([0, 10, 5, 160])}, "rise from 0 to the 160 rows"),
        ({"unit": np.array(-1.0)}, "must be positive; got -1.0"),
        ({"unit": np.array([1.0, 2.0])}, "'unit' must be one number"),
    ],
)
def test_files_that_are_not_motions(tmp_path, change, sentence):
    arrays = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(QuickstudyError, match=r"bad\.npz"):
        load(tmp_path / "bad.npz")
    with pytest.raises(QuickstudyError, match=sentence):
        load(tmp_path / "bad.npz")


def test_what_is_missing(tmp_path, monkeypatch, family):
    monkeypatch.setenv(recordings.VARIABLE, str(tmp_path / "none.npz"))
    with pytest.raises(QuickstudyError, match=r"no file of motions '.*none\.npz'; set QUICKSTUDY_MOTIONS"):
        families.get("motions")
    with pytest.raises(QuickstudyError, match="at least three tasks"):
        Motions(motions=recorded(2))
    with pytest.raises(QuickstudyError, match="folds 0 to 5; got 6"):
        Motions(motions=recorded(), fold=6)
    with pytest.raises(QuickstudyError, match="a name of its own"):
        Motions(motions=[*recorded(3), recorded(1)[0]])
    with pytest.raises(QuickstudyError, match="3 may be shown"):
        family.demonstrate(family.tasks("poses", 1), 4, 0)
    with pytest.raises(QuickstudyError, match="fewest has 3 that are not shown"):
        family.run(family.tasks("poses", 1), 4, lambda x: x, 0)
    with pytest.raises(QuickstudyError, match="2 and 1 tasks"):
        from_arrays([np.zeros((5, 2))] * 2, ["a"])


def test_a_users_file_is_named_once_and_a_broken_one_is_no_motions(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, points=np.zeros((8, 20, 2)), task=np.repeat([0, 1], 4))
    with pytest.raises(QuickstudyError) as problem:
        families.get(str(path))
    assert str(problem.value).count(str(path)) == 1
    content = path.read_bytes()
    directory = content.rfind(b"PK\x01\x02")
    path.write_bytes(content[:directory] + b"XXXX" + content[directory + 4 :])
    assert not recordings.are_in(path)
    with pytest.raises(QuickstudyError, match="not a readable"):
        families.get(str(path))


@pytest.mark.skipif(not recordings.default_path().is_file(), reason=f"{recordings.VARIABLE} names no file of motions")
def test_the_collection_of_recordings():
    family = Motions()
    motions = [motion for some in family.motions.values() for motion in some]
    assert len(motions) == 23
    assert sum(motion.has_orientation for motion in motions) == 6
    (test,) = family.motions["poses"]
    assert (test.name, len(test.demonstrations), test.unit) == ("openbox", 9, 20.0)
    result = evaluate(_nearest(family), family, "poses", shots=[1], tasks=5, episodes=3)
    assert 2.0 < result.metrics["position"].mean() < 8.0  # centimetres


def _nearest(family: Motions) -> NearestNeighbour:
    learner = NearestNeighbour(recorded_base(family.observation_size), family.action_size)
    learner.standardise(DemonstrationSet.record(family, family.tasks("train", 20), 4, seed=0).batch)
    return learner
