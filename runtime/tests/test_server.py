import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import websockets.sync.client as ws
import websockets.sync.server

import bundles
import quickstudy_runtime as runtime
from quickstudy_runtime import QuickstudyError, server
from quickstudy_runtime.client import Remote, Watchdog
from quickstudy_runtime.messages import pack, unpack

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(runtime.__file__).parents[1])}
DEMONSTRATION = {"observations": np.array([[0.0, 0.0, 0.5]]), "actions": np.array([[0.1, 0.2]])}


@pytest.fixture
def running(tmp_path):
    robot = runtime.load(bundles.write(tmp_path / "small.quickstudy"))
    made = []

    def start(**options):
        one = server.start(robot, port=0, **options)
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        made.append((one, thread))
        return f"ws://127.0.0.1:{one.socket.getsockname()[1]}"

    yield start
    for one, thread in made:
        one.shutdown()
        thread.join()


def test_a_client_of_the_field(running):
    """The messages of openpi's WebsocketClientPolicy, written by hand; test_openpi has the real one."""
    with ws.connect(running(), compression=None) as connection:
        about = unpack(connection.recv())
        assert (about["method"], about["action"], about["horizon"]) == ("mean", ["dx", "dy"], 1)

        def ask(message):
            connection.send(pack(message))
            answer = connection.recv()
            return answer if isinstance(answer, str) else unpack(answer)

        assert ask({"adapt": [DEMONSTRATION]})["adapted"] == 1
        np.testing.assert_allclose(ask({"observation/state": np.zeros(3, "f4")})["actions"], [[0.1, 0.2]], atol=1e-6)
        np.testing.assert_allclose(
            ask({"arm": np.zeros(2), "grip": np.float32(0)})["actions"][0], [0.6, 0.7], atol=1e-6
        )
        held = ask({"state": [0, 0, float("nan")]})
        assert "nan" in held["status"]
        assert held["actions"][0][0] == 0
        assert ask({"reset": True})["counts"]["held"] == 1
        assert "must hold demonstrations" in ask({"adapt": 3})
        assert "cannot be used" in ask({"adapt": [{"observations": [[0]], "actions": [[0]]}]})
        assert "a dict" in ask([1, 2])
        connection.send("text")
        assert "binary frame" in connection.recv()
        connection.send(b"\xc1garbage")
        assert "msgpack" in connection.recv()
        connection.send(pack({b"__ndarray__": True, b"data": b"123", b"dtype": "<f8", b"shape": [4]}))
        assert "size" in connection.recv()
        connection.send(pack({b"__ndarray__": True, b"data": b"", b"dtype": "O", b"shape": [0]}))
        assert "plain numbers" in connection.recv()
        assert ask({"state": np.zeros(3)})["status"] == ""  # it still serves


def test_each_connection_has_a_skill_of_its_own(running):
    address = running()
    with ws.connect(address) as one, ws.connect(address) as other:
        for connection in (one, other):
            connection.recv()
        one.send(pack({"adapt": [DEMONSTRATION]}))
        one.recv()
        for connection, wanted in ((one, [0.1, 0.2]), (other, [0.0, 0.0])):
            connection.send(pack({"state": np.zeros(3)}))
            np.testing.assert_allclose(unpack(connection.recv())["actions"][0], wanted, atol=1e-6)


def test_a_token_and_no_web_pages(running, tmp_path):
    address = running(token="secret")
    with pytest.raises(Exception, match="401"):
        ws.connect(address)
    with pytest.raises(Exception, match="401"):
        ws.connect(address, additional_headers={"Authorization": "Api-Key wrong"})
    with pytest.raises(Exception, match="403"):
        ws.connect(address, additional_headers={"Authorization": "Api-Key secret"}, origin="http://evil.example")
    with ws.connect(address, additional_headers={"Authorization": "Api-Key secret"}) as connection:
        assert unpack(connection.recv())["quickstudy"] == 1
    robot = runtime.load(bundles.write(tmp_path / "b"))
    with pytest.raises(QuickstudyError, match="needs a token"):
        server.start(robot, host="0.0.0.0")
    with pytest.raises(QuickstudyError, match="at least 1 action"):
        server.start(robot, horizon=0)


