"""The options of `train` and `profile`: the defaults of the named family and method, wherever the family stands."""

from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import mistake
from quickstudy import families, methods
from quickstudy.cli.options import parse
from quickstudy.errors import QuickstudyError
from quickstudy.experiment import Experiment


def parsed(*words: str) -> Experiment:
    return parse("train", words, "")[0]


@pytest.mark.parametrize(
    "words",
    [
        "--method matching navigation",
        "navigation --method matching",
        "--seed 0 navigation --method matching",
        "--seed=0 --method=matching navigation",
        "navigation",
        "--network.hidden 128 128 navigation",
        "--no-resume navigation",
        "--network.no-normalise --training.rate 1e-3 navigation",
        "--training.batching auto navigation",
        "--output-dir grasping navigation",
        "--training.meta_batch 16 navigation",
    ],
)
def test_the_settings_are_those_of_the_named_family(words):
    """Matching networks on navigation; grasping would have 600 steps and 400 tasks."""
    made = parsed(*words.split())
    assert made.settings == methods.get("matching").defaults("navigation", families.get("navigation"))
    assert (made.settings.training.steps, made.settings.data.tasks) == (3000, 1000)
    assert (made.family.name, made.method.name) == ("navigation", "matching")


OPTIONS = [
    ["--method", "maml"],
    ["--seed", "3"],
    ["--network.hidden", "32", "16"],
    ["--network.normalise"],
    ["--training.rate=0.5"],
    ["--inner-steps", "2"],
    ["--data.tasks", "40"],
    ["--no-resume"],
    ["--output-dir", "my runs/navigation"],
]


@settings(max_examples=25, deadline=None)
@given(options=st.permutations(OPTIONS), place=st.integers(0, len(OPTIONS)))
def test_the_place_of_the_family_changes_nothing(options, place):
    words = [word for option in options[:place] for word in option]
    words += ["navigation", *(word for option in options[place:] for word in option)]
    made, others = parse("train", words, "")
    changes = {
        "network": {"hidden": (32, 16), "normalise": True},
        "training": {"rate": 0.5},
        "algorithm": {"inner_steps": 2},
        "data": {"tasks": 40},
    }
    assert made.settings == Experiment.of("navigation", "maml", 3, changes).settings
    assert (str(others["output_dir"]), others["resume"], others["device"]) == ("my runs/navigation", False, "cpu")


@pytest.mark.parametrize(
    ("words", "method", "learn_rates"),
    [
        ("--learn-rates parameter --method maml navigation2d", "maml", "parameter"),
        ("--learn-rates parameter navigation2d --method maml", "maml", "parameter"),
        ("--method maml-trpo --learn-rates navigation2d", "maml-trpo", True),
        ("--learn-rates navigation2d", "maml-trpo", True),
        ("--no-learn-rates navigation2d --method maml-trpo", "maml-trpo", False),
    ],
)
def test_an_option_that_is_a_switch_to_one_method_and_has_a_value_to_another(words, method, learn_rates):
    made = parsed(*words.split())
    assert (made.method.name, made.settings.algorithm.learn_rates) == (method, learn_rates)
    assert made.family.name == "navigation2d"


@pytest.mark.parametrize("family", ["point-navigation", "navigation2d", "cheetah-velocity", "ml1-reach", "sinusoid"])
def test_without_a_method_it_is_the_familys_own(family):
    made = parsed("--seed", "1", family)
    assert made.settings == Experiment.of(family, None, 1).settings
    assert made.method.name == families.get(family).default_method


@pytest.mark.parametrize("method", [name for name in methods.names() if not name.startswith("prototypical")])
def test_what_is_parsed_without_options_are_the_defaults(method):
    family = "ml1-reach"  # it can be learned by every method of skills
    assert asdict(parsed("--method", method, family).settings) == asdict(Experiment.of(family, method).settings)


