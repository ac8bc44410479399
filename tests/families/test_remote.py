"""A family that is known by its interface alone."""

import json

import pytest

from quickstudy import families
from quickstudy.errors import QuickstudyError
from quickstudy.families.remote import RemoteFamily, interface


@pytest.mark.parametrize("name", ["point-navigation", "sinusoid", "navigation2d", "cheetah-velocity", "ml1-push"])
def test_what_a_learner_must_know_survives_json(name):
    family = families.get(name)
    remote = RemoteFamily(name, json.loads(json.dumps(interface(family))))
    assert interface(remote) == interface(family)
    assert remote.learned_from == family.learned_from
    assert remote.observation_layout == family.observation_layout
    with pytest.raises(QuickstudyError, match=f"The tasks of '{name}' are not on this machine"):
        remote.tasks("test", 1)


def test_files_of_before_are_read():
    known = interface(families.get("sinusoid"))
    for name in ("learned_from", "has_expert", "shots", "observation_layout"):
        del known[name]
    assert RemoteFamily("sinusoid", known).learned_from == ("demonstrations",)
    del known["rate"]
    with pytest.raises(QuickstudyError, match="'sinusoid' lacks rate"):
        RemoteFamily("sinusoid", known)
