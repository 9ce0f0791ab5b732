"""Which text field of a form takes the captcha's answer, by what the fields say of themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence

# What a field for the answer is called. The first row says captcha outright, the second may be
# said of other fields too (and is not when the word is part of postcode, country_code, ...).
_SURE = re.compile(r"captcha|kaptcha|yanzhengma|yzm|验证码|驗證碼|校验码|認証|капч", re.IGNORECASE)
_LIKELY = re.compile(
    r"verif|v(?:er|alid)?[-_]?code|valid(?:at|_|-|$)|check[-_]?code|"
    r"secur\w{0,12}[-_ ]?(?:code|text|word)|"
    r"(?:^|[^a-z])(?:image|img|picture|pic)[-_ ]?(?:code|text|word)|rand(?:om)?[-_]?code|"
    r"(?<![a-z])codes?(?![a-z])|(?-i:(?<=[a-z])Code(?![a-z]))|characters|letters|"
    r"(?<!\w)код|código|codigo|codice|doğrulama|güvenlik|sicherheits|bestätigungs|कोड",
    re.IGNORECASE,
)
_OTHER_CODES = re.compile(
    r"(?:post|zip|country|area|promo|coupon|discount|voucher|phone|dial|bar|state|city|region|bank|"
    r"currency|language|company|tax|product|item|reg)\w{0,12}[-_ ]?code|postal",
    re.IGNORECASE,
)

_CODE = re.compile(r"code|postal", re.IGNORECASE)

# What a trap for robots says of itself: people leave it empty.
_TO_STAY_EMPTY = re.compile(
    r"honey[-_ ]?pot|\b(?:leave|keep)[^.|]{0,40}\b(?:empty|blank)|"
    r"(?:do not|don\W?t) (?:fill|enter)|(?<![a-z])empty[-_ ]?field|must be empty|"
    r"leer lassen|leave this|laisse[zr] [^.|]{0,30}vide|"
    r"no (?:rellen|llen)|deje [^.|]{0,30}(?:vac[íi]o|blanco)|deixe [^.|]{0,30}(?:vazio|branco)|"
    r"non compilare|lascia[^.|]{0,30}vuoto|не заполня|оставьте [^.|]{0,30}пуст|留空|请勿填写",
    re.IGNORECASE,
)


def is_to_stay_empty(said: str) -> bool:
    """Whether a control that says *said* of itself is a trap that people leave empty."""
    return bool(_TO_STAY_EMPTY.search(said))


def matches_captcha(said: str) -> bool:
    """Whether a control that says *said* of itself speaks of a captcha outright."""
    return bool(_SURE.search(said))


def answer_fields(said: Sequence[str]) -> list[int]:
    """Which of a form's text fields could be the one for the answer.

    :param said: what each field says of itself: name, id, placeholder, labels
    :return: places in *said*: of those that say captcha outright, else of those that probably mean
        it; one if it is clear, none if no field speaks of a captcha
    """
    meant = [_without_other_codes(words) for words in said]
    for pattern in (_SURE, _LIKELY):
        speaking = [i for i, words in enumerate(meant) if pattern.search(words)]
        found = [i for i in speaking if not is_to_stay_empty(said[i])]
        if found:
            return found
    return []


def _without_other_codes(said: str) -> str:
    """*said* without the codes that are no captcha's; most fields speak of no code at all."""
    speaks_of_codes = _CODE.search(said)
    return _OTHER_CODES.sub("", said) if speaks_of_codes else said


def undecided(candidates: Sequence[str]) -> str:
    """What a RuleError says of a field for the answer that cannot be told from others."""
    told = "candidates are " + ", ".join(candidates) if candidates else "the form has no text field"
    return f"is not given and cannot be told: {told}"
