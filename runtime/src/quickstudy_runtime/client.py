"""The robot's end of the wire: a loop that always has an action in time, and a watchdog for the motors' side.

`Remote` asks a server for actions and never waits longer than it may: where an answer is late, lost, damaged or the
server gone, it gives the action of rest. `Watchdog` stands before the motors: where no command came in time, because
the whole control program died, it gives the action of rest.
"""

import contextlib
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from quickstudy_runtime.errors import InputError, QuickstudyError, shown
from quickstudy_runtime.messages import MOST_BYTES, pack, unpack

_PATIENCE = 1.0
"""Seconds after which a server that has not answered is asked anew, over a new connection."""
_GONE = (WebSocketException, OSError)


class Remote:
    """Asks a server for actions, at a fixed rate.

    An answer may hold the actions of several steps (`serve --horizon`): those are gone through while later answers are
    late, and forgotten at once where the server is gone.

    Args:
        address: such as 'ws://127.0.0.1:8000'.
        rest: [act], what keeps the robot where it is; NaN for a channel that keeps its last value.
        deadline: seconds that `act` waits for an answer.
        token: of the server, where it wants one.
        last: [act], what the robot was told before; needed where `rest` has a NaN.

    Attributes:
        about: what the server said it is.
        counts: 'acted'; 'held' (by the server), 'late', 'lost' (the connection), 'refused' (by the server), each of
            which rested; 'ahead', how many of those that acted were of an earlier answer.
        status: why the last `act` rested, '' where it acted.

    Raises:
        QuickstudyError: nobody answers there, or what answers is another robot's.
    """

    def __init__(
        self, address: str, rest: Any, deadline: float = 0.08, token: str | None = None, last: Any = None
    ) -> None:
        self._address, self._token, self._deadline = address, token, deadline
        self._rest, self._last = _at_rest(rest, last)
        self.counts: Counter[str] = Counter()
        self.status = ""
        self.about: dict[str, Any] = {}
        self._demonstrations: list[Any] = []
        self._step, self._opening = 0, threading.Lock()
        self._connection: ClientConnection | None = None
        self._open()

    def act(
        self,
        observation: Any,
        *,
        stamp: float | None = None,
        sequence: int | None = None,
        reward: float = 0.0,
        done: bool = False,
    ) -> np.ndarray:
        """The action [act] for an observation, [obs] or named channels, or that of rest where none came in time.

        Args:
            stamp: when it was measured, in seconds of the system's clock; now, where it is not given.
            sequence: its number, which must rise.
            reward, done: of the step before, for a learner by trial.
        """
        self._step += 1
        reason, self.status = "lost", "the connection to the server is lost"
        connection = self._connection
        if connection is not None:
            named = observation if isinstance(observation, Mapping) else {"observation": np.asarray(observation)}
            message = {**named, "stamp": time.time() if stamp is None else stamp, "reward": reward, "done": done}
            if sequence is not None:
                message["sequence"] = sequence
            try:
                reason, self.status = self._ask(connection, message)
            except _GONE:
                self._leave(connection)
        else:
            self._again()
        ahead = self._step - self._answered
        if reason in ("", "late") and ahead < len(self._actions):
            self.counts["acted"] += 1
            self.counts["ahead"] += ahead > 0
            self.status, self._last = "", self._actions[ahead]
        else:
            self.counts[reason] += 1
            self._last = np.where(np.isnan(self._rest), self._last, self._rest)
        return self._last.copy()

    def _ask(self, connection: ClientConnection, message: Any) -> tuple[str, str]:
        """Sends an observation and takes what answers are there: why there is no action, in a word and a sentence."""
        started = time.monotonic()
        try:
            connection.send(pack(message))
        except (TypeError, ValueError, OverflowError) as error:
            return "refused", f"the observation cannot be sent: {error}"
        self._asked.append((self._step, started))
        try:
            while self._asked:
                answer = connection.recv(timeout=max(started + self._deadline - time.monotonic(), 0.0))
                step, _ = self._asked.popleft()
                self._answered, self._actions = step, np.empty((0, len(self._rest)))
                try:
                    actions, status = _actions(answer, len(self._rest))
                except InputError as error:
                    if step == self._step:
                        return "refused", str(error)
                    continue
                if status and step == self._step:
                    return "held", status
                if not status:
                    self._actions = actions
        except TimeoutError:
            if self._asked and time.monotonic() - self._asked[0][1] > _PATIENCE:
                self._leave(connection)
            return "late", f"the server did not answer within {self._deadline:g} s"
        return "", ""

    def adapt(self, demonstrations: Sequence[Mapping[str, Any]], timeout: float = 60.0) -> dict[str, Any]:
        """Has the server learn a task from demonstrations; the robot is at rest meanwhile.

        They are kept and sent again where the connection has to be made anew.

        Raises:
            QuickstudyError: the server cannot use them, or is gone.
        """
        answer = self._request({"adapt": list(demonstrations)}, timeout)
        self._demonstrations = list(demonstrations)
        return answer

    def reset(self, timeout: float = 5.0) -> dict[str, Any]:
        """A new episode; gives what the server counted.

        Raises:
            QuickstudyError: the server is gone.
        """
        return self._request({"reset": True, "last": self._last}, timeout)

    def _request(self, message: dict[str, Any], timeout: float) -> dict[str, Any]:
        connection = self._connection
        if connection is None:
            self._again()
            raise QuickstudyError("The connection to the server is lost.")
        until = time.monotonic() + timeout
        try:
            connection.send(pack(message))
            for _ in range(len(self._asked) + 1):
                answer = connection.recv(timeout=max(until - time.monotonic(), 0.0))
        except (*_GONE, TimeoutError) as error:
            self._leave(connection)
            raise QuickstudyError(f"The server did not answer ({type(error).__name__}).") from None
        self._forget()
        return _dict(answer)

    def _open(self) -> None:
        headers = {"Authorization": f"Api-Key {self._token}"} if self._token else None
        try:
            connection = connect(
                self._address, compression=None, max_size=MOST_BYTES, additional_headers=headers, open_timeout=2
            )
        except (*_GONE, TimeoutError, ValueError) as error:
            raise QuickstudyError(f"No server answers at {shown(self._address)} ({type(error).__name__}).") from None
        try:
            about = _dict(connection.recv(timeout=2))
            self._check(about)
            if self._demonstrations:
                connection.send(pack({"adapt": self._demonstrations}))
                _dict(connection.recv(timeout=60))
        except (*_GONE, TimeoutError, QuickstudyError) as error:
            connection.close_socket()
            if isinstance(error, QuickstudyError):
                raise
            raise QuickstudyError(
                f"What answers at {shown(self._address)} is no server of quickstudy ({type(error).__name__})."
            ) from None
        self.about = about
        self._forget()
        self._connection = connection

    def _check(self, about: dict[str, Any]) -> None:
        names = about.get("action")
        if not isinstance(names, list):
            raise QuickstudyError(f"What answers at {shown(self._address)} is no server of quickstudy.")
        if len(names) != len(self._rest):
            raise QuickstudyError(f"The server's actions have {len(names)} channels; rest has {len(self._rest)}.")
        if self.about and about.get("hash") != self.about.get("hash"):
            raise QuickstudyError("The server came back with another learner.")

    def _forget(self) -> None:
        """What was asked and answered, of one connection or episode."""
        self._asked: deque[tuple[int, float]] = deque()
        self._answered, self._actions = 0, np.empty((0, len(self._rest)))

    def _leave(self, connection: ClientConnection) -> None:
        self._connection = None
        self._forget()
        self._again(connection)

    def _again(self, left: ClientConnection | None = None) -> None:
        """Opens a new connection in the background; until it stands, the robot rests."""

        def reopen() -> None:
            if left is not None:
                left.close_socket()
            if self._opening.acquire(blocking=False):
                try:
                    if self._connection is None:
                        self._open()
                except QuickstudyError as error:
                    self.status = str(error)
                    time.sleep(0.2)
                finally:
                    self._opening.release()

        if left is not None or not self._opening.locked():
            threading.Thread(target=reopen, daemon=True).start()

    def close(self) -> None:
        """Ends the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*_GONE):
                connection.close()


class Watchdog:
    """The last command while it is fresh, and the action of rest once it is not.

    Args:
        rest: [act], what keeps the robot where it is; NaN for a channel that keeps its last value.
        timeout: seconds for which a command holds.
        last: [act], what the robot was told before; needed where `rest` has a NaN.

    Attributes:
        expired: how often `command` gave the action of rest.
    """

    def __init__(
        self, rest: Any, timeout: float = 0.06, clock: Callable[[], float] = time.monotonic, last: Any = None
    ) -> None:
        self._rest, self._command = _at_rest(rest, last)
        self._timeout, self._clock, self._when = timeout, clock, -math.inf
        self.expired = 0

    def feed(self, command: Any) -> None:
        """A new command [act]; one that is not finite, or of another width, is as good as none."""
        try:
            values = np.asarray(command, float)
        except (ValueError, TypeError):
            return
        if values.shape == self._rest.shape and np.isfinite(values).all():
            self._command, self._when = values.copy(), self._clock()

    def command(self) -> np.ndarray:
        """What the motors get now, [act]."""
        if self._clock() - self._when <= self._timeout:
            return self._command.copy()
        self.expired += 1
        return np.where(np.isnan(self._rest), self._command, self._rest)


def _at_rest(rest: Any, last: Any) -> tuple[np.ndarray, np.ndarray]:
    """The action of rest and the last one, [act] each."""
    try:
        kept = np.array(rest, float)
        before = np.where(np.isnan(kept), math.nan, kept) if last is None else np.array(last, float)
    except (ValueError, TypeError):
        raise InputError(f"rest and last must be numbers; got {shown(rest)} and {shown(last)}.") from None
    if kept.ndim != 1 or before.shape != kept.shape or np.isinf(kept).any():
        raise InputError(f"rest and last must be an action each; got {shown(rest)} and {shown(last)}.")
    if not np.isfinite(before).all():
        raise InputError("A channel of rest keeps its last value; say what the robot was told before: last=[...].")
    return kept, before


def _dict(answer: str | bytes) -> dict[str, Any]:
    """A server's answer; a text says what is wrong."""
    if isinstance(answer, str):
        raise QuickstudyError(answer)
    found = unpack(answer)
    if not isinstance(found, dict):
        raise InputError("The server's answer is no dict.")
    return found


def _actions(answer: str | bytes, width: int) -> tuple[np.ndarray, str]:
    """The actions [step, act] of an answer, and why they hold the robot."""
    if isinstance(answer, str):
        raise InputError(answer)
    found = _dict(answer)
    actions = found.get("actions")
    if not isinstance(actions, np.ndarray) or actions.ndim != 2 or actions.shape[1] != width or not len(actions):
        raise InputError("The server's answer holds no actions.")
    if not np.isfinite(actions).all():
        raise InputError("The server's actions are not finite.")
    return actions.astype(float), str(found.get("status", ""))
