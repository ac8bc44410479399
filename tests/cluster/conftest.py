"""A real cluster of two nodes on this machine, of two cores each; none of its processes outlives the tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("cluster"))
            item.add_marker(pytest.mark.filterwarnings("ignore"))  # Ray's own


@pytest.fixture(scope="session")
def nodes() -> Iterator:
    import ray
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    before = children()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 200 * 2**20})
    try:
        cluster.add_node(num_cpus=2, object_store_memory=200 * 2**20)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="CRITICAL")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert children() == before


def children() -> set[int]:
    """Processes of Ray below this one that are alive."""
    found = set()
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if words[0] != "Z":
            parents[int(path.parent.name)] = int(words[1])
    for process in parents:
        up = process
        while up in parents and up != os.getpid():
            up = parents[up]
        if up == os.getpid() and process != os.getpid():
            found.add(process)
    return found
