"""How many images may be read for one request, whatever its site does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scrapy_acecaptcha.errors import CaptchaUnsolved

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.settings import BaseSettings

READ = "_acecaptcha_read"  # request.meta key: images read for it, over retries and refreshes


class ImageLimit:
    """The images that may be read for one request.

    Its count goes with the request where it is retried, and where its page refreshes to.

    :param most: images
    :param requests: the request in its versions: as the spider made it, as redirects have left it
    """

    def __init__(self, most: int, *requests: Request) -> None:
        self._most = most
        self._requests = requests

    def take(self, url: str, selector: str) -> None:
        """Count an image that is to be read.

        :raises CaptchaUnsolved: there may be no more
        """
        read = max(request.meta.get(READ, 0) for request in self._requests)
        if read >= self._most:
            raise CaptchaUnsolved(
                f"The captcha was not solved: {read} images have been read for this request, with "
                "its retries and the pages that it was led to, and the site asks for another one",
                url=url,
                selector=selector,
                retry=False,
            )
        self._note(read + 1)

    def give_back(self) -> None:
        """Do not count the newest image: the page has replaced it before it was answered."""
        self._note(max(request.meta.get(READ, 0) for request in self._requests) - 1)

    def _note(self, read: int) -> None:
        for request in self._requests:
            request.meta[READ] = read


def forget(*requests: Request) -> None:
    """Leave nothing of the count on requests that go back to the spider."""
    for request in requests:
        request.meta.pop(READ, None)


def tries(settings: BaseSettings, request: Request) -> int:
    """How often *request* may be made, retries included."""
    if not settings.getbool("RETRY_ENABLED") or request.meta.get("dont_retry"):
        return 1
    times = request.meta.get("max_retry_times")
    return 1 + (settings.getint("RETRY_TIMES") if times is None else int(times))
