"""Answers over WebSocket with the actions of a skill; each connection is a robot with a skill of its own.

The protocol is that of openpi's policy clients: the server says who it is, then answers every message, a dict, with a
dict, or with a text where it could not. What a message may hold:

    an observation   {'observation': [obs]} or named channels; perhaps 'stamp' (seconds) and 'sequence' (a number that
                     rises) -> {'actions': [horizon, act], 'status': '' or why the robot is held}
    {'adapt': [{'observations': [step, obs], 'actions': [step, act]}, ...]} -> {'adapted': how many, 'milliseconds': t}
    {'reset': True}  a new episode -> {'reset': True, 'counts': {...}}
"""

import hmac
import http
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

from quickstudy_runtime.errors import QuickstudyError
from quickstudy_runtime.messages import MOST_BYTES, pack, unpack
from quickstudy_runtime.robot import Demonstration, Robot, Skill

LOCAL = ("127.0.0.1", "localhost", "::1")
_MOST_CONNECTIONS = 32
_STATES = ("observation", "observation.state", "observation/state", "state")
"""Keys that clients of the field give a whole observation under."""


def start(
    robot: Robot,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    demonstrations: Sequence[Demonstration] = (),
    horizon: int = 1,
    say: Callable[[str], None] = lambda sentence: None,
) -> Server:
    """A server that is bound to its address; `serve_forever()` runs it.

    Args:
        host: 127.0.0.1, or another address, which needs a token.
        port: 0 takes any free one; `server.socket.getsockname()[1]` tells it.
        token: what clients must send in the header 'Authorization: Api-Key TOKEN'.
        demonstrations: of the task that every connection starts with; without any, with the skill before them.
        horizon: actions in an answer, for slow links: the action at the observation, repeated.
        say: told of connections that come and go.

    Raises:
        QuickstudyError: another address without a token, a horizon below 1, or a demonstration that cannot be used.
    """
    if host not in LOCAL and not token:
        raise QuickstudyError(f"Listening on {host} lets others move the robot; it needs a token (--token).")
    if horizon < 1:
        raise QuickstudyError(f"An answer needs at least 1 action; got a horizon of {horizon}.")
    taught = robot.adapt(demonstrations) if demonstrations else robot.begin()
    about = {
        "quickstudy": 1, "method": robot.bundle.method, "family": robot.bundle.family, "rate": robot.bundle.rate,
        "observation": list(robot.bundle.observation.names), "action": list(robot.bundle.action.names),
        "horizon": horizon, "hash": robot.bundle.hash,
    }  # fmt: skip
    open_connections = 0

    def allowed(connection: ServerConnection, request: Any) -> Any:
        if token is not None:
            given = request.headers.get("Authorization", "")
            wanted = (f"Api-Key {token}", f"Bearer {token}")
            if not any(hmac.compare_digest(given.encode(), one.encode()) for one in wanted):
                return connection.respond(http.HTTPStatus.UNAUTHORIZED, "The token is missing or wrong.\n")
        if request.headers.get("Origin") is not None:  # a web page must not drive a robot behind its visitor's back
            return connection.respond(http.HTTPStatus.FORBIDDEN, "Web pages may not connect.\n")
        if open_connections >= _MOST_CONNECTIONS:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections.\n")
        return None

    def handle(connection: ServerConnection) -> None:
        nonlocal open_connections
        open_connections += 1
        say(f"connected: {connection.remote_address}")
        session = _Session(robot, taught, horizon)
        try:
            connection.send(pack(about))
            for message in connection:
                connection.send(session.answer(message))
        except ConnectionClosed:
            pass
        finally:
            open_connections -= 1
            say(f"disconnected: {connection.remote_address}, {session.told()}")

    try:
        return serve(
            handle, host, port, process_request=allowed, max_size=MOST_BYTES, compression=None, open_timeout=10
        )
    except OSError as error:
        raise QuickstudyError(f"Cannot listen on {host}:{port} ({error.strerror}).") from error


class _Session:
    """One connection: its skill, and the answers to its messages."""

    def __init__(self, robot: Robot, taught: Skill, horizon: int) -> None:
        self._robot, self._horizon = robot, horizon
        self._skill = taught.copy()

    def answer(self, message: str | bytes) -> str | bytes:
        """Bytes with an answer, or a text with what is wrong; nothing a client sends ends the server."""
        try:
            if isinstance(message, str):
                raise QuickstudyError("A message must be msgpack in a binary frame; got a text.")
            return pack(self._answer(unpack(message)))
        except QuickstudyError as fault:
            return str(fault)

    def _answer(self, message: Any) -> dict[str, Any]:
        if not isinstance(message, dict):
            raise QuickstudyError(f"A message must be a dict; got {type(message).__name__}.")
        if "adapt" in message:
            return self._adapt(message["adapt"])
        if message.get("reset") is True:
            self._skill.reset()
            return {"reset": True, "counts": dict(self._skill.counts)}
        return self._act(message)

    def _adapt(self, demonstrations: Any) -> dict[str, Any]:
        given = [demonstrations] if isinstance(demonstrations, dict) else demonstrations
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            raise QuickstudyError("'adapt' must hold demonstrations, each {'observations': ..., 'actions': ...}.")
        started = time.perf_counter()
        self._skill = self._robot.adapt(given)
        return {"adapted": len(given), "milliseconds": 1e3 * (time.perf_counter() - started)}

    def _act(self, message: dict[Any, Any]) -> dict[str, Any]:
        observation: Any = next((message[key] for key in _STATES if key in message), message)
        reward, done = message.get("reward", 0.0), message.get("done", False)
        if not isinstance(reward, int | float) or not isinstance(done, bool | np.bool_):
            raise QuickstudyError("'reward' must be a number and 'done' true or false.")
        action = self._skill.act(
            observation,
            stamp=message.get("stamp"),
            sequence=message.get("sequence"),
            reward=float(reward),
            done=bool(done),
        )
        return {"actions": np.tile(action, (self._horizon, 1)), "status": self._skill.status}

    def told(self) -> str:
        counts = self._skill.counts
        return ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "nothing was asked"
