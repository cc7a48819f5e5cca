"""Scripts, styles and data inside a page: our own files as they are, data as JSON that no parser takes for markup.

A page with scripts names them by their digests in its content security policy, so that a browser runs nothing else
and loads nothing from anywhere.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Any

from markupsafe import Markup

VIEWER = ("volume.js", "viewer.js", "drawing.js")
REPORT = (*VIEWER, "report.js")


@cache
def text(name: str) -> str:
    """Return one of the files beside the page templates."""
    return resources.files("bids_app.report").joinpath("templates", name).read_text(encoding="utf-8")


def joined(names: Sequence[str]) -> Markup:
    """Return several scripts, or several styles, one after the other; they are our own, and so are not escaped."""
    return Markup("\n".join(text(name) for name in names))


def policy(*scripts: str) -> str:
    """Return the content security policy of a page that runs these scripts, given as their text, and nothing else."""
    digests = " ".join(f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {digests or chr(39) + 'none' + chr(39)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def data(content: Mapping[str, Any] | Sequence[Any]) -> str:
    r"""Return JSON that can stand in a script element: no markup, whatever the data set holds.

    >>> data({"id": "</script>"})
    '{"id":"\\u003c/script\\u003e"}'
    """
    written = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def block(identifier: str, written: str) -> str:
    """Return the element that holds what `data` wrote; ``identifier`` is one of our own."""
    return f'<script type="application/json" id="{identifier}">{written}</script>\n'


def script(content: str) -> str:
    """Return a script element of one of our own scripts."""
    return f"<script>{content}</script>\n"
