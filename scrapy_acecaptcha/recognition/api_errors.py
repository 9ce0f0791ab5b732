"""The API's error codes, as the client takes them and the sandbox sends them.

Source: the error tables in Ace Data Cloud's documentation of captcha/recognition/image2text and
captcha/tasks. Its pages disagree on token_mismatched, so both statuses occur.
"""

from __future__ import annotations

from typing import NamedTuple

from scrapy_acecaptcha.errors import (
    ApiAuthError,
    ApiBalanceError,
    ApiError,
    ApiRateLimited,
    ApiRequestError,
    ApiServerError,
    ApiTimeout,
)


class Documented(NamedTuple):
    """What is known of an error code.

    :param kind: what the client raises
    :param statuses: under which it comes; the same one comes with several codes, so the code
        decides before the status does
    :param message: what the sandbox says
    """

    kind: type[ApiError]
    statuses: tuple[int, ...]
    message: str


ERRORS = {
    "bad_request": Documented(ApiRequestError, (400,), "The request is not valid."),
    "invalid_request": Documented(ApiRequestError, (400,), "The request is not valid."),
    "token_mismatched": Documented(
        ApiAuthError, (400, 401), "The token does not belong to this API."
    ),
    "api_not_implemented": Documented(ApiRequestError, (400,), "The API is not implemented."),
    "no_token": Documented(
        ApiAuthError, (400,), "No token: send the header `authorization: Bearer TOKEN`."
    ),
    "invalid_token": Documented(ApiAuthError, (401,), "The token is not valid."),
    "token_expired": Documented(ApiAuthError, (401,), "The token has expired."),
    "used_up": Documented(ApiBalanceError, (403,), "The balance is used up."),
    "disabled": Documented(ApiBalanceError, (403,), "The account has been disabled."),
    "forbidden": Documented(ApiRequestError, (403,), "The request is forbidden."),
    "no_api": Documented(ApiRequestError, (404,), "There is no API at this address."),
    "not_found": Documented(ApiRequestError, (404,), "There is no such thing."),
    "too_many_requests": Documented(ApiRateLimited, (429,), "Too many requests."),
    "api_error": Documented(ApiServerError, (500,), "The server failed."),
    "timeout": Documented(ApiTimeout, (504,), "The recognition took too long; it is not charged."),
}

# For replies without a code that is known.
CODE_OF_STATUS = {
    400: "bad_request",
    401: "invalid_token",
    403: "forbidden",
    404: "no_api",
    408: "timeout",
    429: "too_many_requests",
    504: "timeout",
}
