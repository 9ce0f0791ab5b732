"""Scrapy settings of the example. What scrapy-acecaptcha needs are the first two."""

import json
import logging
import os

REGISTER = "127.0.0.1:" + os.environ.get("EXAMPLE_REGISTER_PORT", "8000")
COURT = "127.0.0.1:" + os.environ.get("EXAMPLE_COURT_PORT", "8001")
PERMITS = "127.0.0.1:" + os.environ.get("EXAMPLE_PERMITS_PORT", "8002")
TENDERS = "127.0.0.1:" + os.environ.get("EXAMPLE_TENDERS_PORT", "8003")

ADDONS = {"scrapy_acecaptcha.Addon": 500}
ACECAPTCHA_RULES = {
    # The form's field is found by itself: it is called `code`.
    REGISTER: {"image": "img#captcha", "answer": r"\d{4}"},
    # Two text fields, so the rule says which is for the answer. What the other is to hold comes
    # from each request. Four visitors at a time: the site remembers one captcha for each.
    COURT: {
        "image": "#search img",
        "input": "input[name=verification]",
        "answer": r"\d{4}",
        "sessions": 4,
    },
    # A canvas: for the browser only, see the spider.
    TENDERS: {"image": "canvas", "input": "#code", "success": "li.tender", "answer": r"\d{4}"},
}
# The example takes some twenty calls of the API. Should anything go wrong, it stops here.
ACECAPTCHA_BUDGET = 100

# How to start the browser, if it is not Playwright's own.
PLAYWRIGHT_LAUNCH_OPTIONS = json.loads(os.environ.get("EXAMPLE_BROWSER", "{}"))

BOT_NAME = "registry"
SPIDER_MODULES = ["registry.spiders"]
EXTENSIONS = {"registry.extensions.StatsFile": 500}

ROBOTSTXT_OBEY = True
CONCURRENT_REQUESTS_PER_DOMAIN = 8
TELNETCONSOLE_ENABLED = False

# Scrapy's cookie middleware looks up the list of public suffixes; with no internet, that logs a
# traceback before it takes the list that it brought along.
logging.getLogger("tldextract").setLevel(logging.ERROR)
logging.getLogger("PIL").setLevel(logging.INFO)
