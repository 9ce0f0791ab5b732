"""Addon: one line in ADDONS turns everything on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scrapy_acecaptcha.crawl.middleware import AceCaptchaMiddleware

if TYPE_CHECKING:
    from scrapy.settings import BaseSettings

# Lower, and MetaRefresh (580) and Retry (550) take captcha pages first; higher than 590, and the
# page's body is still compressed.
PRIORITY = 585


class Addon:
    """Scrapy add-on: ``ADDONS = {"scrapy_acecaptcha.Addon": 500}``."""

    def update_settings(self, settings: BaseSettings) -> None:
        """Put the downloader middleware in its place, unless the project has placed it itself."""
        settings.setdefault_in_component_priority_dict(
            "DOWNLOADER_MIDDLEWARES", AceCaptchaMiddleware, PRIORITY
        )
