"""Sphinx's configuration: `make docs` builds the site into docs/_build/html."""

from __future__ import annotations

import socket

import scrapy_acecaptcha

project = "scrapy-acecaptcha"
author = "The scrapy-acecaptcha maintainers"
project_copyright = "2026, the scrapy-acecaptcha maintainers"
release = scrapy_acecaptcha.__version__
version = release

extensions = ["sphinx_scrapy", "myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"scrapy-acecaptcha {release}"
html_baseurl = "https://scrapy-acecaptcha.readthedocs.io/en/latest/"
html_show_copyright = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
myst_url_schemes = ("http", "https", "mailto")

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
autoclass_content = "class"

# Types of ours in signatures that are not public: what users hand in is told by the docstrings.
nitpick_ignore = [
    ("py:class", name)
    for name in (
        "Budget",
        "Journal",
        "ReadLocally",
        "RuleFields",
        "scrapy_acecaptcha.recognition.client.Meter",
        "scrapy_acecaptcha.solver.PlainChallenge",
    )
]
# Playwright has no inventory that Sphinx reads, and names its classes by where it generates them.
nitpick_ignore_regex = [("py:class", r"playwright\..*")]

# Pages are read on GitHub, too, where links lead to files beside docs/.
suppress_warnings = ["myst.xref_missing"]


def _is_online() -> bool:
    try:
        socket.create_connection(("docs.scrapy.org", 443), timeout=3).close()
    except OSError:
        return False
    return True


# Links into Python's and Scrapy's documentation need their inventories, and a build without network
# is no broken build.
scrapy_intersphinx_disable = [] if _is_online() else ["python", "scrapy"]
