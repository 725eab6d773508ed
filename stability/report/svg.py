"""Figures as SVG inside a page: colours that follow light and dark, names that do not collide, nothing that varies by run."""

from __future__ import annotations

import colorsys
import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SETTINGS = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the reader's own font
    "svg.hashsalt": "llm-stability",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # names may hold dollars
    "hatch.linewidth": 0.6,
    "savefig.transparent": True,
}
"""matplotlib's settings under which the pictures of a page are drawn."""

FONT = "system-ui, sans-serif"
DARK, BRIGHT, COLOURLESS = 0.25, 0.93, 0.15
"""Lightness of ink and of paper, saturation of grey: both follow the page, colours and greys in between stay."""

DEEPEST = "#0072b2"
"""The one colour of the pictures that is too dark for a dark page."""

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
_FONT = re.compile(r"(font: [^']*?px) '.*?(?=;|$)")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def inline_svg(figure: Figure, *, key: str, title: str, text: str) -> str:
    """The figure as an `<svg>` element for the body of a page.

    Parameters
    ----------
    figure : matplotlib Figure
    key : str
        Begins every id in it; unique on the page.
    title, text : str
        What it is, and what it shows, for readers who do not see it.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    root = ElementTree.fromstring(buffer.getvalue())
    for element in root.iter():
        element.tag = _local(element.tag)
        for name, value in list(element.attrib.items()):
            del element.attrib[name]
            local = _local(name)
            element.set(local, _rewritten(local, value, key))
    for parent in list(root.iter()):
        for child in [item for item in parent if item.tag == "metadata"]:
            parent.remove(child)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{key}-title {key}-text")
    for name, words in (("desc", text), ("title", title)):
        label = ElementTree.Element(name, {"id": f"{key}-{'title' if name == 'title' else 'text'}"})
        label.text = words
        root.insert(0, label)
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _rewritten(name: str, value: str, key: str) -> str:
    if name == "id":
        return f"{key}-{value}"
    if name == "href":
        return f"#{key}-{value.removeprefix('#')}"
    value = _FONT.sub(rf"\1 {FONT}", value)
    value = _COLOUR.sub(lambda match: themed(match[0]), value)
    return _REFERENCE.sub(rf"url(#{key}-\1)", value)


def themed(colour: str) -> str:
    """A colour for light and dark pages: ink and paper become the page's own.

    Examples
    --------
    >>> themed("#000000"), themed("#ffffff"), themed("#e69f00"), themed("#0072B2")
    ('currentColor', 'var(--paper)', '#e69f00', 'var(--blue)')
    """
    if colour.lower() == DEEPEST:
        return "var(--blue)"
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    _, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    if saturation > COLOURLESS and DARK / 2 < lightness < (1 + BRIGHT) / 2:
        return colour
    if lightness < DARK:
        return "currentColor"
    return "var(--paper)" if lightness > BRIGHT else colour
