"""How a record refuses what it cannot hold."""

from __future__ import annotations

from bids_app.errors import BadInputError


def need(condition: bool, what: str) -> None:
    """Raise BadInputError, saying what is wrong, unless the condition holds."""
    if not condition:
        raise BadInputError(what)
