"""Ctrl-C and SIGTERM: a step ends, what it learned is kept, and then the process stops."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM)."""


class Waiting:
    """Signals that came and wait for a good moment."""

    def __init__(self) -> None:
        self._came: list[tuple[Callable[[int, FrameType | None], Any], int]] = []

    def __bool__(self) -> bool:
        return bool(self._came)

    def add(self, handler: Callable[[int, FrameType | None], Any], number: int, frame: FrameType | None) -> None:
        """Note one; the second does not wait."""
        if self._came:
            handler(number, frame)
        self._came.append((handler, number))

    def deliver(self) -> None:
        """Now is the moment: raises what the signal would have raised."""
        for handler, number in self._came[:1]:
            handler(number, None)


@contextmanager
def held_back(wanted: bool = True) -> Iterator[Waiting]:
    """Let signals wait, where Python would raise them in the middle of a step; one that waits is raised at the end.

    Only in the main thread, which alone gets signals, and only those that somebody handles: else SIGTERM ends it.
    """
    waiting, before = Waiting(), {}
    if wanted and threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if callable(handler := signal.getsignal(number)):
                before[number] = handler
                signal.signal(number, partial(waiting.add, handler))
    try:
        yield waiting
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    waiting.deliver()


@contextmanager
def terminable(wanted: bool = True) -> Iterator[None]:
    """Let SIGTERM raise :class:`Terminated`, so that what is open is closed and what is kept is told."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if not wanted or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
