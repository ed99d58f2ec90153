"""Settings of the site. A reader's browser fetches nothing: scripts, styles and fonts lie beside the pages."""

import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import copy2, copytree

from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import formulas  # noqa: E402
import references  # noqa: E402

import vision  # noqa: E402

project = "Triptych"
author = "The Triptych authors"
release = vision.__version__
root_doc = "index"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
nitpicky = True

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True

napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"

highlight_language = "none"  # a block that names no language is no Python
pygments_dark_style = "github-dark"
html_theme = "furo"
html_title = "Triptych"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_show_copyright = False
html_copy_source = False
mathjax_path = "mathjax/tex-chtml.js"
mathjax3_config = {"options": {"enableMenu": False}}


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Puts MathJax and its fonts beside the pages."""
    spec = find_spec("sphinx-mathjax-offline")
    assert spec is not None
    assert spec.origin is not None
    files = Path(spec.origin).parent / "static" / "mathjax"
    to = Path(app.outdir) / "_static" / "mathjax"
    fonts = Path("output/chtml/fonts/woff-v2")
    if error is None:
        copytree(files / fonts, to / fonts, dirs_exist_ok=True)
        copy2(files / "tex-chtml.js", to)


def plain_attribute(_app: Sphinx, what: str, _name: str, _found: object, _options: object, lines: list[str]) -> None:
    """Keeps an attribute's docstring "Name: rest" from being read as "type: rest"."""
    if what in ("attribute", "property"):
        lines[0:0] = ["..", ""]  # an empty comment


def setup(app: Sphinx) -> None:
    """What the project adds to Sphinx."""
    app.connect("autodoc-process-docstring", plain_attribute, priority=400)  # before napoleon's, at 500
    app.connect("missing-reference", references.resolve)
    app.connect("doctree-read", formulas.check)
    app.connect("build-finished", copy_mathjax)
