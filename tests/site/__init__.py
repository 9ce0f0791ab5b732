"""A real HTTP site with captchas of every kind that the tests need.

    with CaptchaSite() as site:
        requests.get(f"{site.url}/inplace/record/7")  # a captcha
        site.answers(image_bytes)                     # what is written on it
        site.stats["inplace"]["solved"]               # how many right answers came in

Scenarios are in walls.py (where the form stands), pictures.py (how the image comes), forms.py
(what the form demands) and hostile.py (pages that mean harm).
"""

from __future__ import annotations

from typing import Any

from .app import CaptchaSite, Seen
from .forms import FORMS
from .hostile import KINDS, Hostile
from .pictures import PICTURES
from .scenario import Scenario
from .walls import WALLS

SCENARIOS: list[type[Scenario]] = [*WALLS, *PICTURES, *FORMS, Hostile]
HOSTILE_KINDS = KINDS

# The least that a user would write to have each scenario solved.
RULES: dict[str, dict[str, Any]] = {cls.name: dict(cls.rule) for cls in SCENARIOS}

__all__ = ["HOSTILE_KINDS", "RULES", "SCENARIOS", "CaptchaSite", "Scenario", "Seen"]
