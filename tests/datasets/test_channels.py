"""Channels are taken by name, however they are ordered and spelt; what lacks one or has another unit is refused."""

from pathlib import Path

import numpy as np
import pytest

from quickstudy.datasets import About, Episode, Recording
from quickstudy.datasets.channels import as_in
from quickstudy.errors import QuickstudyError

LIKE = About(30.0, ("pan", "lift"), ("grip",), observation_units=("deg", "deg"), action_units=("",))


def recording(observations=(), actions=(), width: int = 2, **about: object) -> Recording:
    x = np.tile(np.arange(width, dtype=float), (4, 1))
    return Recording(
        Path("theirs.csv"), "csv", About(30.0, tuple(observations), tuple(actions), **about), ["t"],
        lambda images: iter([Episode("t", x, np.ones((4, 1)))]),
    )  # fmt: skip


def first(found: Recording) -> list[float]:
    return next(iter(found)).observations[0].tolist()


@pytest.mark.parametrize(
    ("names", "wanted"),
    [(("pan", "lift"), [0.0, 1.0]), (("lift", "pan"), [1.0, 0.0]), (("Lift ", "observation.pan"), [1.0, 0.0]),
     (("wrist", "lift", "pan"), [2.0, 1.0])],
    ids=["the same", "another order", "another spelling", "one more"],
)  # fmt: skip
def test_channels_are_put_in_order_by_name(names, wanted, capsys):
    found = as_in(recording(names, ("grip",), len(names)), LIKE)
    assert first(found) == wanted
    assert found.about.observations == ("pan", "lift")
    assert ("observations that are not used: wrist" in capsys.readouterr().out) == (len(names) == 3)


def test_what_lacks_a_channel_is_refused_by_its_name():
    with pytest.raises(QuickstudyError, match=r"'theirs\.csv' lacks the observation channel 'lift'; it has pan, tilt"):
        as_in(recording(("pan", "tilt"), ("grip",)), LIKE)
    with pytest.raises(QuickstudyError, match="lacks the action channel 'grip'"):
        as_in(recording(("pan", "lift"), ("speed",)), LIKE)


def test_another_unit_is_refused():
    with pytest.raises(QuickstudyError, match="observation channel 'pan' is in rad; it was in deg in training"):
        as_in(recording(("lift", "pan"), ("grip",), observation_units=("deg", "rad")), LIKE)
    found = as_in(recording(("lift", "pan"), ("grip",), observation_units=("", "deg")), LIKE)
    assert found.about.observation_units == ("deg", "")


def test_what_nobody_named_is_taken_by_place_and_said(capsys):
    found = as_in(recording(("observation.0", "observation.1"), ("grip",)), LIKE)
    assert first(found) == [0.0, 1.0]
    said = " ".join(capsys.readouterr().out.split())
    assert said == "'theirs.csv' does not name its observations; they are taken by place: pan, lift."
    assert first(as_in(recording(("lift", "pan")), About())) == [0.0, 1.0]
    assert not capsys.readouterr().out, "a learner without names says nothing"


def test_a_name_that_two_channels_have_tells_neither():
    with pytest.raises(QuickstudyError, match="two channels are called 'pan'"):
        as_in(recording(("lift", "pan", "pan"), ("grip",), 3), LIKE)
