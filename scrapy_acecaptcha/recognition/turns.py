"""Turns: one at a time per browsing session, for threads and event loops alike."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable
from concurrent.futures import Future, InvalidStateError


class Turns:
    """Whoever enters gets a future that is done when it is its turn, and leaves afterwards."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, deque[Future[None]]] = {}  # the first of each has its turn
        self._lock = threading.Lock()

    def enter(self, key: Hashable) -> Future[None]:
        """Queue for *key*; the future is done at once where nobody else is there."""
        turn: Future[None] = Future()
        with self._lock:
            line = self._lines.setdefault(key, deque())
            line.append(turn)
            if len(line) == 1:
                turn.set_result(None)
        return turn

    def leave(self, key: Hashable, turn: Future[None]) -> None:
        """Let the next one go, or leave the queue without having had one's turn."""
        with self._lock:
            line = self._lines[key]
            was_first = line[0] is turn
            line.remove(turn)
            if not line:
                del self._lines[key]
            elif was_first:
                _give(line)


def _give(line: deque[Future[None]]) -> None:
    """Give the turn to the first who still waits; the cancelled leave by themselves."""
    for turn in list(line):
        try:
            turn.set_result(None)
        except InvalidStateError:
            continue
        line.remove(turn)
        line.appendleft(turn)
        return
