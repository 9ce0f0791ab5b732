"""Sums such as `3+5=` and their value."""

from __future__ import annotations

import operator
import re
import unicodedata
from typing import Any

_OPERATORS: dict[str, Any] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
}
# Multiplication and division signs, minus, en dash, em dash; the full-width ones of Chinese pages
# are NFKC's.
_SIGNS = str.maketrans("xX\u00d7\u00f7:\u2212\u2013\u2014", "***//---")


def value_of_sum(text: str) -> str | None:
    """Work out `3+5=`; None if it is not a sum, or has no whole number as its value."""
    written = unicodedata.normalize("NFKC", "".join(text.split())).translate(_SIGNS)
    left = re.split("[=?]", written, maxsplit=1)[0]
    if not re.fullmatch(r"-?\d{1,9}(?:[-+*/]\d{1,9}){1,5}", left):
        return None
    first, *rest = re.findall(r"^-?\d+|[-+*/]|\d+", left)
    terms = [int(first)]
    for sign, digits in zip(rest[::2], rest[1::2], strict=True):
        number = int(digits)
        if sign == "/" and (number == 0 or terms[-1] % number):
            return None
        if sign in "*/":
            terms[-1] = _OPERATORS[sign](terms[-1], number)
        else:
            terms.append(number if sign == "+" else -number)
    return str(sum(terms))
