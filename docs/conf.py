"""Sphinx settings. ``sphinx-build -W --keep-going docs site`` builds the site; it needs no network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))
import picture
import tables

from bids_app import __version__

project = "bids_app"
author = project_copyright = "The bids_app developers"
version = release = __version__
extensions = ["myst_parser", "sphinxarg.ext"]
myst_enable_extensions = ["dollarmath", "substitution"]
myst_heading_anchors = 3
myst_substitutions = {
    "outputs": tables.outputs(),
    "group_outputs": tables.group_outputs(),
    "places": tables.places(),
    "exit_codes": tables.exit_codes(),
    "licences": tables.licences(),
    "rooms": picture.svg(),
}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"bids_app {version}"
html_static_path = ["static"]
html_css_files = ["tables.css"]
html_show_sphinx = False
smartquotes = False  # help texts as they are typed
html_math_renderer = "mathml"  # browsers read it as it is; the usual renderer loads a script from elsewhere


def setup(app: Sphinx) -> None:
    """Register the math renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))


def _inline(translator: Any, node: Any) -> None:
    translator.body.append(tex2mathml(node.astext()))
    raise SkipNode


def _block(translator: Any, node: Any) -> None:
    translator.body.append(f"<div>{tex2mathml(node.astext(), as_block=True)}</div>")
    raise SkipNode
