"""Few-shot evaluation and its statistics, by numbers that can be computed by hand."""

import numpy as np
import pytest
import torch

from quickstudy import families, methods
from quickstudy.data import Batch
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import Evaluation, SkillPolicy, evaluate
from quickstudy.families.classic import PointNavigation
from quickstudy.io import files
from quickstudy.learner import BaseLearner, MetaLearner
from quickstudy.methods.demonstrations.baselines import (
    FineTuneConfig,
    NearestNeighbour,
    Replay,
    Transfer,
    fine_tune,
    recorded_base,
)
from quickstudy.nets import MLP
from quickstudy.results.rows import rows
from quickstudy.results.statistics import bootstrap
from quickstudy.results.tuning import Tuning, tune

FAMILY = PointNavigation()


class GoesThere(MetaLearner):
    """Walks to where the last demonstrated step ended: success by construction. Its skill is that place."""

    def begin(self):
        return torch.full((2,), 9.0)

    def adapt(self, support: Batch):
        return support.x[-1, -1]

    def predict(self, skill, x):
        return skill - x


def test_episodes_are_a_fixed_quota_and_shots_matter():
    result = evaluate(GoesThere(recorded_base(2)), FAMILY, "test", shots=[0, 1, 3], tasks=20, episodes=4)
    assert result.shots == [0, 1, 3]
    assert result.metrics["success"].shape == (3, 20, 4)
    assert result.metrics["success"][0].mean() == 0.0
    assert result.metrics["success"][1].mean() > 0.9
    assert len(result.tasks) == 20
    assert result.adaptation_ms[0] == 0.0


def test_an_evaluation_survives_its_file(tmp_path):
    result = evaluate(GoesThere(recorded_base(2)), FAMILY, "test", tasks=3, episodes=2)
    result.save(tmp_path / "it.json")
    loaded = Evaluation.load(tmp_path / "it.json")
    assert (loaded.tasks, loaded.shots, loaded.adaptation_ms) == (result.tasks, result.shots, result.adaptation_ms)
    np.testing.assert_array_equal(loaded.metrics["distance"], result.metrics["distance"])
    (tmp_path / "it.json").write_text("{}")
    with pytest.raises(QuickstudyError, match=r"is not an evaluation|lacks"):
        Evaluation.load(tmp_path / "it.json")


@pytest.mark.parametrize("bad", [{"shots": []}, {"shots": [-1]}, {"episodes": 0}])
def test_impossible_protocols_are_refused(bad):
    with pytest.raises(QuickstudyError, match="shots >= 0 and episodes >= 1"):
        evaluate(GoesThere(recorded_base(2)), FAMILY, "test", **bad)


def test_a_replay_plays_the_nearer_demonstration_and_holds_its_last_action():
    x = torch.tensor([[[0.0], [1.0], [2.0]], [[10.0], [11.0], [0.0]]])
    y = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [0.0]]])
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    learner = Replay(recorded_base(1), action_size=1)
    policy = SkillPolicy(learner, tuple_of_tasks(learner.adapt(Batch(x, y, mask, torch.zeros(0)))))
    played = [policy(np.array([[[start], [9.0]]], "f4"))[0, :, 0].tolist() for start in (0.5, 7.0, 7.0, 7.0)]
    assert played == [[1.0, 4.0], [2.0, 5.0], [3.0, 5.0], [3.0, 5.0]]


def test_the_nearest_neighbour_measures_in_deviations_and_never_takes_padding():
    """Units: the first channel varies by 10, the second by 1, so (0, 1) is nearer to (9, 1) than to (0, 3)."""
    base = recorded_base(2)
    base.deviation.copy_(torch.tensor([10.0, 1.0]))
    x = torch.tensor([[[9.0, 1.0], [0.0, 3.0], [0.0, 1.0]]])
    y = torch.tensor([[[1.0], [2.0], [7.0]]])
    learner = NearestNeighbour(base, action_size=1)
    skill = learner.adapt(Batch(x, y, torch.tensor([[1.0, 1.0, 0.0]]), torch.zeros(0)))
    assert learner.predict(skill, torch.tensor([[0.0, 1.0], [0.0, 2.9]])).tolist() == [[1.0], [2.0]]


def tuple_of_tasks(skill):
    return type(skill)(*(tensor[None] for tensor in skill))


def test_fine_tuning_is_torchs_adam():
    torch.manual_seed(0)
    x, y, start = torch.randn(20, 3), torch.randn(20, 1), torch.randn(3, 1)
    ours = fine_tune(lambda p: (x @ p["w"] - y).square().mean(), {"w": start}, FineTuneConfig(25, 0.03))["w"]
    theirs = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([theirs], lr=0.03)
    for _ in range(25):
        optimiser.zero_grad()
        (x @ theirs - y).square().mean().backward()
        optimiser.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)


