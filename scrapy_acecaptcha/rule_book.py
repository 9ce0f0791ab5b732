"""RuleBook: the rules of ACECAPTCHA_RULES, found by URL."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from scrapy_acecaptcha.errors import RuleError
from scrapy_acecaptcha.hosts import parse_host, spell_host
from scrapy_acecaptcha.rules import CaptchaRule


@lru_cache(maxsize=1024)
def site_of(url: str) -> str:
    """Scheme, host and port of *url* as they stand in it; urlsplit() takes four times as long."""
    scheme, separator, rest = url.partition("://")
    return scheme + separator + _HOST_ENDS.split(rest, 1)[0]


_HOST_ENDS = re.compile("[/?#]")


class RuleBook:
    """The rules of ACECAPTCHA_RULES, found by URL.

    ``example.org`` covers its subdomains, the most specific host wins, ``127.0.0.1:8000`` names a
    port.

    :param rules: host -> rule, or the same as JSON
    :raises RuleError: names host and field
    """

    def __init__(self, rules: Mapping[str, Any] | str) -> None:
        if isinstance(rules, str):
            rules = _from_json(rules)
        if not isinstance(rules, Mapping):
            raise RuleError(f"ACECAPTCHA_RULES is a dict of host -> rule, not {rules!r}")
        self._rules: dict[str, CaptchaRule] = {}
        for host, fields in rules.items():
            rule = CaptchaRule.parse(fields, host=str(host))
            rule.check_selectors(host=str(host))
            name = _checked_host(host)
            if name in self._rules:
                raise RuleError("is named twice", host=str(host))
            self._rules[name] = rule
        self._found: dict[str, tuple[str, CaptchaRule] | None] = {}
        self._overlaid: dict[tuple[str, str], CaptchaRule] = {}

    def __len__(self) -> int:
        return len(self._rules)

    def find(self, url: str, own: object = None) -> CaptchaRule | None:
        """Return the rule for *url*, None if there is none.

        :param own: what a request's ``meta["acecaptcha"]`` says: False for no rule, fields to lay
            over the host's rule, or a whole rule
        :raises RuleError: *own* cannot be used
        """
        if own is False:
            return None
        site = site_of(url)
        named = self._named(site)
        found = named[1] if named else None
        return found if own is None or own is True else self._overlay(site, found, own)

    def name_for(self, url: str) -> str | None:
        """The key of the rule for *url*, None if there is none."""
        named = self._named(site_of(url))
        return named[0] if named else None

    def items(self) -> Iterable[tuple[str, CaptchaRule]]:
        """All rules with their keys."""
        return self._rules.items()

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of all rules."""
        return tuple(self._rules)

    @property
    def hosts_asked(self) -> list[str]:
        """Hosts (with their ports) whose rule was asked for, the first ones first."""
        return list(dict.fromkeys(site.partition("://")[2] for site in self._found))

    def _named(self, site: str) -> tuple[str, CaptchaRule] | None:
        if site not in self._found:
            if len(self._found) > 10_000:  # a broad crawl meets new hosts all the time
                self._found.clear()
            self._found[site] = self._search(site)
        return self._found[site]

    def _overlay(self, site: str, rule: CaptchaRule | None, own: object) -> CaptchaRule:
        where = f'{site.partition("://")[2]} in request.meta["acecaptcha"]'
        if isinstance(own, CaptchaRule) or not isinstance(own, Mapping):
            whole = CaptchaRule.parse(own, host=where)  # type: ignore[arg-type]
            whole.check_selectors(host=where)
            return whole
        key = (site, json.dumps(own, sort_keys=True, default=repr))
        if key not in self._overlaid:
            laid = rule.overlaid(own, host=where) if rule else CaptchaRule.parse(own, host=where)
            laid.check_selectors(host=where)
            if len(self._overlaid) > 1000:
                self._overlaid.clear()
            self._overlaid[key] = laid
        return self._overlaid[key]

    def _search(self, url: str) -> tuple[str, CaptchaRule] | None:
        try:
            parts = urlsplit(url)
            port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
            host = spell_host(parts.hostname)
        except ValueError:
            return None
        while host:
            for key in (f"{host}:{port}", host):
                if key in self._rules:
                    return key, self._rules[key]
            if host.startswith("[") or re.fullmatch(r"[\d.]+", host):  # addresses have no parents
                return None
            host = host.partition(".")[2]
        return None


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RuleError(
            f"ACECAPTCHA_RULES is not valid JSON ({error}); on the command line write "
            """-s ACECAPTCHA_RULES='{"example.org": {"image": "img#captcha"}}'"""
        ) from None


def _checked_host(key: object) -> str:
    """Bring a key of ACECAPTCHA_RULES into the form in which URLs spell hosts."""
    try:
        return parse_host(key)
    except ValueError as error:
        raise RuleError(f"is not a host: {error}", host=str(key)) from None
