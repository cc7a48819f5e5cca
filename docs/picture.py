"""The picture of the rooms, as SVG inside a page: drawn from the order in `rooms` and the imports in the code.

Recipes stand at the top, what they build on at the bottom. A row holds a room with its modules; the dots on its line
are the rooms it imports from, with the number of imports; each dot's lane leads down to the box of the imported room.
Lanes are ordered by where they end, so that no two cross. Colours are those of the site's theme, light and dark.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from html import escape

import arrows
import rooms

LEFT, BOX, GAP = 4, 400, 12  # px
LINE, HEAD, LETTERS = 14, 24, 66  # px of a line of modules and of a box's head; letters that fit into a line
LANE, RADIUS = 23, 8
INK, PAPER, FAINT, MARK, PURE_FILL = (
    "var(--color-foreground-primary, #222)",
    "var(--color-background-primary, #fff)",
    "var(--color-foreground-border, #999)",
    "var(--color-brand-primary, #0a4bff)",
    "var(--color-background-hover, #e6eef8)",
)


def svg() -> str:
    """Return the picture, without an empty line: it stands in Markdown."""
    names = _names()[::-1]
    tops, heights = _places(names)
    count = arrows.between_rooms(list(rooms.modules()))
    lanes = _lanes(names, {imported for _, imported in count})
    height = tops[names[-1]] + heights[names[-1]] + GAP
    width = max(lanes.values()) + LANE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="rooms" viewBox="0 0 {width} {height}" role="img"'
        ' aria-label="Rooms of the package and the imports between them" font-family="sans-serif">',
        f'<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{INK}"/></marker></defs>',
    ]
    parts += [_lane(name, x, names, tops, heights, count) for name, x in lanes.items()]
    parts += [_row(max(x for other, x in lanes.items() if (name, other) in count), _out(name, tops, heights))
              for name in names if any(importing == name for importing, _ in count)]  # fmt: skip
    parts += [_box(name, tops[name], heights[name]) for name in names]
    for (importing, imported), number in count.items():
        parts.append(_dot(importing, imported, number, lanes[imported], _out(importing, tops, heights)))
    return "\n".join([*parts, "</svg>"])


def _names() -> list[str]:
    """Return the rooms in order; a module that lies in no folder is a room of its own."""
    found: list[str] = []
    for module in rooms.modules():
        name = module.partition(".")[0]
        if name not in found:
            found.append(name)
    return found


def _modules(name: str) -> list[str]:
    return textwrap.wrap(", ".join(rooms.ROOMS.get(name, ())), LETTERS)


def _places(names: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the top and the height of every room's box, px."""
    heights = {name: HEAD + LINE * len(_modules(name)) + (6 if _modules(name) else 2) for name in names}
    tops, below = {}, GAP
    for name in names:
        tops[name] = below
        below += heights[name] + GAP
    return tops, heights


def _lanes(names: Sequence[str], imported: set[str]) -> dict[str, int]:
    """Return the lane of every room that others import: the higher it ends, the nearer to the boxes."""
    ends = [name for name in names if name in imported]
    return {name: LEFT + BOX + 30 + LANE * k for k, name in enumerate(ends)}


def _out(name: str, tops: dict[str, int], heights: dict[str, int]) -> float:
    """Return where a room's line of dots leaves its box."""
    return tops[name] + heights[name] - 11


def _lane(name: str, x: int, names: Sequence[str], tops: dict[str, int], heights: dict[str, int], count: dict) -> str:
    """Draw the way from the highest room that imports this one down to its box."""
    first = next(other for other in names if (other, name) in count)
    end = tops[name] + 9
    path = f"M{x} {_out(first, tops, heights)} V{end} H{LEFT + BOX + 2}"
    return f'<path d="{path}" fill="none" stroke="{FAINT}" stroke-width="1.2" marker-end="url(#head)"/>'


def _row(last: int, y: float) -> str:
    """Draw a room's line as far as its last dot."""
    return f'<path d="M{LEFT + BOX} {y} H{last}" stroke="{MARK}" stroke-width="1.2" opacity="0.5"/>'


def _box(name: str, top: int, height: int) -> str:
    pure = name in rooms.PURE
    title = escape(name) + (" (pure)" if pure else "")
    lines = [
        f'<rect x="{LEFT}" y="{top}" width="{BOX}" height="{height}" rx="4" fill="{PURE_FILL if pure else PAPER}"'
        f' stroke="{INK}" stroke-width="1"/>',
        f'<text x="{LEFT + 10}" y="{top + 17}" font-size="13" font-weight="bold" fill="{INK}">{title}</text>',
    ]
    for k, text in enumerate(_modules(name)):
        y = top + HEAD + 9 + LINE * k
        lines.append(f'<text x="{LEFT + 10}" y="{y}" font-size="11.5" fill="{INK}">{escape(text)}</text>')
    return "\n".join(lines)


def _dot(importing: str, imported: str, number: int, x: int, y: float) -> str:
    said = f"{importing} imports {imported} {number} times"
    return (
        f'<g class="arrow"><title>{escape(said)}</title>'
        f'<circle cx="{x}" cy="{y}" r="{RADIUS}" fill="{MARK}"/>'
        f'<text x="{x}" y="{y + 3.5}" font-size="10" text-anchor="middle" fill="{PAPER}">{number}</text></g>'
    )
