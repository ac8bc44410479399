"""Many come and go: each has a session of its own, which ends with its tab, and the server stays."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import viser
from websockets.sync.client import connect

from quickstudy.studio import learning, server
from quickstudy.studio.page import Tab
from quickstudy.studio.server import Studio

CAMERA = {
    "type": "ViewerCameraMessage", "wxyz": (1.0, 0.0, 0.0, 0.0), "position": (1.0, 1.0, 1.0), "fov": 1.0, "near": 0.01,
    "far": 100.0, "image_height": 100, "image_width": 100, "look_at": (0.0, 0.0, 0.0), "up_direction": (0.0, 0.0, 1.0),
}  # fmt: skip
"""What a browser says first."""


def wait(done: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    made = Studio(learning.choices(), tmp_path_factory.mktemp("studio"), port=0, seed=3)
    yield made
    made.close()


@contextmanager
def visitor(studio: Studio) -> Iterator[Tab]:
    """A tab without a browser, that takes whatever it is sent."""
    before = set(studio.tabs)
    with connect(studio.address.replace("http", "ws"), subprotocols=[f"viser-v{viser.__version__}"]) as socket:
        threading.Thread(target=lambda: list(socket), daemon=True).start()
        socket.send(msgspec.msgpack.encode(CAMERA))
        wait(lambda: set(studio.tabs) - before != set())
        (number,) = set(studio.tabs) - before
        tab = studio.tabs[number]
        wait(lambda: tab.pictures > 0)
        yield tab
    wait(lambda: number not in studio.tabs)


def resident() -> float:
    """Megabytes of memory that this process holds."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def test_a_closed_tab_stops_its_physics_and_leaves_others_alone(studio: Studio) -> None:
    with visitor(studio) as stays:
        with visitor(studio) as leaves:
            one, other = stays.session, leaves.session
            assert one is not None
            assert other is not None
            assert one is not other
            one.try_it()
            other.try_it()
            wait(lambda: one.mode == other.mode == "trying")
        wait(lambda: not leaves.alive and not other.alive)
        assert one.alive
        drawn, tries = stays.pictures, one.score.tries
        wait(lambda: stays.pictures > drawn + 20 and one.score.tries > tries)
    wait(lambda: not one.alive)


def test_a_session_that_crashes_leaves_the_server_and_other_tabs_up(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    with visitor(studio) as broken, visitor(studio) as whole:
        assert broken.session is not None
        assert whole.session is not None

        def fail(*_: object) -> None:
            raise RuntimeError("the world fell apart")

        monkeypatch.setattr(broken.session.arena, "step", fail)
        monkeypatch.setattr(broken.stage, "draw", fail)
        broken.act(broken.session.show_by_expert)
        wait(lambda: "the world fell apart" in broken.failure)
        whole.act(whole.session.show_by_expert)
        session = whole.session
        wait(lambda: len(session.shown) == 1)
        assert whole.failure == ""
    with visitor(studio) as later:
        assert later.session is not None


def test_a_mistake_of_a_click_is_said_and_goes_with_the_next_click(studio: Studio) -> None:
    with visitor(studio) as tab:
        assert tab.session is not None
        tab.act(tab.session.learn)
        assert "no demonstration" in tab.failure
        tab.act(tab.session.new_task)
        assert tab.failure == ""


def test_more_tabs_than_the_machine_bears_are_told_so(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_TABS", 1)
    with (
        visitor(studio),
        connect(studio.address.replace("http", "ws"), subprotocols=[f"viser-v{viser.__version__}"]) as second,
    ):
        second.send(msgspec.msgpack.encode(CAMERA))
        heard = b""
        until = time.monotonic() + 30
        while b"GuiMarkdownMessage" not in heard and time.monotonic() < until:
            raw = second.recv(timeout=30)
            assert isinstance(raw, bytes)
            heard = _unpacked(raw)
        assert len(studio.tabs) == 1


def _unpacked(raw: bytes) -> bytes:
    import zstandard

    size = int.from_bytes(raw[8:16], "little")
    return zstandard.ZstdDecompressor().decompress(raw[16 : 16 + size])


@pytest.mark.filterwarnings("ignore:Queued a")
def test_memory_and_threads_stay_flat_while_tabs_come_and_go(studio: Studio) -> None:
    def come_and_go(times: int) -> None:
        for _ in range(times):
            with visitor(studio) as tab:
                session = tab.session
                assert session is not None
                session.new_task()
                session.try_it()
                wait(lambda session=session: session.mode == "trying")  # type: ignore[misc]

    come_and_go(4)  # what is kept once is kept by then
    gc.collect()
    memory, threads = resident(), threading.active_count()
    come_and_go(8)
    gc.collect()
    assert threading.active_count() <= threads + 2
    assert resident() - memory < 100  # a tab that stayed would hold 40 or more
