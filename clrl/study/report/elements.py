"""Elements of HTML and SVG as text. What is no markup already is escaped: here, and only here."""

from __future__ import annotations

import html
import re

__all__ = ["Markup", "element", "escaped", "joined"]

_EMPTY = {"br", "hr", "meta"}  # elements without an end
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")  # what no page may contain


class Markup(str):
    """Text that is HTML already: only the functions of this module make it."""

    __slots__ = ()


def escaped(text: object) -> Markup:
    """Return a text so that a browser shows it as it is; a float short, to a hundredth."""
    if isinstance(text, Markup):
        return text
    if isinstance(text, float):
        return Markup(f"{round(text, 2) + 0.0:.2f}".rstrip("0").rstrip("."))
    # a file name may hold bytes that are no text, which no encoding writes
    plain = str(text).encode("utf-8", "replace").decode()
    return Markup(html.escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", plain)))


def joined(*children: object) -> Markup:
    """Return children after one another; None is left out."""
    return Markup("".join(escaped(child) for child in children if child is not None))


def element(name_: str, /, *children: object, **attributes: object) -> Markup:
    """Return `<name attribute="...">children</name>`.

    Args:
        name_: of the element.
        children: texts, which are escaped, and markup.
        attributes: `class_` loses its underscore, others have it as a hyphen; None is
            left out.

    >>> element("a", "<b>", href="x?a&b", stroke_width=2.0)
    '<a href="x?a&amp;b" stroke-width="2">&lt;b&gt;</a>'
    """
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
    text = "".join(f' {key}="{escaped(x)}"' for key, x in given.items() if x is not None)
    if name_ in _EMPTY:
        return Markup(f"<{name_}{text}>")
    return Markup(f"<{name_}{text}>{joined(*children)}</{name_}>")
