"""What the report counts."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable

from scrapy_acecaptcha.recognition.journal_file import OUTCOMES, Call, FreeReadings

# Calls that may have been charged though they brought no text, None: cut off by a crash.
_PERHAPS_CHARGED = frozenset({"timeout", "connection_error", "bad_response", None})


class Tally:
    """What is counted, for a host or for everything."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.seconds = array("d")  # of the calls that brought a text
        self.saved = 0  # answers that were accepted and that nobody was paid for

    def add(self, call: Call) -> None:
        self.outcomes[call.outcome] += 1
        if call.code == "ok" and call.seconds is not None:
            self.seconds.append(call.seconds)

    @property
    def calls(self) -> int:
        return sum(self.outcomes.values())

    @property
    def judged(self) -> int:
        """Answers that the site accepted or rejected."""
        return self.outcomes["accepted"] + self.outcomes["rejected"]

    @property
    def share_accepted(self) -> float | None:
        return self.outcomes["accepted"] / self.judged if self.judged else None

    @property
    def solved(self) -> int:
        return self.outcomes["accepted"] + self.saved

    @property
    def calls_per_solved(self) -> float | None:
        return self.calls / self.solved if self.solved else None

    def latencies(self, *shares: float) -> list[float | None]:
        """The latencies, in seconds, that these shares of the calls did not exceed."""
        ordered = sorted(self.seconds)
        if not ordered:
            return [None] * len(shares)
        return [ordered[max(0, math.ceil(share * len(ordered)) - 1)] for share in shares]


class Figures(Tally):
    """Everything that the upper half of the page tells."""

    def __init__(self, calls: Iterable[Call], free: Iterable[FreeReadings]) -> None:
        super().__init__()
        self.hosts: dict[str, Tally] = {}
        self.errors: Counter[str] = Counter()
        self.charged = self.perhaps_charged = 0
        self.by_journal = self.by_local_reader = self.refused_local = 0
        self.times = array("d")
        self.kinds = array("b")  # index of the outcome of each call in OUTCOMES
        for call in calls:
            self.add(call)
        for readings in free:
            self._add_free(readings)

    def add(self, call: Call) -> None:
        super().add(call)
        self.hosts.setdefault(call.host, Tally()).add(call)
        self.times.append(call.time)
        self.kinds.append(OUTCOMES.index(call.outcome))
        if call.outcome == "error":
            self.errors[call.code or "cut off"] += 1
        self.charged += call.code == "ok"
        # The text of a task is charged when it is fetched, and then it is here.
        self.perhaps_charged += call.code in _PERHAPS_CHARGED and not call.task_id

    def _add_free(self, readings: FreeReadings) -> None:
        number = readings.number
        if readings.source == "local" and readings.outcome == "rejected":
            self.refused_local += number
        if readings.source == "compared" or readings.outcome != "accepted":
            return
        self.saved += number
        self.hosts.setdefault(readings.host, Tally()).saved += number
        if readings.source == "local":
            self.by_local_reader += number
        else:
            self.by_journal += number
