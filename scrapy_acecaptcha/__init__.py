"""Read plain text captchas in Scrapy and Playwright with Ace Data Cloud's recognition API."""

from scrapy_acecaptcha.addon import Addon
from scrapy_acecaptcha.crawl.middleware import AceCaptchaMiddleware
from scrapy_acecaptcha.errors import (
    AceCaptchaError,
    ApiAuthError,
    ApiBalanceError,
    ApiConnectionError,
    ApiError,
    ApiRateLimited,
    ApiRequestError,
    ApiServerError,
    ApiTimeout,
    BudgetExhausted,
    CaptchaError,
    CaptchaFormError,
    CaptchaImageError,
    CaptchaNotFound,
    CaptchaUnsolved,
    CrawlStopped,
    JournalError,
    RuleError,
    SettingsError,
)
from scrapy_acecaptcha.flow import CaptchaResult
from scrapy_acecaptcha.recognition.client import AceCaptchaClient
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.solver import Reading, Solver

__version__ = "0.1.0"

__all__ = [
    "AceCaptchaClient",
    "AceCaptchaError",
    "AceCaptchaMiddleware",
    "Addon",
    "ApiAuthError",
    "ApiBalanceError",
    "ApiConnectionError",
    "ApiError",
    "ApiRateLimited",
    "ApiRequestError",
    "ApiServerError",
    "ApiTimeout",
    "BudgetExhausted",
    "CaptchaError",
    "CaptchaFormError",
    "CaptchaImageError",
    "CaptchaNotFound",
    "CaptchaResult",
    "CaptchaRule",
    "CaptchaUnsolved",
    "CrawlStopped",
    "JournalError",
    "Reading",
    "RuleError",
    "SettingsError",
    "Solver",
]
