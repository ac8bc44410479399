"""Bundles: graphs do what PyTorch does, and the runtime does what the library does.

That of every method that learns from demonstrations is a point of its contract, see tests/check.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

import quickstudy
import quickstudy_runtime as runtime
from quickstudy.cli import main
from quickstudy.errors import QuickstudyError
from quickstudy.experiment import Experiment
from quickstudy.export.bundle import export
from quickstudy.export.parity import ACTIONS, parity
from quickstudy.export.policies import of_demonstrations, of_trials
from quickstudy.learner import BaseLearner
from quickstudy.methods.demonstrations.baselines import FineTuneConfig, Transfer
from quickstudy.nets import MLP

pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'quickstudy[export]'")


@pytest.mark.parametrize("name", ["rl2", "rl2-mann", "rl2-dagger", "domain-randomisation"])
def test_a_policy_learned_by_trial_is_that_of_pytorch(name):
    made = Experiment.of("navigation", name)
    family = made.family
    exported = of_trials(made.build().eval(), family.observation_size, family.action_size)
    observations = torch.randn(ACTIONS, family.observation_size, generator=torch.Generator().manual_seed(0))
    found = parity(exported, exported.graphs, [], observations)
    assert not found.fault
    assert found.adapt is None
    assert ("reward" in exported.inputs) == bool(exported.changes) == (name != "domain-randomisation")


def test_graphs_that_differ_are_found_and_nothing_is_written(trained, tmp_path, monkeypatch):
    def other(*given):
        made = of_demonstrations(*given)
        return replace(made, act=lambda *some: [1.001 * made.act(*some)[0]])

    monkeypatch.setattr("quickstudy.export.bundle.of_demonstrations", other)
    with pytest.raises(QuickstudyError, match=r"graphs of 'matching' act .* from PyTorch; at most 1e-05"):
        export(trained, tmp_path / "it.quickstudy")

    def another_skill(*given):
        made = of_demonstrations(*given)
        moved = [lambda s, adapt=adapt: [t + 1e-3 for t in adapt(s)] for adapt in (made.adapt, made.exact)]
        return replace(made, adapt=moved[0], exact=moved[1])

    monkeypatch.setattr("quickstudy.export.bundle.of_demonstrations", another_skill)
    with pytest.raises(QuickstudyError, match=r"adapt to a skill that is .* from PyTorch's"):
        export(trained, tmp_path / "it.quickstudy")
    assert not list(tmp_path.iterdir())


def test_rounding_that_adam_makes_larger_is_held_against_that_of_pytorch():
    """A gradient that is rounding alone moves a parameter by the rate, one way or the other."""
    support = torch.cat([torch.ones(1, 1, 1), torch.zeros(1, 1, 1), torch.ones(1, 1, 1)], -1)
    learner = Transfer(BaseLearner(MLP(1, 1, (3,)), 1), FineTuneConfig(3))
    made = of_demonstrations(learner, 1, 1)
    moved = replace(made, adapt=lambda s: [t + 1e-3 for t in made.adapt(s)])
    assert parity(moved, made.graphs, [support], torch.zeros(1, 1)).fault == ""
    wrong = replace(moved, exact=lambda s: [t + 1e-3 for t in made.exact(s)])
    assert "adapt to a skill" in parity(wrong, made.graphs, [support], torch.zeros(1, 1)).fault


def test_what_cannot_be_exported_is_said():
    learner = Experiment.of("navigation2d", "maml-trpo").build()
    with pytest.raises(QuickstudyError, match="by gradients from its own trials"):
        of_trials(learner, 2, 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on somebody's own data in degrees, far from zero, with named channels, and one of its demonstrations."""
    folder = tmp_path_factory.mktemp("own")
    rng, lines = np.random.default_rng(0), ["episode,task,observation.a,observation.b,action.u,action.v"]
    for episode in range(30):
        goal, state = 40 * rng.normal(size=2) if episode % 3 == 0 else goal, 50 * rng.normal(size=2)  # noqa: F821
        for _ in range(12):
            action = 0.2 * (goal - state)
            lines.append(",".join(map(str, [episode, f"t{episode // 3}", *(state + [4e6, 0]), *action])))
            state = state + action
    (folder / "own.csv").write_text("\n".join(lines))
    steps = ["--training.steps", "30", "--training.validate-every", "30"]
    main(["train", str(folder / "own.csv"), "--method", "matching", *steps, "--output-dir", str(folder / "run")])
    return folder / "run"


