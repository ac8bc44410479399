"""The robot's end of the wire: a loop that always has an action in time, and a watchdog for the motors' side.

`Remote` asks a server for actions and never waits longer than it may: where an answer is late, lost, damaged or the
server gone, it gives the action of rest. `Watchdog` stands before the motors: where no command came in time, because
the whole control program died, it gives the action of rest.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from quickstudy_runtime.errors import InputError, QuickstudyError
from quickstudy_runtime.messages import MOST_BYTES, pack, unpack


class Remote:
    """Asks a server for actions, one observation at a time, in the background.

    Args:
        address: such as 'ws://127.0.0.1:8000'.
        rest: [act], what keeps the robot where it is; NaN for a channel that keeps its last value.
        deadline: seconds after which an observation's answer is no longer waited for.
        token: of the server, where it wants one.

    Attributes:
        counts: 'acted'; 'late', 'lost' (the connection), 'refused' (by the server) answers, each of which rested.

    Raises:
        QuickstudyError: nobody answers there.
    """

    def __init__(self, address: str, rest: Any, deadline: float = 0.08, token: str | None = None) -> None:
        self._address, self._token, self._deadline = address, token, deadline
        self._rest, self._last = np.asarray(rest, float), np.zeros(len(rest))
        self.counts: Counter[str] = Counter()
        self._sequence = 0
        self._connection: ClientConnection | None = None
        self._opening: threading.Thread | None = None
        self.about = self._open()

    def _open(self) -> dict[str, Any]:
        headers = {"Authorization": f"Api-Key {self._token}"} if self._token else None
        try:
            self._connection = connect(
                self._address, compression=None, max_size=MOST_BYTES, additional_headers=headers, open_timeout=2
            )
            about = _unpacked(self._connection.recv(timeout=2))
        except (OSError, WebSocketException, TimeoutError, InputError) as error:
            self._connection = None
            raise QuickstudyError(
                f"No server of quickstudy answers at {self._address} ({type(error).__name__})."
            ) from None
        if not isinstance(about, dict) or not isinstance(about.get("action"), list):
            self.close()
            raise QuickstudyError(f"What answers at {self._address} is not a server of quickstudy.")
        if len(about["action"]) != len(self._rest):
            self.close()
            raise QuickstudyError(
                f"The server's actions have {len(about['action'])} channels; rest has {len(self._rest)}."
            )
        return about

    def act(self, observation: dict[str, Any]) -> np.ndarray:
        """The action [act] for an observation, or that of rest where none came within the deadline."""
        self._sequence += 1
        reason = "lost"
        if self._connection is not None:
            try:
                until = time.monotonic() + self._deadline
                self._connection.send(pack({**observation, "sequence": self._sequence, "stamp": time.time()}))
                answer = self._connection.recv(timeout=max(until - time.monotonic(), 0.0))
                action = _action(answer, len(self._rest))
                self._last = action
                self.counts["acted"] += 1
                return action.copy()
            except TimeoutError:
                reason = "late"  # its answer would be taken for the next one's: the connection starts anew
                self._again()
            except InputError:
                reason = "refused"
            except (WebSocketException, OSError):
                self._again()
        else:
            self._again()
        self.counts[reason] += 1
        return np.where(np.isnan(self._rest), self._last, self._rest)

    def adapt(self, demonstrations: list[dict[str, Any]], timeout: float = 60.0) -> dict[str, Any]:
        """Has the server learn a task from demonstrations; the robot is at rest meanwhile.

        Raises:
            QuickstudyError: the server cannot use them, or is gone.
        """
        if self._connection is None:
            raise QuickstudyError("The connection to the server is lost.")
        try:
            self._connection.send(pack({"adapt": demonstrations}))
            answer = self._connection.recv(timeout=timeout)
        except (WebSocketException, OSError, TimeoutError) as error:
            raise QuickstudyError(f"The server did not answer ({type(error).__name__}).") from None
        return dict(_unpacked(answer))

    def _again(self) -> None:
        """Opens a new connection in the background; until it stands, the robot rests."""
        connection, self._connection = self._connection, None
        if self._opening is not None and self._opening.is_alive():
            return

        def reopen() -> None:
            if connection is not None:
                connection.close_socket()
            try:
                self._open()
            except QuickstudyError:
                time.sleep(0.2)

        self._opening = threading.Thread(target=reopen, daemon=True)
        self._opening.start()

    def close(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Watchdog:
    """The last command while it is fresh, and the action of rest once it is not.

    Args:
        rest: as in `Remote`.
        timeout: seconds for which a command holds.
    """

    def __init__(self, rest: Any, timeout: float = 0.1, clock: Callable[[], float] = time.monotonic) -> None:
        self._rest, self._timeout, self._clock = np.asarray(rest, float), timeout, clock
        self._command, self._when = np.zeros(len(self._rest)), -math.inf
        self.expired = 0

    def feed(self, command: Any) -> None:
        """A new command [act]; one that is not finite, or of another width, is as good as none."""
        values = np.asarray(command, float)
        if values.shape == self._rest.shape and np.isfinite(values).all():
            self._command, self._when = values, self._clock()

    def command(self) -> np.ndarray:
        """What the motors get now, [act]."""
        if self._clock() - self._when <= self._timeout:
            return self._command.copy()
        self.expired += 1
        return np.where(np.isnan(self._rest), self._command, self._rest)


def _unpacked(answer: str | bytes) -> Any:
    """A server's answer; a text says what is wrong."""
    if isinstance(answer, str):
        raise InputError(answer)
    return unpack(answer)


def _action(answer: str | bytes, width: int) -> np.ndarray:
    found = _unpacked(answer)
    actions = found.get("actions") if isinstance(found, dict) else None
    if not isinstance(actions, np.ndarray) or actions.ndim != 2 or actions.shape[1] != width or not len(actions):
        raise InputError("The server's answer holds no actions.")
    if not np.isfinite(actions).all():
        raise InputError("The server's actions are not finite.")
    return actions[0].astype(float)