def test_remote_rests_while_the_server_is_gone_and_goes_on_when_it_is_back(tmp_path):
    bundle = bundles.write(tmp_path / "small.quickstudy")
    process, port = _serve(bundle, 0)
    try:
        remote = Remote(f"ws://127.0.0.1:{port}", rest=[0.0, float("nan")], deadline=0.5, last=[0, 0])
        np.testing.assert_allclose(remote.act({"observation": np.array([0.5, 0.25, 0.0])}), [0.5, 0.25])
        _end(process)
        started = time.monotonic()
        np.testing.assert_allclose(remote.act({"observation": np.zeros(3)}), [0.0, 0.25])
        assert time.monotonic() - started < 0.6
        assert remote.counts["acted"] == 1
        assert remote.counts["lost"] >= 1
        process, _ = _serve(bundle, port)
        until = time.monotonic() + 10
        while remote.counts["acted"] < 2 and time.monotonic() < until:
            remote.act({"observation": np.zeros(3)})
            time.sleep(0.05)
        assert remote.counts["acted"] == 2
        remote.close()
    finally:
        _end(process)
    with pytest.raises(QuickstudyError, match="No server"):
        Remote(f"ws://127.0.0.1:{port}", rest=[0, 0])


@pytest.fixture
def answering():
    """A server that answers as a test's function says: (step, message) -> answers, each (seconds to wait, message)."""
    made = []

    def start(answers, width=1):
        def handle(connection):
            connection.send(pack({"action": ["a"] * width, "hash": "h"}))
            for step, message in enumerate(connection):
                for wait, answer in answers(step, unpack(message)):
                    time.sleep(wait)
                    connection.send(answer if isinstance(answer, str | bytes) else pack(answer))

        one = websockets.sync.server.serve(handle, "127.0.0.1", 0)
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        made.append((one, thread))
        return f"ws://127.0.0.1:{one.socket.getsockname()[1]}"

    yield start
    for one, thread in made:
        one.shutdown()
        thread.join()


def test_a_late_answer_is_never_taken_for_the_next_ones(answering):
    address = answering(lambda step, _: [(0.15 if step == 1 else 0, {"actions": np.array([[float(step)]])})])
    remote = Remote(address, rest=[-1.0], deadline=0.1)
    assert remote.act([0.0]) == 0
    started = time.monotonic()
    assert remote.act([0.0]) == -1
    assert time.monotonic() - started < 0.13
    assert "did not answer" in remote.status
    assert remote.act([0.0]) == 2
    assert dict(remote.counts) == {"acted": 2, "ahead": 0, "late": 1}
    remote.close()


def test_a_chunk_bridges_late_answers_and_ends_with_the_server(answering):
    chunk = np.array([[10.0], [11.0], [12.0]])

    def answers(step, _):
        if step == 4:
            raise ConnectionError
        return [(0, {"actions": chunk})] if step == 0 else []

    remote = Remote(answering(answers), rest=[-1.0], deadline=0.02)
    assert [float(remote.act([0.0])[0]) for _ in range(4)] == [10, 11, 12, -1]
    assert remote.counts["ahead"] == 2
    assert remote.act([0.0]) == -1
    assert remote.act([0.0]) == -1
    remote.close()


def test_bad_answers_rest(answering):
    bad = ["no", b"\xc1", {"actions": np.array([[np.nan]])}, {"actions": np.zeros((1, 2))}, {}, [1],
           {"actions": np.zeros((0, 1))}, {"actions": np.ones((1, 1)), "status": "held"}]  # fmt: skip
    remote = Remote(answering(lambda step, _: [(0, bad[step])]), rest=[-1.0], deadline=1)
    for _ in bad:
        assert remote.act([0.0]) == -1
        assert remote.status
    assert (remote.counts["refused"], remote.counts["held"]) == (len(bad) - 1, 1)
    remote.close()


