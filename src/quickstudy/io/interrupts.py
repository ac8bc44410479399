"""Ctrl-C: what is at hand is finished, unless nothing is lost by leaving it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Abandoned(KeyboardInterrupt):
    """The first Ctrl-C came while something was done that nothing is lost by leaving."""


_may_abandon = 0


@contextmanager
def abandonable() -> Iterator[None]:
    """What runs inside changes nothing that counts, so that the first Ctrl-C ends it at once, by `Abandoned`."""
    global _may_abandon
    _may_abandon += 1
    try:
        yield
    finally:
        _may_abandon -= 1


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """The first Ctrl-C asks for a clean stop after the step at hand; a second one interrupts at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def on_interrupt(number: int, frame: Any) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()
        if _may_abandon:
            raise Abandoned

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)