def test_tuning_chooses_on_validation_tasks_alone(monkeypatch):
    asked = []

    def fake(learner, family, split, **_):
        asked.append(split)
        good = learner.config == FineTuneConfig(20, 3e-3)
        return Evaluation(split, ["t"], [1], {"success": np.full((1, 1, 1), float(good))}, [1.0])

    monkeypatch.setattr("quickstudy.experiment.evaluate", fake)
    learner = Transfer(BaseLearner(MLP(2, 2, [4]), 2))
    assert tune(learner, FAMILY, Tuning(), 1) == FineTuneConfig(20, 3e-3)
    assert learner.config == FineTuneConfig(20, 3e-3)
    assert set(asked) == {"validation"}


def test_the_bootstrap_covers_the_mean_and_counts_tasks_not_episodes():
    rng = np.random.default_rng(0)
    covered = 0
    for i in range(60):
        low, high = bootstrap(rng.normal(0.3, 1.0, (1, 80)), replicates=400, seed=i)
        covered += low <= 0.3 <= high
        assert 0.3 < high - low < 0.6  # 2 x 1.96 / sqrt(80) = 0.44
    assert covered >= 51
    assert bootstrap(np.full((3, 5), 0.7)) == pytest.approx((0.7, 0.7))


def test_rows_keep_seeds_apart_until_the_last_moment():
    metrics = [{"success": np.array([[[1.0, 0.0], [1.0, 1.0]]])}, {"success": np.array([[[0.0, 0.0], [1.0, 1.0]]])}]
    evaluations = [Evaluation("test", ["a", "b"], [1], m, [ms]) for m, ms in zip(metrics, (4.0, 8.0), strict=True)]
    (row,) = rows(methods.get("maml"), FAMILY, evaluations)
    assert row.value == pytest.approx(0.625)
    assert (row.seeds, row.tasks, row.episodes, row.shots, row.ms) == (2, 2, 2, 1, 6.0)
    assert row.ci95[0] <= 0.625 <= row.ci95[1]


class Diverges(GoesThere):
    """Does what `GoesThere` does, but not where it is shown a goal to the left."""

    def adapt(self, support: Batch):
        place = super().adapt(support)
        return torch.where(place[0] < 0, place * torch.nan, place)


def test_a_task_without_finite_actions_has_failed_and_the_others_have_their_figures(tmp_path):
    sound, result = (
        evaluate(kind(recorded_base(2)), FAMILY, "test", shots=[0, 1], tasks=12, episodes=2)
        for kind in (GoesThere, Diverges)
    )
    broken = [name in result.broken for name in result.tasks]
    assert 0 < sum(broken) < 12
    fine = ~np.array(broken)
    np.testing.assert_array_equal(result.metrics["success"][1, fine], sound.metrics["success"][1, fine])
    assert result.metrics["success"][1, broken].max() == 0.0
    np.testing.assert_array_equal(result.metrics["success"][0], sound.metrics["success"][0], "it was not adapted")
    first = result.tasks[broken.index(True)]
    assert f"{sum(broken)} of 12 tasks counted as failed: {first} (what the learner does is not finite)" in result.note
    result.save(tmp_path / "it.json")
    assert "NaN" not in (tmp_path / "it.json").read_text()
    assert Evaluation.load(tmp_path / "it.json").broken == result.broken
    (_, row) = rows(methods.get("maml"), FAMILY, [result])
    assert row.note == result.note


def test_evaluations_are_compared_on_the_tasks_that_all_have():
    values = np.array([[[1.0], [2.0], [4.0]]])
    whole = Evaluation("test", ["s/test/0", "s/test/1", "s/test/2"], [1], {"mse": values}, [1.0])
    part = whole.only(["s/test/0", "s/test/2"])
    assert [task.index for task in part.drawn(families.get("sinusoid"))] == [0, 2]
    (row,) = rows(methods.get("maml"), families.get("sinusoid"), [whole, part])
    assert (row.value, row.tasks) == (2.5, 2)
    assert not whole.note


def test_a_figure_that_does_not_exist_is_null_in_the_file(tmp_path):
    odd = Evaluation("test", ["a"], [1], {"success": np.ones((1, 1, 1)), "time": np.full((1, 1, 1), np.nan)}, [1.0])
    odd.save(tmp_path / "it.json")
    assert '"time": [[[null]]]' in (tmp_path / "it.json").read_text()
    assert np.isnan(Evaluation.load(tmp_path / "it.json").metrics["time"]).all()
    with pytest.raises(QuickstudyError, match="a number that is not finite"):
        files.write_json(tmp_path / "bad.json", {"x": float("inf")})
    assert not (tmp_path / "bad.json").exists()


def test_a_setting_without_finite_figures_is_never_tuned_to(monkeypatch, tmp_path):
    def fake(learner, *_):
        return 0.5 if learner.config.rate == 3e-3 else float("nan")

    monkeypatch.setattr("quickstudy.results.tuning.on_validation", fake)
    for _ in range(2):  # the second time from the record
        learner = Transfer(BaseLearner(MLP(2, 2, [4]), 2))
        assert tune(learner, FAMILY, Tuning(steps=(20,)), 1, record=tmp_path / "tuning.json").rate == 3e-3
    assert "NaN" not in (tmp_path / "tuning.json").read_text()