def test_library_runtime_and_a_saved_skill_act_alike(trained, tmp_path):
    made = export(trained, tmp_path / "own.quickstudy", rest=(0.0, 0.0))
    assert made.size < 2e6
    assert made.parity.act < 1e-5
    (example,) = (trained / "examples").glob("*.npz")
    robot = quickstudy.load(trained, warm_up=True)
    assert robot.first_call_s > 0
    skill, there = robot.adapt(example), runtime.load(made.path).adapt([example])
    skill.save(tmp_path / "skill.safetensors")
    again = quickstudy.load_skill(tmp_path / "skill.safetensors")
    rng = np.random.default_rng(0)
    seen = np.load(example)["observations"]
    for x in seen[rng.integers(len(seen), size=50)] + rng.normal(size=(50, 2)):
        ours = skill.act(x)
        np.testing.assert_allclose(there.act(x), ours, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(again.act(x), ours)
        np.testing.assert_array_equal(skill.act({"b": x[1], "a": x[0]}), ours)
        np.testing.assert_allclose(there.act({"b": x[1], "a": x[0]}), ours, rtol=1e-4, atol=1e-4)
    skill.reset()
    assert skill.act(seen[:4]).shape == (4, 2)
    manifest = runtime.read(made.path)
    assert (manifest.observation.names, manifest.action.names) == (("a", "b"), ("u", "v"))
    assert 3.9e6 < manifest.observation.offset[0] < 4.1e6


def test_weights_of_eight_bits_are_a_third_as_large_and_act_nearly_alike(trained, tmp_path):
    whole, small = (export(trained, tmp_path / kind, kind) for kind in ("float32", "int8"))
    assert small.size < 0.4 * whole.size
    assert 1e-5 < small.parity.act < 0.03
    (example,) = (trained / "examples").glob("*.npz")
    one, other = (runtime.load(made.path).adapt([example]) for made in (whole, small))
    seen = np.load(example)["observations"]
    moves = np.array([one.act(x) for x in seen])
    np.testing.assert_allclose([other.act(x) for x in seen], moves, atol=0.05 * np.abs(moves).max())


@pytest.mark.parametrize(
    ("given", "said"),
    [([1.0, np.nan], "channel b is nan"), ([1.0], "must be numbers"), ({"a": 1.0}, "lack the channel 'b'"),
     ("x", "must be numbers")],
)  # fmt: skip
def test_a_bad_observation_is_one_sentence(trained, given, said):
    with pytest.raises(QuickstudyError, match=said):
        quickstudy.load(trained).begin().act(given)


def test_demonstrations_in_every_form(trained):
    robot = quickstudy.load(trained)
    (example,) = (trained / "examples").glob("*.npz")
    arrays = np.load(example)
    x, y = arrays["observations"], arrays["actions"]
    named = {"observations": {"b": x[:, 1], "a": x[:, 0]}, "actions": {"v": y[:, 1], "u": y[:, 0]}}
    wanted = robot.adapt(str(example)).act(x[3])
    for given in (
        example,
        [example],
        [(x, y)],
        {"observations": x, "actions": y},
        [named],
        quickstudy.Demonstration(x, y),
    ):
        np.testing.assert_array_equal(robot.adapt(given).act(x[3]), wanted)
    for given, said in (
        (["nowhere.npz"], "There is no"),
        ([3], "must be"),
        ({"actions": y}, "lacks 'observations'"),
        ([], "at least one"),
    ):
        with pytest.raises(QuickstudyError, match=said):
            robot.adapt(given)


def test_the_command_and_its_mistakes(trained, tmp_path, capsys):
    main(["export", str(trained), "--output", str(tmp_path / "a b.quickstudy")])
    assert "quickstudy-runtime info" in capsys.readouterr().out
    for words, said in (
        (["export", str(trained), "--output", str(tmp_path / "a b.quickstudy")], "is there already"),
        (["export", str(tmp_path)], "is not a run folder"),
        (["export", str(trained), "--output", str(tmp_path / "c"), "--rest", "0"], "needs 2 numbers; got 1"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2
        assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "c").exists()
