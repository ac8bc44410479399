"""Bundles: every method's graphs do what PyTorch does, and the runtime does what the library does."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import quickstudy
import quickstudy_runtime as runtime
from quickstudy import families, methods
from quickstudy.cli import main
from quickstudy.errors import QuickstudyError
from quickstudy.experiment import Experiment
from quickstudy.export.bundle import export
from quickstudy.export.policies import of_demonstrations, of_trials

ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'quickstudy[export]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'quickstudy[export]'")

FEW = {"steps": 3}
SMALL = {
    "reptile": {"inner_steps": 4},
    "transfer": FEW,
    "scratch": FEW,
    "transfer-equal-time": FEW,
    "meta-lstm": {"inner_steps": 3},
}
"""Fewer steps, which a graph takes as one node all the same."""


def experiment(name: str) -> Experiment:
    record = methods.get(name)
    family = families.get("ml1-push" if record.why_not(families.get("navigation")) else "navigation")
    made = Experiment.of(family, record)
    if record.learns_from == "demonstrations":
        network = replace(made.settings.network, hidden=(16, 16))
        made = replace(
            made, settings=replace(made.settings, network=network).changed({"algorithm": SMALL.get(name, {})})
        )
    return made


def sessions(graphs):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return {name: ort.InferenceSession(graph, options) for name, graph in graphs.items()}


DEMONSTRATED = [
    name for name, record in methods.records().items()
    if record.learns_from == "demonstrations" and record.role != "oracle" and name != "prototypical"
]  # fmt: skip


@pytest.mark.parametrize("name", DEMONSTRATED)
def test_adapting_and_acting_are_those_of_pytorch(name):
    made = experiment(name)
    family, learner = made.family, made.build().eval()
    wide = family.observation_size + family.action_size + 1
    exported = of_demonstrations(learner, family.observation_size, family.action_size, adapts=True)
    run, rng = sessions(exported.graphs), torch.Generator().manual_seed(0)
    names = list(exported.skill)
    for shots, steps in ((1, 1), (3, 9), (2, 30)):
        support = torch.randn(shots, steps, wide, generator=rng)
        support[..., -1] = 1.0
        support[0, steps - steps // 3 :, -1] = 0.0
        leaves = [leaf.detach() for leaf in exported.adapt(support)]
        adapted = run["adapt"].run(None, {"support": support.numpy()})
        for leaf, other in zip(leaves, adapted, strict=True):
            np.testing.assert_allclose(other, leaf.numpy(), rtol=1e-4, atol=2e-5)
        theirs = [leaf.numpy() for leaf in leaves]
        for _ in range(10):
            x = torch.randn(family.observation_size, generator=rng)
            with torch.no_grad():
                ours = exported.act(*leaves, x)
            every = dict(zip(names, theirs, strict=True)) | {"observation": x.numpy()}
            found = run["act"].run(None, {one.name: every[one.name] for one in run["act"].get_inputs()})
            np.testing.assert_allclose(found[0], ours[0].numpy(), atol=2e-5)
            for place, mine, other in zip(map(names.index, exported.changes), ours[1:], found[1:], strict=True):
                leaves[place], theirs[place] = mine, other


@pytest.mark.parametrize("name", ["rl2", "rl2-mann", "rl2-dagger"])
def test_a_policy_with_a_memory_is_that_of_pytorch(name):
    made = Experiment.of("navigation", name)
    family, learner = made.family, made.build().eval()
    exported = of_trials(learner, family.observation_size, family.action_size)
    run, names, rng = sessions(exported.graphs)["act"], list(exported.skill), torch.Generator().manual_seed(0)
    leaves = [torch.from_numpy(leaf.copy()) for leaf in exported.begin.values()]
    theirs = [leaf.numpy() for leaf in leaves]
    for step in range(20):
        given = {
            "observation": torch.randn(family.observation_size, generator=rng),
            "previous_action": torch.rand(family.action_size, generator=rng),
            "reward": torch.rand(1, generator=rng), "done": torch.tensor([float(step == 9)]),
        }  # fmt: skip
        with torch.no_grad():
            ours = exported.act(*leaves, *given.values())
        every = dict(zip(names, theirs, strict=True)) | {n: v.numpy() for n, v in given.items()}
        found = run.run(None, {one.name: every[one.name] for one in run.get_inputs()})
        np.testing.assert_allclose(found[0], ours[0].numpy(), atol=1e-5)
        for place, mine, other in zip(map(names.index, exported.changes), ours[1:], found[1:], strict=True):
            leaves[place], theirs[place] = mine, other


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
    assert made.act_difference < 1e-5
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
