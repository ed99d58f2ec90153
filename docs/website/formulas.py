"""Holds every formula to LaTeX's grammar while the site is built; a browser would show mistakes to readers alone."""

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

log = logging.getLogger(__name__)

KNOWN = {r"\arg"}
"""Commands of LaTeX that the converter does not know and MathJax does."""


def fault(formula: str) -> str | None:
    """What is wrong with a formula; None where nothing is."""
    try:
        shown = convert(formula)
    except Exception as error:  # its errors have no common class
        return f"{type(error).__name__}: {error}"
    unknown = set(re.findall(r"\\[A-Za-z]+", shown)) - KNOWN
    return f"no such command: {', '.join(sorted(unknown))}" if unknown else None


def check(_: Sphinx, tree: nodes.document) -> None:
    """Warns of each formula of a page that has a fault; the build fails on warnings."""
    for node in tree.findall(lambda found: isinstance(found, nodes.math | nodes.math_block)):
        wrong = fault(node.astext())
        if wrong:
            log.warning("formula %r: %s", node.astext(), wrong, location=node)
