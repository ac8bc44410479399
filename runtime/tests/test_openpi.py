"""The field's own policy client drives a skill through `quickstudy-runtime serve`."""

import subprocess
import sys

import numpy as np
import pytest

import bundles
import quickstudy_runtime as runtime
from test_server import DEMONSTRATION, ENVIRONMENT

openpi = pytest.importorskip(
    "openpi_client.websocket_client_policy",
    reason="openpi-client is not installed: pip install --no-deps openpi-client==0.1.2",
)


@pytest.fixture
def served():
    """Starts `quickstudy-runtime serve BUNDLE ...` as a user would; gives the port."""
    processes = []

    def start(*words):
        command = [sys.executable, "-m", "quickstudy_runtime", "serve", *map(str, words), "--port", "0"]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT))
        line = processes[-1].stdout.readline()
        return int(line.split("ws://127.0.0.1:")[1].split()[0])

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_real_client(served, tmp_path):
    bundle = bundles.write(tmp_path / "small.quickstudy")
    policy = openpi.WebsocketClientPolicy("127.0.0.1", served(bundle, "--token", "secret"), api_key="secret")
    assert policy.get_server_metadata()["action"] == ["dx", "dy"]
    assert policy.infer({"adapt": [DEMONSTRATION]})["adapted"] == 1
    found = policy.infer({"observation/state": np.zeros(3, np.float32), "prompt": "pick it up",
                          "observation/image": np.zeros((8, 8, 3), np.uint8)})  # fmt: skip
    np.testing.assert_allclose(found["actions"], [[0.1, 0.2]], atol=1e-6)
    policy.infer({"reset": True})
    named = policy.infer({"arm": np.zeros(2), "grip": np.float64(0.5), "sequence": np.int64(7)})
    np.testing.assert_allclose(named["actions"], [[0.1, 0.2]], atol=1e-6)
    with pytest.raises(RuntimeError, match="must hold demonstrations"):
        policy.infer({"adapt": 3})


def test_it_drives_the_simulated_arm(served, grasping):
    """Episode by episode as the runtime alone, with the same seeds: an arm grasps what it was shown."""
    family, task = grasping.family, grasping.task
    port = served(grasping.bundle, "--demo", grasping.demonstration)
    policy = openpi.WebsocketClientPolicy("127.0.0.1", port)
    skill = runtime.load(grasping.bundle).adapt([grasping.demonstration])
    over_the_wire, alone = [], []
    there = family.run([task], 1, lambda x: _asked(policy, x, over_the_wire), seed=1)
    here = family.run([task], 1, lambda x: _acted(skill, x, alone), seed=1)
    np.testing.assert_array_equal(over_the_wire, alone)
    assert here["success"].all()
    for name, values in here.items():
        np.testing.assert_array_equal(there[name], values, err_msg=name)
    assert policy.infer({"reset": True})["counts"]["acted"] == len(alone)


def _asked(policy, observations, kept):
    kept.append(policy.infer({"observation/state": observations.reshape(-1)})["actions"][0])
    return kept[-1].reshape(1, 1, -1)


def _acted(skill, observations, kept):
    kept.append(skill.act(observations.reshape(-1)))
    return kept[-1].reshape(1, 1, -1)
