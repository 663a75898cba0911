"""Ctrl-C and SIGTERM: a step ends, what it learned is kept, and then the process stops."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM)."""


@contextmanager
def held_back(wanted: bool = True) -> Iterator[list[int]]:
    """Let signals wait in the list that this gives, where Python would raise them in the middle of a step.

    The first is raised at the end, a second at once. Only in the main thread, which alone gets signals, and only those
    that somebody handles: else SIGTERM ends it.
    """
    waiting, before = list[int](), dict[int, Any]()

    def wait(number: int, frame: FrameType | None) -> None:
        if waiting:
            before[number](number, frame)
        waiting.append(number)

    if wanted and threading.current_thread() is threading.main_thread():
        before = {n: handler for n in _SIGNALS if callable(handler := signal.getsignal(n))}
        for number in before:
            signal.signal(number, wait)
    try:
        yield waiting
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if waiting:
        before[waiting[0]](waiting[0], None)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM raise :class:`Terminated`, so that what is open is closed and what is kept is told."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
