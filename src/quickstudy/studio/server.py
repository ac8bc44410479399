"""The studio as a whole: a guarded server, and a tab for everybody who opens its page."""

import ctypes
import gc
import logging
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from quickstudy.errors import one_line
from quickstudy.studio.guard import serve
from quickstudy.studio.learning import Choice
from quickstudy.studio.page import Tab
from quickstudy.studio.session import Session
from quickstudy.studio.words import Language, say

MOST_TABS = 8
"""Pages that may be open at once: each steps its own physics."""
_log = logging.getLogger(__name__)


def _give_back() -> None:
    """Lets the system have the memory of a tab that is gone: the C library keeps what each of its threads freed."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class Studio:
    """Serves until it is closed.

    Args:
        choices: the learners that there are.
        folder: where files are saved and uploads go.
        host, port, token: see `quickstudy.studio.guard.serve`.
        language, dark: of a page that was just opened.
        seed: of its tasks, for tests and measurements.

    Attributes:
        address: to open in a browser, with the token where there is one.
        tabs: by viser's number of the client.
    """

    def __init__(
        self,
        choices: Sequence[Choice],
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        token: str = "",
        language: Language = "en",
        dark: bool = False,
        seed: int | None = None,
    ) -> None:
        self.tabs: dict[int, Tab] = {}
        self._lock = threading.Lock()
        self._choices, self._folder, self._language, self._dark, self._seed = choices, folder, language, dark, seed
        Session(choices, seed).close()  # what the first one loads in seconds is there before anybody waits for it
        # A tab notices with its next picture that its visitor is gone.
        warnings.filterwarnings("ignore", message="Queued a .* on a closed connection")
        self._server, self.address = serve(host, port, token)
        self._server.on_client_connect(self._open)
        self._server.on_client_disconnect(self._leave)

    def _open(self, client: Any) -> None:
        with self._lock:
            if len(self.tabs) >= MOST_TABS:
                client.gui.add_markdown(say(self._language, "too_many", most=MOST_TABS))
                return
            try:
                self.tabs[client.client_id] = Tab(
                    client, self._server.get_clients, self._choices, self._folder, self._language, self._dark,
                    self._seed,
                )  # fmt: skip
            except Exception as error:  # else the visitor would look at an empty page
                _log.exception("A page of the studio could not be made.")
                client.gui.add_markdown(say(self._language, "failure", said=one_line(error)))
                return
        if client.client_id not in self._server.get_clients():  # it left before it was there
            self._leave(client)

    def _leave(self, client: Any) -> None:
        with self._lock:
            tab = self.tabs.pop(client.client_id, None)
        if tab is not None:
            tab.close()
            del tab
            _give_back()

    def close(self) -> None:
        """Ends every tab and the server."""
        with self._lock:
            tabs, self.tabs = list(self.tabs.values()), {}
        for tab in tabs:
            tab.close()
        self._server.stop()
