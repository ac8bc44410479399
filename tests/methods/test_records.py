"""What a method's record says holds: options that its name stands for cannot be chosen; settings are a dataclass."""

from dataclasses import asdict, replace

import pytest

from quickstudy import Experiment, methods
from quickstudy.errors import QuickstudyError
from quickstudy.method import Method
from quickstudy.results.runs import settings_from_plain

FIXED = {
    "fomaml": ("first_order", True, False),
    "anil": ("adapt_only", "head", "all"),
    "meta-sgd": ("learn_rates", "parameter-step", "no"),
    "matching-fce": ("full_context", True, False),
    "matching-convex": ("head", "convex", "decoder"),
    "maml-trpo": ("outer", "trpo", "ppo"),
    "maml-by-return": ("by_return", True, False),
    "maml-ppo": ("estimator", "likelihood", "lvc"),
    "promp": ("estimator", "lvc", "dice"),
    "rl2": ("core", "lstm", "mann"),
    "rl2-mann": ("core", "mann", "lstm"),
}


def test_every_record_that_fixes_options_is_looked_at() -> None:
    assert {name for name, record in methods.records().items() if record.fixed} == FIXED.keys()


@pytest.mark.parametrize("name", FIXED)
def test_an_option_that_the_name_stands_for_cannot_be_chosen(name: str) -> None:
    option, value, other = FIXED[name]
    family = "point-navigation" if methods.get(name).learns_from == "demonstrations" else "navigation2d"
    experiment = Experiment.of(family, name)
    assert getattr(experiment.settings.algorithm, option) == value
    with pytest.raises(QuickstudyError, match=rf"'{name}' always has {option} {value!r}; got {other!r}\."):
        Experiment.of(family, name, changes={"algorithm": {option: other}})
    # Files of older versions held the general default there.
    plain = asdict(experiment.settings.changed({"algorithm": {option: other}}))
    assert settings_from_plain(plain, "a file") == experiment.settings


def test_settings_must_be_a_dataclass() -> None:
    with pytest.raises(QuickstudyError, match="settings of method 'mine' must be a dataclass; got <class 'int'>"):
        replace(methods.get("maml"), name="mine", settings=int)
    assert Method("mine", "does nothing", lambda s, f: f).fixed == {}
