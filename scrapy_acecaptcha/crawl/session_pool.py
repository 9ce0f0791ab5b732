"""The sessions that a rule has side by side, by their names. No I/O.

A session is a name in ``request.meta["cookiejar"]``. It tells the place in the pool, and how many
sessions have stood there: the name of a session that was dropped, or that an earlier run of the
crawl made, still leads to the one that stands in its place now.
"""

from __future__ import annotations

from collections import OrderedDict


class SessionPool:
    """Makes the sessions of a rule, and replaces those in which answers are refused.

    :param host: what the names begin with: the rule's key, or the site of a request's own rule
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self._prefix = f"acecaptcha:{host}:"
        self._runs: list[int] = []  # by place: sessions that have stood there
        # Live names, those longest not used first -> whether they have been used.
        self._live: OrderedDict[str, bool] = OrderedDict()

    def grow(self, size: int) -> None:
        """Have *size* sessions at least."""
        known = len(self._runs)
        self._runs += [1] * (size - known)
        for place in reversed(range(known, size)):
            self._add(place)

    @property
    def names(self) -> list[str]:
        """The names of its sessions, those that have longest not been used first."""
        return list(self._live)

    def use(self, name: object) -> bool:
        """Note that a request goes to *name*; True if it is the session's first."""
        if not isinstance(name, str) or name not in self._live:
            return False
        is_first = not self._live[name]
        self._live[name] = True
        self._live.move_to_end(name)
        return is_first

    def live(self, name: object) -> str | None:
        """The session that *name* stands for by now; None if it is no name of this pool's."""
        place = self._place(name)
        # The pool may have been larger when the name was made.
        return None if place is None else self._name(place % len(self._runs))

    def drop(self, name: object) -> bool:
        """Have a fresh session in the place of *name*; False if *name* is not a live one."""
        place = self._place(name)
        if not isinstance(name, str) or place is None or name not in self._live:
            return False
        del self._live[name]
        self._runs[place] += 1
        self._add(place)
        return True

    def _add(self, place: int) -> None:
        self._live[self._name(place)] = False
        self._live.move_to_end(self._name(place), last=False)

    def _name(self, place: int) -> str:
        return f"{self._prefix}{place + 1}.{self._runs[place]}"

    def _place(self, name: object) -> int | None:
        if not isinstance(name, str) or not name.startswith(self._prefix):
            return None
        place, _, run = name[len(self._prefix) :].partition(".")
        return int(place) - 1 if _is_count(place) and _is_count(run) else None


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0