def test_a_method_of_somebody_elses_with_its_own_options(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from quickstudy.method import Method\n"
        "from quickstudy.settings import Config, PositiveInt\n"
        "@dataclass(frozen=True)\n"
        "class Mine(Config):\n"
        "    eager: bool = False\n"
        "    layers: tuple[int, ...] = (1,)\n"
        "    turns: PositiveInt = 3\n"
        "METHOD = Method('mine', 'of mine', lambda settings, family: None, settings=Mine)\n"
    )
    monkeypatch.chdir(tmp_path)
    own = ["--eager", "--layers", "4", "5", "--turns", "2"]
    for words in (["--method", "mine:METHOD", *own, "sinusoid"], [*own, "sinusoid", "--method", "mine:METHOD"]):
        made = parsed(*words)
        assert asdict(made.settings.algorithm) == {"eager": True, "layers": (4, 5), "turns": 2}
        assert (made.settings.method, made.method.name) == ("mine:METHOD", "mine")
    with pytest.raises(QuickstudyError, match="turns must be positive; got 0"):
        parsed("sinusoid", "--method", "mine:METHOD", "--turns", "0")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("navigaton", "Unknown family 'navigaton'. Did you mean 'navigation'?"),
        ("--seed 1 navigaton", "Unknown family 'navigaton'. Did you mean 'navigation'?"),
        ("navigation --method matchin", "Unknown method 'matchin'. Did you mean 'matching'?"),
        ("--method matchin", "Unknown method 'matchin'. Did you mean 'matching'?"),
        ("navigation2d --training.steps 0", "steps must be positive; got 0"),
        ("cheetah-velocity --method maml", "'maml' learns from demonstrations; 'cheetah-velocity' is learned from"),
        ("sinusoid --method rl2", "Method 'rl2' learns from trials; 'sinusoid' is learned from demonstrations only"),
        ("sinusoid --method maml --method=prototypical", "is for recognition; 'sinusoid' is a family of skills"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["train", "profile"])
def test_a_mistake_is_one_sentence(capsys, command, words, sentence):
    assert sentence in mistake(capsys, command, *words.split())


@pytest.mark.parametrize(
    ("words", "hints"),
    [
        ("navigation --trainig.steps 5", ["--trainig.steps", "--training.steps"]),
        ("--trainig.steps 5 navigation", ["--trainig.steps", "--training.steps"]),
        ("navigation --resum", ["--resum", "--resume"]),
        ("--resum navigation", ["--resum", "--resume"]),
        ("--resum --seed 1 navigation", ["--resum", "--resume"]),
        ("navigation point-navigation", ["point-navigation"]),
        ("navigation --training.steps many", ["--training.steps", "many"]),
        ("--seed 1", ["FAMILY"]),
        ("navigation --seed", ["--seed"]),
    ],
)  # fmt: skip
def test_an_option_that_does_not_exist_gets_one_sentence_with_the_nearest(capsys, words, hints):
    said = mistake(capsys, "train", *words.split())
    assert all(hint in said for hint in hints)


def test_help_shows_the_settings_of_the_named_method_alone(capsys):
    def shown(*words: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            parse("train", words, "What it does.")
        assert stopped.value.code == 0
        return capsys.readouterr().out

    general, by_demonstration = shown("--help"), shown("navigation", "--help")
    by_trial = shown("--method", "rl2", "--help", "navigation")
    assert all(
        "What it does." in said and "--seed" in said and "FAMILY" in said
        for said in (general, by_demonstration, by_trial)
    )
    assert "--training.steps" not in general
    assert "default: 3000" in by_demonstration
    assert "--data.tasks" in by_demonstration
    assert "--gae-lambda" not in by_demonstration
    assert "--gae-lambda" in by_trial
    assert "--data.tasks" not in by_trial
    assert "hypernet" in general
    assert "hypernet" not in by_trial, "it learns from demonstrations"
    assert all(len(said.split("--method")[1].split("--seed")[0]) < 500 for said in (general, by_demonstration)), "short"
