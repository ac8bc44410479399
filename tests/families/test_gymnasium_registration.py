"""The Gymnasium names: registered by the import, cheap, and each an environment that Gymnasium accepts."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from quickstudy import families
from quickstudy.errors import QuickstudyError
from quickstudy.families.gymnasium import registration

registration.register()  # a test before this one may have imported quickstudy first and Gymnasium only then
ENVIRONMENTS = registration.environments()


def test_the_names():
    names = "Grasp ML10 ML45 Navigation NavigationDynamics PickPlace PointNavigation Push Reach ToolUse"
    assert {f"quickstudy/{name}-v0" for name in names.split()} <= ENVIRONMENTS.keys()


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


def test_an_index_names_a_task():
    made = [gymnasium.make("quickstudy/PointNavigation-v0", split="test", index=index) for index in (0, 5)]
    family = families.get("point-navigation")
    assert [env.unwrapped.task for env in made] == [family.task("test", 0), family.task("test", 5)]
    seen = [env.reset(seed=0)[0] for env in made]
    np.testing.assert_array_equal(*seen)  # the start does not depend on the task
    assert made[0].step(np.zeros(2, "f4"))[1] != made[1].step(np.zeros(2, "f4"))[1]


def test_a_second_registration_changes_nothing():
    before = dict(gymnasium.registry)
    registration.register()
    assert gymnasium.registry == before


def test_what_is_not_there():
    with pytest.raises(QuickstudyError, match="Did you mean 'train'"):
        gymnasium.make("quickstudy/PointNavigation-v0", split="trian")
    with pytest.raises(QuickstudyError, match="which holds 10000"):
        gymnasium.make("quickstudy/PointNavigation-v0", split="test", index=10_000)
    env = registration.make("point-navigation", render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(QuickstudyError, match="draw no pictures"):
        env.render()


@pytest.mark.parametrize("imports", ["gymnasium, quickstudy", "gymnasium"])
def test_importing_builds_nothing(imports):
    """Neither torch nor MuJoCo is loaded by the registration; Gymnasium imports the package by its name."""
    program = (
        f"import sys, {imports}\n"
        "name = 'quickstudy:quickstudy/PointNavigation-v0' if 'quickstudy' not in sys.modules else "
        "'quickstudy/PointNavigation-v0'\n"
        "env = gymnasium.make(name, disable_env_checker=True)\n"
        "assert not {'torch', 'mujoco', 'scipy'} & sys.modules.keys()\n"
        "print(env.spec.id, gymnasium.spec('quickstudy/Grasp-v0').id)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["quickstudy/PointNavigation-v0", "quickstudy/Grasp-v0"], done.stderr
