"""How many pages a captcha is good for: what a session has learnt of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Allowance:
    """What is known of how many pages a captcha of one session is good for.

    Each request that is in flight when a captcha comes up is made in vain, so it is worth to know.

    :param solved: the number, in the crawl, of the session's last solve
    :param pages: that came since without a captcha
    :param good_for: pages that came between the two last captchas; None if that is not known, or
        has proved wrong
    """

    solved: int = 0
    pages: int = 0
    good_for: int | None = None

    def is_used_up(self, in_flight: int) -> bool:
        """Whether one more request, with so many in flight, is likely to meet a captcha."""
        return self.good_for is not None and self.pages + in_flight >= self.good_for

    def page_came(self, *, alone: bool) -> None:
        """A page came without a captcha.

        :param alone: its request went alone, in case it met a captcha
        """
        if alone and self.is_used_up(0):
            self.good_for = None
        self.pages += 1

    def solve(self, number: int) -> None:
        """The session's captcha was solved."""
        self.good_for = self.pages or None
        self.solved, self.pages = number, 0
