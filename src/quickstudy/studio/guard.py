"""Who may open the page. Every request is looked at before it is answered, and every websocket before it begins.

A server on 127.0.0.1 alone is not safe from the pages of others: a browser lets any of them open a websocket there, and
a name that resolves to 127.0.0.1 makes them look like this machine. So a request must name this machine as its host,
and a websocket must come from the page itself. Elsewhere than on 127.0.0.1 a token is needed as well: it is in the
address that the command prints, and the first answer puts it into a cookie that no script can read.
"""

import hmac
import http
import io
import ipaddress
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

import viser
import websockets.asyncio.server as websocket_server
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from quickstudy.errors import QuickstudyError

SHORTEST = 16
"""Characters of a token."""
_COOKIE = "quickstudy-studio"
_LOCAL = ("127.0.0.1", "localhost", "::1")


def is_local(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host in _LOCAL:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Guard:
    """Lets a request through, or says why not.

    Attributes:
        local: whether only requests that name this machine are answered.
        token: that is needed; none where it is empty.
    """

    local: bool
    token: str = ""

    def __call__(self, connection: Any, request: Request) -> Response | None:
        """The answer in place of the page, or None where the request may go on."""
        host = request.headers.get("Host", "")
        if self.local and not is_local(urlsplit(f"//{host}").hostname or ""):
            return _refusal("The studio answers requests to 127.0.0.1 alone.")
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return _refusal("Another page may not open the studio.")
        return self._check_token(request) if self.token else None

    def _check_token(self, request: Request) -> Response | None:
        given = parse_qs(urlsplit(request.path).query).get("token", [""])[0]
        if self._is_token(given):
            cookie = f"{_COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            return Response(
                http.HTTPStatus.SEE_OTHER, "See Other", Headers([("Location", "/"), ("Set-Cookie", cookie)]), b""
            )
        try:
            kept = SimpleCookie(request.headers.get("Cookie", "")).get(_COOKIE)
        except CookieError:
            kept = None
        if kept is not None and self._is_token(kept.value):
            return None
        return _refusal("The studio needs its token: open the whole address that the command printed.")

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())


def _refusal(sentence: str) -> Response:
    headers = Headers([("Content-Type", "text/plain; charset=utf-8")])
    return Response(http.HTTPStatus.FORBIDDEN, "Forbidden", headers, f"{sentence}\n".encode())


class _Server(viser.ViserServer):
    """viser's server without its tunnel to a public address, which any visitor could ask for otherwise."""

    def request_share_url(self, verbose: bool = True) -> str | None:
        return None


def serve(host: str, port: int, token: str = "") -> tuple[viser.ViserServer, str]:
    """A guarded server, and the address to open.

    Args:
        port: the first that is tried; the next free one is taken.
        token: for another address than 127.0.0.1; one is drawn where none is given.

    Raises:
        QuickstudyError: a token that is too short, an address or port that cannot be listened on, or a viser that
            cannot be guarded.
    """
    local = is_local(host)
    if token and (
        len(token) < SHORTEST or not token.isascii() or not token.replace("-", "").replace("_", "").isalnum()
    ):
        raise QuickstudyError(
            f"A token has at least {SHORTEST} letters, digits, '-' and '_'; got {len(token)} characters. "
            "Without --token a good one is drawn."
        )
    if not local and not token:
        token = secrets.token_urlsafe(24)
    if not 0 <= port <= 65535:
        raise QuickstudyError(f"A port is a number from 0 to 65535; got {port}.")
    try:
        family, *_, place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.bind(place)
    except OSError as error:
        raise QuickstudyError(f"The studio cannot listen on '{host}' ({error.strerror or error}).") from error
    guard = Guard(local, token)
    with _guarded(guard), redirect_stdout(io.StringIO()):  # viser says where it listens, without the token
        server = _Server(host=host, port=port, verbose=False)
    shown = f"[{host}]" if ":" in host else socket.gethostname() if host in ("0.0.0.0", "") else host
    address = f"http://{shown}:{server.get_port()}/"
    return server, f"{address}?token={token}" if token else address


@contextmanager
def _guarded(guard: Guard) -> Iterator[None]:
    """Puts a guard before the pages of the server that is begun within; viser has no place for one.

    Raises:
        QuickstudyError: the server began without it.
    """
    original: Callable[..., Any] = websocket_server.serve
    begun = False

    def serve_guarded(handler: Any, *places: Any, process_request: Any = None, **options: Any) -> Any:
        nonlocal begun
        begun = True

        def look(connection: Any, request: Request) -> Any:
            return guard(connection, request) or process_request(connection, request)

        return original(handler, *places, process_request=look, **options)

    websocket_server.serve = serve_guarded  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        websocket_server.serve = original  # type: ignore[assignment, misc]
    if not begun:
        raise QuickstudyError(f"viser {viser.__version__} cannot be guarded; the studio was made for 1.1.")
