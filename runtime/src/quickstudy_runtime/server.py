"""Answers over WebSocket with the actions of a skill; each connection is a robot with a skill of its own.

The protocol is that of openpi's policy clients: the server says who it is, then answers every message, a dict, with a
dict, or with a text where it could not. What a message may hold:

    an observation   {'observation': [obs]} or named channels; perhaps 'stamp' (seconds) and 'sequence' (a number that
                     rises) -> {'actions': [horizon, act], 'status': '' or why the robot is held}
    {'adapt': [{'observations': [step, obs], 'actions': [step, act]}, ...]} -> {'adapted': how many, 'milliseconds': t}
    {'reset': True}  a new episode, perhaps with 'last' (the action that the robot was told before)
                     -> {'reset': True, 'counts': {...}}
"""

import contextlib
import hmac
import http
import logging
import threading
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
_MOST_CONNECTIONS, _MOST_HORIZON = 32, 1000
_LOGGER = logging.getLogger(__name__)
_LOGGER.addHandler(logging.NullHandler())
_LOGGER.propagate = False
"""What the library of the wire would print, tracebacks of port scanners included; `say` tells what a person needs."""
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
        horizon: actions in an answer, for slow links. A skill that changes while it acts goes on through them on the
            same observation; of any other, or where a guard slows it, it is the same action throughout.
        say: told of connections that come and go.

    Raises:
        QuickstudyError: another address without a token, a horizon below 1, or a demonstration that cannot be used.
    """
    if host not in LOCAL and not token:
        raise QuickstudyError(f"Listening on {host} lets others move the robot; it needs a token (--token).")
    if not 1 <= horizon <= _MOST_HORIZON:
        raise QuickstudyError(
            f"An answer needs at least 1 action, at most {_MOST_HORIZON}; got a horizon of {horizon}."
        )
    taught = robot.adapt(demonstrations) if demonstrations else robot.begin()
    about = {
        "quickstudy": 1, "method": robot.bundle.method, "family": robot.bundle.family, "rate": robot.bundle.rate,
        "observation": list(robot.bundle.observation.names), "action": list(robot.bundle.action.names),
        "horizon": horizon, "hash": robot.bundle.hash,
    }  # fmt: skip
    lock, open_connections = threading.Lock(), 0

    def allowed(connection: ServerConnection, request: Any) -> Any:
        if token is not None:
            given = request.headers.get("Authorization", "").encode(errors="replace")
            sent = given.removeprefix(b"Api-Key ").removeprefix(b"Bearer ")
            if not hmac.compare_digest(sent, token.encode(errors="replace")):
                return connection.respond(http.HTTPStatus.UNAUTHORIZED, "The token is missing or wrong.\n")
        if request.headers.get("Origin") is not None:  # a web page must not drive a robot behind its visitor's back
            return connection.respond(http.HTTPStatus.FORBIDDEN, "Web pages may not connect.\n")
        if open_connections >= _MOST_CONNECTIONS:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections.\n")
        return None

    def handle(connection: ServerConnection) -> None:
        nonlocal open_connections
        with lock:
            open_connections += 1
        session, whose = _Session(robot, taught, horizon), connection.remote_address
        _tell(say, f"connected: {whose}")
        try:
            connection.send(pack(about))
            for message in connection:
                connection.send(session.answer(message))
        except ConnectionClosed:
            pass
        finally:
            with lock:
                open_connections -= 1
            _tell(say, f"disconnected: {whose}, {session.told()}")

    try:
        return serve(
            handle, host, port, process_request=allowed, max_size=MOST_BYTES, compression=None, open_timeout=10,
            logger=_LOGGER,
        )  # fmt: skip
    except (OSError, OverflowError) as error:
        raise QuickstudyError(
            f"Cannot listen on {host}:{port} ({getattr(error, 'strerror', None) or error})."
        ) from error


def _tell(say: Callable[[str], None], sentence: str) -> None:
    """A closed terminal must not end a robot's connection."""
    with contextlib.suppress(OSError, ValueError):
        say(sentence)


class _Session:
    """One connection: its skill, and the answers to its messages."""

    def __init__(self, robot: Robot, taught: Skill, horizon: int) -> None:
        self._robot, self._horizon = robot, horizon
        self._skill = taught.copy()
        self._states = [key for key in _STATES if key not in robot.bundle.observation.names]
        slowed = robot.guard is not None and (robot.guard.slew is not None or robot.guard.max_rate is not None)
        self._through = horizon if robot.bundle.changes and not slowed else 1

    def answer(self, message: str | bytes) -> str | bytes:
        """Bytes with an answer, or a text with what is wrong; nothing a client sends ends the server."""
        try:
            if isinstance(message, str):
                raise QuickstudyError("A message must be msgpack in a binary frame; got a text.")
            return pack(self._answer(unpack(message)))
        except QuickstudyError as fault:
            return str(fault)
        except Exception as error:
            return f"The server failed on this message ({type(error).__name__}); nothing was done."

    def _answer(self, message: Any) -> dict[str, Any]:
        if not isinstance(message, dict):
            raise QuickstudyError(f"A message must be a dict; got {type(message).__name__}.")
        if "adapt" in message:
            return self._adapt(message["adapt"])
        if message.get("reset") is True:
            self._skill.reset(message.get("last"))
            return {"reset": True, "counts": dict(self._skill.counts)}
        return self._act(message)

    def _adapt(self, demonstrations: Any) -> dict[str, Any]:
        given = [demonstrations] if isinstance(demonstrations, dict) else demonstrations
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            raise QuickstudyError("'adapt' must hold demonstrations, each {'observations': ..., 'actions': ...}.")
        started = time.perf_counter()
        counts = self._skill.counts
        self._skill = self._robot.adapt(given)
        self._skill.counts.update(counts)
        return {"adapted": len(given), "milliseconds": 1e3 * (time.perf_counter() - started)}

    def _act(self, message: dict[Any, Any]) -> dict[str, Any]:
        observation: Any = next((message[key] for key in self._states if key in message), message)
        given = {"reward": message.get("reward", 0.0), "done": message.get("done", False)}
        first = self._skill.act(observation, stamp=message.get("stamp"), sequence=message.get("sequence"), **given)
        answer: dict[str, Any] = {"status": self._skill.status}
        actions = [first]
        if not answer["status"]:
            actions += [self._skill.act(observation, **given) for _ in range(1, self._through)]
        rows = np.stack(actions)
        answer["actions"] = rows if len(rows) == self._horizon else np.repeat(rows[:1], self._horizon, 0)
        return answer

    def told(self) -> str:
        counts = self._skill.counts
        return ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "nothing was asked"
