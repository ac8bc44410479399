"""The studio answers its own page alone: from this machine, or with the token."""

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
import viser
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from quickstudy.errors import QuickstudyError
from quickstudy.studio.guard import serve

TOKEN = "abcdefghijklmnop-123"
PROTOCOL = f"viser-v{viser.__version__}"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server, address = serve("127.0.0.1", 0)
    yield address
    server.stop()


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    server, address = serve("127.0.0.1", 0, TOKEN)
    yield address
    server.stop()


def status(address: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_this_machine_is_answered(address: str) -> None:
    assert status(address) == 200


def test_a_name_that_resolves_to_this_machine_is_refused(address: str) -> None:
    assert status(address, Host="evil.example") == 403


def test_another_page_may_not_open_a_websocket(address: str) -> None:
    place = address.replace("http", "ws")
    with pytest.raises(InvalidStatus, match="403"):
        connect(place, origin="http://evil.example", subprotocols=[PROTOCOL])
    with connect(place, origin=address.rstrip("/"), subprotocols=[PROTOCOL]) as own:
        assert own.recv(timeout=10)


def test_without_the_token_nothing_is_answered(guarded: str) -> None:
    plain = guarded.split("?")[0]
    assert status(plain) == 403
    assert status(f"{plain}?token={TOKEN[:-1]}x") == 403
    with pytest.raises(InvalidStatus, match="403"):
        connect(plain.replace("http", "ws"), subprotocols=[PROTOCOL])


def test_the_address_with_the_token_gives_a_cookie_that_opens_page_and_websocket(guarded: str) -> None:
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *given: object) -> None:
            return None

    with pytest.raises(urllib.error.HTTPError) as redirected:
        urllib.request.build_opener(Stay).open(guarded, timeout=10)
    cookie = redirected.value.headers["Set-Cookie"]
    assert redirected.value.code == 303
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    plain, kept = guarded.split("?")[0], cookie.split(";")[0]
    assert status(plain, Cookie=kept) == 200
    place, headers = plain.replace("http", "ws"), {"Cookie": kept}
    with connect(place, subprotocols=[PROTOCOL], additional_headers=headers) as own:
        assert own.recv(timeout=10)


def test_another_address_gets_a_token_by_itself() -> None:
    server, address = serve("0.0.0.0", 0)
    try:
        plain, _, token = address.partition("?token=")
        assert len(token) >= 16
        port = plain.rstrip("/").rsplit(":", 1)[1]
        assert status(f"http://127.0.0.1:{port}/") == 403
    finally:
        server.stop()


def test_nobody_can_ask_for_a_public_address() -> None:
    server, _ = serve("127.0.0.1", 0)
    try:
        assert server.request_share_url() is None
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("host", "port", "token", "said"),
    [
        ("127.0.0.1", 0, "short", "at least 16 letters"),
        ("192.0.2.7", 0, "", "cannot listen on '192.0.2.7'"),
        ("127.0.0.1", 70000, "", "from 0 to 65535"),
    ],
)
def test_what_cannot_be_served_is_said(host: str, port: int, token: str, said: str) -> None:
    with pytest.raises(QuickstudyError, match=said):
        serve(host, port, token)


def test_a_taken_port_gives_the_next_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server, address = serve("127.0.0.1", taken.getsockname()[1])
        try:
            assert status(address) == 200
        finally:
            server.stop()
