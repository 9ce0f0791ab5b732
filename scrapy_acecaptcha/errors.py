"""Everything that this package raises.

::

    AceCaptchaError
    ├── SettingsError (ValueError)      a setting or argument that cannot work
    │   ├── TokenMissing                no API token
    │   └── RuleError                   a rule that cannot work; names host and field
    ├── CaptchaError                    a captcha on a page
    │   ├── CaptchaNotFound             no element matched, or the page went away
    │   ├── CaptchaImageError           no image, not an image, too large, not to be downloaded
    │   ├── CaptchaFormError            a form that cannot or must not be submitted
    │   └── CaptchaUnsolved             every attempt was refused
    ├── BudgetExhausted                 the budget is used up
    ├── JournalError                    the journal cannot be written or read
    ├── CrawlStopped                    the crawl is stopping
    └── ApiError                        the recognition API said no, or nothing; has .code
        ├── ApiAuthError                invalid_token, token_expired, token_mismatched, no_token
        ├── ApiBalanceError             used_up, disabled
        ├── ApiRateLimited              too_many_requests
        ├── ApiTimeout                  timeout, or no answer in time
        ├── ApiConnectionError          connection refused, reset, not resolved
        ├── ApiServerError              api_error and any other 5xx
        └── ApiRequestError             bad_request, forbidden, no_api, api_not_implemented
"""

from __future__ import annotations

from typing import Any


class AceCaptchaError(Exception):
    """Base of all errors of this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class SettingsError(AceCaptchaError, ValueError):
    """A setting or an argument that cannot work. The message says how to mend it."""


class TokenMissing(SettingsError):
    """There is no API token, neither in the settings nor in the environment."""


class RuleError(SettingsError):
    """A rule that cannot work.

    :param message: what is wrong and how to mend it
    :param field: the rule's field at fault, if one is
    :param host: the key of ACECAPTCHA_RULES, or the URL of the page, where it went wrong
    """

    def __init__(self, message: str, *, field: str | None = None, host: str | None = None) -> None:
        self.message = message
        self.field = field
        self.host = host
        place = ", ".join(
            part
            for part in (f"rule for {host}" if host else "", field and f"field {field!r}")
            if part
        )
        super().__init__(f"{place}: {message}" if place else message)


class CaptchaError(AceCaptchaError):
    """A captcha on a page could not be dealt with.

    :param message: what happened
    :param url: the page
    :param selector: the selector that was looked for
    """

    def __init__(self, message: str, *, url: str = "", selector: str = "") -> None:
        self.url = url
        self.selector = selector
        where = f" (page {url}" + (f", selector {selector!r})" if selector else ")") if url else ""
        super().__init__(f"{message}{where}")


class CaptchaNotFound(CaptchaError):
    """The captcha's element did not appear, or the page went away before it was solved."""


class CaptchaImageError(CaptchaError):
    """There is no image to read: it is missing, not an image, too large, or must not be downloaded.

    Nothing was sent to the recognition API.
    """


class CaptchaFormError(CaptchaError):
    """The form cannot be submitted, or submitting it would send the answer where it must not go."""


class CaptchaUnsolved(CaptchaError):
    """Every attempt that the rule allows was refused.

    :param attempts: number of answers that were submitted
    :param retry: whether the request may be tried anew
    """

    def __init__(
        self,
        message: str,
        *,
        attempts: int = 0,
        url: str = "",
        selector: str = "",
        retry: bool = True,
    ) -> None:
        self.attempts = attempts
        self.retry = retry
        super().__init__(message, url=url, selector=selector)


class BudgetExhausted(AceCaptchaError):
    """As many API calls were sent as the budget allows."""


class JournalError(AceCaptchaError):
    """The journal cannot be written or read, so that no call may be sent."""


class CrawlStopped(AceCaptchaError):
    """The crawl is stopping, so that its Solver reads nothing any more.

    A callback may yield its request again: with a JOBDIR it is made when the crawl goes on.
    """


class ApiError(AceCaptchaError):
    """The recognition API answered with an error, or did not answer.

    Codes are those of Ace Data Cloud's documentation; ``connection_error`` and ``bad_response``
    are ours, for a call that got no reply and for a reply that makes no sense.

    :param message: the API's own message, or what happened
    :param code: the API's error code; it decides before the HTTP status does
    :param status: HTTP status, None if there was no reply
    :param trace_id: what Ace Data Cloud's support asks for
    """

    retryable = False
    hint = ""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int | None = None,
        trace_id: str | None = None,
    ) -> None:
        self.code = code
        self.status = status
        self.message = message
        self.trace_id = trace_id
        self.retry_after: str | None = None
        facts = [f"HTTP {status}" if status else "", f"trace_id {trace_id}" if trace_id else ""]
        tail = ", ".join(fact for fact in facts if fact)
        hint = f". {self.hint}" if self.hint else ""
        super().__init__(f"{code}: {message}" + (f" ({tail})" if tail else "") + hint)


class ApiAuthError(ApiError):
    """The token is missing, unknown, expired or meant for another service."""

    hint = (
        "Set the environment variable ACEDATACLOUD_API_TOKEN (in a crawl, ACECAPTCHA_TOKEN does as "
        "well) to a token from https://platform.acedata.cloud that may call captcha/recognition"
    )


class ApiBalanceError(ApiError):
    """The account has no balance left, or was disabled."""

    hint = "Top up the account at https://platform.acedata.cloud"


class ApiRateLimited(ApiError):
    """Too many calls at a time, past all retries."""

    retryable = True
    hint = "Lower the client's `concurrency`, which is ACECAPTCHA_CONCURRENCY in a crawl"


class ApiTimeout(ApiError):
    """No answer in time. The call may have been charged, so it counts against the budget."""

    retryable = True


class ApiConnectionError(ApiError):
    """The API could not be reached, or the connection broke."""

    retryable = True


class ApiServerError(ApiError):
    """The API failed."""

    retryable = True


class ApiRequestError(ApiError):
    """The API refused this very request; the same request would be refused again."""


def _rebuild(cls: type[Exception], args: tuple[Any, ...], state: dict[str, Any]) -> Exception:
    """Unpickle an error whose message was made from keyword arguments."""
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error
