"""The road's end: the same episodes through the library, the runtime, and a socket with the field's policy client."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

import quickstudy
import quickstudy_runtime as runtime
from quickstudy.cli import main
from quickstudy.export.bundle import export
from quickstudy.families.base import SimulatedFamily
from quickstudy_runtime import server

pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'quickstudy[export]'")

TASKS, EPISODES = 3, 2


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """A short run on grasping, its bundle, three unseen objects and a demonstration of each."""
    folder = tmp_path_factory.mktemp("deployed")
    short = [
        "--training.steps",
        "40",
        "--training.validate-every",
        "40",
        "--data.tasks",
        "30",
        "--data.validation-tasks",
        "2",
    ]
    main(["train", "grasping", "--method", "matching", *short, "--output-dir", str(folder / "run")])
    bundle = export(folder / "run", folder / "grasping.quickstudy").path
    robot = quickstudy.load(folder / "run")
    tasks = robot.family.tasks("sizes", TASKS)
    demonstrations = [one for (one,) in robot.family.demonstrate(tasks, 1, seed=0)]
    return robot, bundle, tasks, demonstrations


def driven(family: SimulatedFamily, tasks, act: Callable[[int, int], Callable]) -> tuple[np.ndarray, np.ndarray]:
    """Success [task, episode] and the first actions of a policy that acts for each robot apart."""
    robots = [[act(i, j) for j in range(EPISODES)] for i in range(len(tasks))]
    first = []

    def policy(observations: np.ndarray) -> np.ndarray:
        made = np.array([[robots[i][j](x) for j, x in enumerate(row)] for i, row in enumerate(observations)])
        first.append(made) if len(first) < 30 else None
        return made

    result = family.run(tasks, EPISODES, policy, seed=0)
    return result["success"], np.clip(first, -1, 1)  # as the arm clips them


def test_library_runtime_and_socket_end_alike(deployed):
    robot, bundle, tasks, demonstrations = deployed
    there = runtime.load(bundle, runtime.Guard(margin=100.0))

    def in_library(i: int, j: int):
        return robot.adapt(demonstrations[i]).act

    def in_runtime(i: int, j: int):
        return there.adapt([(demonstrations[i].observations, demonstrations[i].actions)]).act

    ours, first = driven(robot.family, tasks, in_library)
    theirs, second = driven(robot.family, tasks, in_runtime)
    np.testing.assert_allclose(second[:10], first[:10], atol=1e-3)
    np.testing.assert_array_equal(theirs, ours)


def test_the_real_openpi_client_drives_the_arm(deployed):
    client = pytest.importorskip(
        "openpi_client.websocket_client_policy",
        reason="openpi-client is not installed: pip install --no-deps openpi-client==0.1.2",
    )
    robot, bundle, tasks, demonstrations = deployed
    served = server.start(runtime.load(bundle, runtime.Guard(margin=100.0)), port=0)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    try:
        port = served.socket.getsockname()[1]
        policies = []

        def over_the_wire(i: int, j: int):
            policy = client.WebsocketClientPolicy("127.0.0.1", port)
            policies.append(policy)
            assert policy.get_server_metadata()["family"] == "grasping"
            one = demonstrations[i]
            assert policy.infer({"adapt": [{"observations": one.observations, "actions": one.actions}]})["adapted"] == 1
            names = robot.family.observation_channels
            return lambda x: policy.infer(dict(zip(names, x, strict=True)))["actions"][0]

        _, wired = driven(robot.family, tasks[:1], over_the_wire)
        _, ours = driven(robot.family, tasks[:1], lambda i, j: robot.adapt(demonstrations[i]).act)
        np.testing.assert_allclose(wired[:10], ours[:10], atol=1e-3)
        for policy in policies:
            policy._ws.close()
    finally:
        served.shutdown()
        thread.join()
