"""What the example's three offices know: the companies of the fictional county of Varrow."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

_PLACES = (
    "Northgate", "Saltmarsh", "Lantern", "Harbour", "Tidewater",
    "Heron", "Mossbridge", "Quarry", "Windlass", "Ember",
)  # fmt: skip
_TRADES = ("Shipwrights", "Bakery", "Timber", "Instruments", "Textiles", "Orchards")
_FORMS = ("Ltd", "Cooperative", "Partners")
_SEATS = ("Port Varrow", "Aldmere", "Cold Ness", "Kestrel Hill")
_PEOPLE = (
    "Ida Marwick", "Tomas Quill", "Berit Solway", "Anselm Roe", "Una Castell",
    "Piers Haldane", "Mirela Voss", "Owen Tarrant", "Sunniva Beck",
)  # fmt: skip
_MATTERS = ("Unpaid invoices", "Boundary of a quay", "Use of a trade name", "Lease of a warehouse")


@dataclass(frozen=True)
class Company:
    number: str
    name: str
    seat: str
    registered: date
    capital: int
    directors: tuple[str, str]
    status: str


@dataclass(frozen=True)
class Case:
    number: str
    matter: str
    filed: date
    state: str


@dataclass(frozen=True)
class Tender:
    number: str
    subject: str


def _company(index: int) -> Company:
    place = _PLACES[index % 10]
    trade = _TRADES[(index + index // 10) % 6]
    return Company(
        number=f"PV-{10_417 + 137 * index}",
        name=f"{place} {trade} {_FORMS[index % 3]}",
        seat=_SEATS[index % 4],
        registered=date(1987, 3, 2) + timedelta(days=211 * index),
        capital=5_000 * (1 + index * 7 % 40),
        directors=(_PEOPLE[index % 9], _PEOPLE[(index + 4) % 9]),
        status="in liquidation" if index % 13 == 5 else "active",
    )


def _cases(index: int) -> tuple[Case, ...]:
    """Make between none and three proceedings against a company."""
    return tuple(
        Case(
            number=f"C {100 + 3 * index + nth}/{2019 + nth}",
            matter=_MATTERS[(index + nth) % 4],
            filed=date(2019 + nth, 1, 7) + timedelta(days=5 * index),
            state="pending" if nth == 2 else "decided",
        )
        for nth in range(index * 5 % 4)
    )


COMPANIES = tuple(_company(index) for index in range(60))
CASES = {company.name: _cases(index) for index, company in enumerate(COMPANIES)}
TENDERS = tuple(
    Tender(number=f"T 2026-{41 + 7 * index}", subject=f"{work} at {place}")
    for index, (work, place) in enumerate(
        (work, place) for work in ("New roof", "Dredging", "Street lamps") for place in _SEATS
    )
)
