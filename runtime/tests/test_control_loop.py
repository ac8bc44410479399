"""The simulated arm stops, and goes on, whatever breaks on the way from its sensors to its motors."""

import pytest


def test_the_arm_stops_within_100_ms_holds_and_goes_on(grasping):
    loop = pytest.importorskip("benchmarks.control_loop", reason="the repository's benchmarks are not here")
    faults = ("observations late", "observations repeated", "server killed", "control program killed")
    for attempt in range(3):  # in real time on a machine that may be busy with other tests
        found, robot = loop.measured(grasping.bundle, grasping.demonstration, grasping.family, attempt, faults)
        if all(found[fault].still_ms[0] <= 100 and found[fault].success == [True] for fault in faults):
            break
    assert set(found) == set(faults)
    assert len(robot.round_trips) > 200
    for fault in faults:
        (rest,), (still,), (way,) = found[fault].rest_ms, found[fault].still_ms, found[fault].way_mm
        assert rest <= 60, fault
        assert still <= 100, fault
        assert 1 < way < 20, fault  # it did move when the fault began
    assert all(one.success == [True] for one in found.values())
