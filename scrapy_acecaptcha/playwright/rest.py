"""When to believe what is seen: an image that is drawn to the end, a page that is built."""

from __future__ import annotations

import time

from scrapy_acecaptcha.playwright.observer import Look, Observer

AT_REST_SECONDS = 1.0  # a page that has not changed for so long has been built by its scripts
BUILDING_SECONDS = 3.0  # nobody waits longer for a spinner, or for the image that a field is about
STILL_SECONDS = 0.1  # an image that has not changed for so long is drawn to the end
DRAWN_SECONDS = 0.4  # the same for one that a script draws, stroke by stroke
RESTLESS_SECONDS = 2.0  # an image that changes for longer never stops


class Stillness:
    """How long an image has been there, and unchanged."""

    def __init__(self) -> None:
        self._ready_since = self._still_since = time.monotonic()

    def see(self, look: Look, last: Look | None) -> None:
        """Note what stands on the page now, and what stood there before."""
        if last is not None and look.shows_other_image_than(last):
            self._still_since = time.monotonic()

    @property
    def is_restless(self) -> bool:
        """Whether the image never stops changing."""
        return time.monotonic() - self._ready_since > RESTLESS_SECONDS

    def is_reached(self, look: Look, observer: Observer) -> bool:
        """Whether the image can be taken: a placeholder stands while its page loads something."""
        if self.is_restless or (look.is_static and look.loaded):
            return True
        assert look.image is not None
        needed = DRAWN_SECONDS if look.image.is_drawn_by_script else STILL_SECONDS
        return time.monotonic() - self._still_since >= needed and not observer.is_busy


class Rest:
    """How long a page has been unchanged, with nothing under way that may change it."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._began = self._calm_since = time.monotonic()
        self._last: Look | None = None

    @property
    def is_long(self) -> bool:
        """Whether nobody waits any longer for what may still come."""
        return time.monotonic() - self._began > BUILDING_SECONDS

    def is_reached(self, look: Look | None) -> bool:
        """Whether the page is at rest, as far as it can be seen."""
        now = time.monotonic()
        if look is None or look != self._last or not look.loaded or self._observer.is_busy:
            self._last, self._calm_since = look, now
        if look is None or not look.loaded or self._observer.is_leaving:
            return bool(look and look.success)
        if look.success or self.is_long:
            return True
        if look.is_loading or self._calm_since == now:
            return False
        return look.is_static or now - self._calm_since >= AT_REST_SECONDS