def test_what_was_taught_is_taught_again_after_a_new_connection(tmp_path):
    bundle = bundles.write(tmp_path / "small.quickstudy")
    process, port = _serve(bundle, 0)
    try:
        remote = Remote(f"ws://127.0.0.1:{port}", rest=[0, 0], deadline=0.5)
        assert remote.adapt([DEMONSTRATION])["adapted"] == 1
        np.testing.assert_allclose(remote.act(np.zeros(3)), [0.1, 0.2], atol=1e-6)
        assert remote.reset()["counts"]["acted"] == 1
        _end(process)
        process, _ = _serve(bundle, port)
        until = time.monotonic() + 20
        while remote.counts["acted"] < 2 and time.monotonic() < until:
            action = remote.act(np.zeros(3))
            time.sleep(0.05)
        np.testing.assert_allclose(action, [0.1, 0.2], atol=1e-6)
        with pytest.raises(QuickstudyError, match="cannot be used"):
            remote.adapt([{"observations": [[0]], "actions": [[0]]}])
        _end(process)
        process, _ = _serve(bundles.write(tmp_path / "other", bundles.manifest(run="another")), port)
        for _ in range(20):
            np.testing.assert_allclose(remote.act(np.zeros(3)), [0, 0])
            time.sleep(0.05)
        remote.close()
    finally:
        _end(process)


def test_a_skill_that_changes_goes_on_through_its_chunk(running):
    with ws.connect(running(horizon=3)) as connection:
        connection.recv()
        connection.send(pack({"state": np.zeros(3), "sequence": 1}))
        actions = unpack(connection.recv())["actions"]
        np.testing.assert_allclose(actions, [[0, 0], [0.5, 0.5], [1, 1]])
        connection.send(pack({"state": np.zeros(3), "sequence": 1}))
        held = unpack(connection.recv())
        assert "came after" in held["status"]
        np.testing.assert_allclose(held["actions"], [[0, 1]] * 3)


def _serve(bundle, port):
    command = [sys.executable, "-m", "quickstudy_runtime", "serve", str(bundle), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    line = process.stdout.readline()
    assert line.startswith("Serving mean on ws://127.0.0.1:"), line
    return process, int(line.split("ws://127.0.0.1:")[1].split()[0])


def _end(process):
    process.kill()
    process.wait()
    process.stdout.close()


def test_watchdog():
    now = [0.0]
    with pytest.raises(QuickstudyError, match="last="):
        Watchdog([0.0, float("nan")])
    dog = Watchdog([0.0, float("nan")], timeout=0.1, clock=lambda: now[0], last=[0, 0])
    np.testing.assert_allclose(dog.command(), [0, 0])
    dog.feed([1.0, 2.0])
    now[0] = 0.09
    np.testing.assert_allclose(dog.command(), [1, 2])
    for bad in ([np.nan, 1.0], [1.0], "x", None):
        dog.feed(bad)
    now[0] = 0.11
    np.testing.assert_allclose(dog.command(), [0, 2])


def test_commands(tmp_path):
    bundle = bundles.write(tmp_path / "small.quickstudy")
    np.savez(tmp_path / "one.npz", **DEMONSTRATION)

    def call(*words):
        return subprocess.run(
            [sys.executable, "-m", "quickstudy_runtime", *map(str, words)],
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
        )

    told = call("info", bundle)
    assert told.returncode == 0
    assert "mean on small" in told.stdout
    assert "arm.0" in told.stdout
    saved = call("adapt", bundle, "--demo", tmp_path / "one.npz", "--output", tmp_path / "s.safetensors")
    assert saved.returncode == 0
    header = (tmp_path / "s.safetensors").read_bytes()
    metadata = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]
    assert json.loads(metadata["quickstudy"])["method"] == "mean"
    for words, said in [(("info", tmp_path / "x"), "no file"), (("serve", bundle, "--host", "0.0.0.0"), "token"),
                        (("adapt", bundle, "--demo", tmp_path / "x.npz"), "no file")]:  # fmt: skip
        failed = call(*words)
        assert failed.returncode == 1
        assert said in failed.stderr
        assert "Traceback" not in failed.stderr
