"""Settings: values are checked against their fields' types, changes reach deep, and JSON brings all back."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pytest

from quickstudy import families, methods
from quickstudy.errors import QuickstudyError
from quickstudy.experiment import Experiment
from quickstudy.results.runs import settings_from_plain
from quickstudy.settings import (
    Config,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    OpenFraction,
    PositiveFloat,
    PositiveInt,
    Widths,
    from_plain,
)


@dataclass(frozen=True)
class Inner(Config):
    steps: PositiveInt = 3
    rate: PositiveFloat = 0.1


@dataclass(frozen=True)
class Outer(Config):
    count: NonNegativeInt = 0
    weight: NonNegativeFloat = 0.0
    share: Fraction = 0.5
    decay: OpenFraction = 0.5
    widths: Widths = (4,)
    kind: Literal["a", "b"] = "a"
    inner: Inner = field(default_factory=Inner)
    perhaps: PositiveInt | None = None
    yes: bool = False
    free: Any = None


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"count": -1}, "count must be 0 or more; got -1."),
        ({"weight": -0.5}, "weight must be 0 or more; got -0.5."),
        ({"weight": float("nan")}, "weight must be a finite number; got nan."),
        ({"weight": float("inf")}, "weight must be a finite number; got inf."),
        ({"count": True}, "count must be a whole number; got True."),
        ({"count": "3"}, "count must be a whole number; got '3'."),
        ({"count": None}, "count must be a whole number; got None."),
        ({"perhaps": -1}, "perhaps must be positive; got -1."),
        ({"yes": 1}, "yes must be true or false; got 1."),
        ({"share": 1.5}, "share must be between 0 and 1; got 1.5."),
        ({"decay": 1.0}, "decay must be between 0 and 1, both excluded; got 1.0."),
        ({"decay": 0.0}, "decay must be between 0 and 1, both excluded; got 0.0."),
        ({"widths": ()}, "widths must be one or more positive whole numbers; got ()."),
        ({"widths": (4, 0)}, "widths must be one or more positive whole numbers; got (4, 0)."),
        ({"widths": (4, 0.5)}, "widths must be one or more positive whole numbers; got (4, 0.5)."),
        ({"kind": "c"}, "kind must be 'a' or 'b'; got 'c'."),
    ],
)
def test_what_a_type_does_not_allow_is_one_sentence(value: dict[str, Any], sentence: str) -> None:
    with pytest.raises(QuickstudyError) as error:
        Outer(**value)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    "value",
    [
        {"count": 0},
        {"weight": 0.0},
        {"share": 0.0},
        {"share": 1.0},
        {"decay": 1e-9},
        {"widths": (1, 2)},
        {"kind": "b"},
        {"perhaps": None},
        {"perhaps": 2},
    ],
)
def test_bounds_are_allowed_where_they_belong(value: dict[str, Any]) -> None:
    assert asdict(Outer(**value)).items() >= value.items()


@pytest.mark.parametrize(("value", "name"), [({"steps": 0}, "steps"), ({"rate": 0.0}, "rate"), ({"rate": -1}, "rate")])
def test_positive_numbers(value: dict[str, Any], name: str) -> None:
    with pytest.raises(QuickstudyError, match=f"{name} must be positive; got"):
        Inner(**value)


def test_changes_reach_into_settings_within_settings() -> None:
    made = Experiment.of("navigation2d", "maml-trpo", changes={"algorithm": {"trpo": {"max_kl": 0.5}}}).settings
    default = Experiment.of("navigation2d", "maml-trpo").settings
    assert made.algorithm.trpo.max_kl == 0.5
    assert made.changed({"algorithm": {"trpo": {"max_kl": default.algorithm.trpo.max_kl}}}) == default


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"trainig": {"steps": 5}}, "Unknown setting 'trainig'. Did you mean 'training'?"),
        ({"training": {"step": 5}}, "Unknown setting 'step'. Did you mean 'steps'?"),
        ({"algorithm": {"inner_step": 5}}, "Unknown setting 'inner_step'. Did you mean 'inner_steps'?"),
        ({"training": {"steps": 0}}, "steps must be positive; got 0."),
    ],
)
def test_changes_that_cannot_be(changes: Any, sentence: str) -> None:
    with pytest.raises(QuickstudyError) as error:
        Experiment.of("point-navigation", "maml", changes=changes)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize("method", [name for name in methods.names() if name != "prototypical"])
def test_settings_come_back_from_json(method: str) -> None:
    settings = methods.get(method).defaults("ml1-push", families.get("ml1-push"), 3)
    assert settings_from_plain(json.loads(json.dumps(asdict(settings))), "it") == settings


def test_json_that_does_not_fit() -> None:
    assert from_plain(Outer, {"inner": {"steps": 7}, "widths": [1, 2]}, "it") == Outer(inner=Inner(7), widths=(1, 2))
    with pytest.raises(QuickstudyError, match=r"'it' has the unknown setting size, weights\."):
        from_plain(Outer, {"weights": 1, "size": 2}, "it")
    with pytest.raises(QuickstudyError, match=r"'it' has the unknown setting step\."):
        from_plain(Outer, {"inner": {"step": 1}}, "it")
    with pytest.raises(QuickstudyError, match="steps must be positive"):
        from_plain(Outer, {"inner": {"steps": 0}}, "it")
    plain = asdict(Experiment.of("sinusoid", "maml").settings)
    for bad, sentence in (
        ({"method": "mmal"}, "Unknown method 'mmal'. Did you mean 'maml'?"),
        ({"method": 3}, "does not say which method was trained on which family"),
        ({"maml": {}}, "'it' has the unknown setting maml"),
        ({"algorithm": {"slots": 3}}, "'it' has the unknown setting slots"),
    ):
        with pytest.raises(QuickstudyError, match=sentence.replace("?", r"\?")):
            settings_from_plain({**plain, **bad}, "it")
