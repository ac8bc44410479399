"""The Gymnasium names: registered by the import, cheap, and each an environment that Gymnasium accepts."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from quickstudy.errors import QuickstudyError
from quickstudy.families import own as families
from quickstudy.families.gymnasium import registration as environments
from quickstudy.families.gymnasium.registration import ENVIRONMENTS


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_check_env(name):
    env = gymnasium.make(name, split="validation", index=1)
    family = families.get(ENVIRONMENTS[name])
    assert env.observation_space.shape == (family.observation_size,)
    assert env.action_space.shape == (family.action_size,)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(?:not within the obs space|symmetric|infinity).*")
        check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_gymnasium_imports_the_package_by_its_name():
    assert gymnasium.make("quickstudy:quickstudy/PointNavigation-v0").spec.id == "quickstudy/PointNavigation-v0"


def test_an_index_names_a_task():
    seen = [
        gymnasium.make("quickstudy/PointNavigation-v0", split="test", index=index).unwrapped.goal for index in (0, 0, 5)
    ]
    np.testing.assert_array_equal(seen[0], families.get("point-navigation").task("test", 0).parameters["goal"])
    np.testing.assert_array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])


def test_a_second_registration_changes_nothing():
    before = dict(gymnasium.registry)
    environments.register()
    assert gymnasium.registry == before


def test_what_is_not_there():
    with pytest.raises(QuickstudyError, match="Did you mean 'train'"):
        gymnasium.make("quickstudy/PointNavigation-v0", split="trian")
    with pytest.raises(QuickstudyError, match="which holds 10000"):
        gymnasium.make("quickstudy/PointNavigation-v0", split="test", index=10_000)
    with pytest.raises(QuickstudyError, match="have no render_mode; got 'rgb_array'"):
        environments.make("point-navigation", render_mode="rgb_array")


def test_importing_builds_nothing():
    """Neither MuJoCo nor a family is loaded by the registration."""
    program = (
        "import sys, gymnasium, quickstudy; assert 'mujoco' not in sys.modules; "
        "assert 'quickstudy.families.own' not in sys.modules; "
        "print(gymnasium.spec('quickstudy/Grasp-v0').id)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "quickstudy/Grasp-v0", done.stderr
