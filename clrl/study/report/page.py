"""A report as one HTML page: no script, nothing fetched, readable on a phone and on paper."""

from __future__ import annotations

from collections.abc import Sequence

from clrl.study.report.axes import sample
from clrl.study.report.document import (
    Caution,
    Code,
    Figure,
    Fold,
    Links,
    Part,
    Report,
    Section,
    Table,
    Text,
)
from clrl.study.report.elements import Markup, element, joined

__all__ = ["page"]

# The browser itself is told to run no script and to ask for nothing.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"

STYLE = """
:root{color-scheme:light;font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
body{margin:0;color:#1a1a1a;background:#fff}
main{max-width:75rem;margin:0 auto;padding:1rem clamp(.75rem,3vw,2rem) 4rem}
h1{font-size:1.7rem;line-height:1.25;margin:.5rem 0}
h2{font-size:1.3rem;margin:2.5rem 0 .75rem;padding-bottom:.25rem;border-bottom:1px solid #bbb}
h1,h2,p,li,figcaption,summary,.name{overflow-wrap:anywhere}
p{max-width:48rem;margin:.6rem 0}
nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1.1rem;padding:0;list-style:none}
nav a{display:inline-block;padding:.2rem 0}
a{color:#0055a4}
.caution{border-left:.35rem solid #D55E00;background:#fdf1ea;padding:.6rem .9rem;max-width:47rem}
.caution b{color:#8f3f00}
.caution p{margin:.25rem 0}
figure{margin:1.25rem 0}
figcaption,.name{font-weight:600}
.note{font-weight:400;color:#444;max-width:48rem;margin:.2rem 0}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;padding:0;margin:.5rem 0;list-style:none}
.legend li{display:flex;align-items:center;gap:.4rem;font-size:.9rem;min-width:0}
.sample{width:2.4rem;height:.85rem;flex:none}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(21rem,100%),1fr));gap:1rem}
.panel{min-width:0;break-inside:avoid}
.name{font-size:.9rem}
.chart{display:block;width:100%;height:auto;max-width:32rem}
.chart text{font-size:11px;fill:#333;font-family:inherit}
.chart .small{font-size:9.5px;fill:#555;stroke:#fff;stroke-width:3px;paint-order:stroke}
.axis,.tick{stroke:#333;stroke-width:1;fill:none}
.grid{stroke:#ddd;stroke-width:.7;fill:none}
.cut{stroke:#888;stroke-width:.8;stroke-dasharray:2 2;fill:none}
.level{stroke:#777;stroke-width:.8;stroke-dasharray:1 3;fill:none}
.shade{fill:#f1ecd9}
.wide{overflow-x:auto;margin:.25rem 0 1.25rem}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .65rem;text-align:left;border-bottom:1px solid #ddd;vertical-align:top}
thead th{font-weight:600;border-bottom:1.5px solid #555;vertical-align:bottom}
th[scope=row]{font-weight:400;min-width:7.5rem}
.n{text-align:right}
td.n{white-space:nowrap}
td,th{max-width:24rem;overflow-wrap:break-word}
details{margin:.5rem 0}
summary{cursor:pointer;padding:.35rem 0;color:#0055a4}
pre{overflow-x:auto;background:#f5f5f5;padding:.75rem;font-size:.82rem;line-height:1.4}
:focus-visible{outline:2px solid #0055a4;outline-offset:2px}
@media print{
:root{font-size:9.5pt}
@page{margin:1.6cm}
main{max-width:none;padding:0}
nav,details:not([open]){display:none}
h2,figcaption,.name{break-after:avoid}
tr,.caution,.wide{break-inside:avoid}
.wide,pre{overflow:visible}
pre{white-space:pre-wrap}
.panels{grid-template-columns:repeat(2,1fr)}
table{font-size:.8rem}
th,td{padding:.2rem .4rem}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""


def page(report: Report) -> str:
    """Return the page as HTML."""
    anchors = [f"s{i}" for i, _ in enumerate(report.sections, 1)]
    contents = [
        element("li", element("a", section.title, href=f"#{anchor}"))
        for anchor, section in zip(anchors, report.sections, strict=True)
    ]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", report.title),
        element("style", Markup(STYLE)),
    )
    body = element(
        "main",
        element("h1", report.title),
        element("nav", element("ul", *contents), aria_label="Contents"),
        *(_section(*pair) for pair in zip(anchors, report.sections, strict=True)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, element('body', body), lang='en')}\n"


def _section(anchor: str, section: Section) -> Markup:
    head = element("h2", section.title, id=anchor)
    parts = (joined(Markup("\n"), _part(part)) for part in section.parts)
    return element("section", head, *parts, aria_labelledby=anchor)


def _part(part: Part) -> Markup:
    match part:
        case Text():
            return element("p", part.text)
        case Caution():
            lines = (element("p", text) for text in part.texts)
            return element("div", element("b", "Caution"), *lines, class_="caution", role="note")
        case Code():
            text = element("pre", element("code", part.text), tabindex=0)
            if part.folded:
                return element("details", element("summary", part.title), text)
            return element("div", element("p", part.title, class_="name"), text)
        case Links():
            rows = (element("li", element("a", label, href=href)) for label, href in part.rows)
            return element("ul", *rows)
        case Figure():
            return _figure(part)
        case Fold():
            title = element("summary", part.title)
            return element("details", title, *(_part(one) for one in part.parts))
        case Table():
            if part.folded:
                return _folded(part)
            return joined(element("div", part.title, class_="name"), _table(part))


def _figure(figure: Figure) -> Markup:
    legend = None
    if figure.legend:
        names = (
            element("li", sample(i), element("span", name)) for i, name in enumerate(figure.legend)
        )
        legend = element("ul", *names, class_="legend")
    panels = (
        element(
            "div",
            element("div", panel.title, class_="name") if panel.title else None,
            panel.svg(),
            class_="panel",
        )
        for panel in figure.panels
    )
    return element(
        "figure",
        element("figcaption", figure.title, element("p", figure.text, class_="note")),
        legend,
        element("div", *panels, class_="panels"),
        _folded(figure.table),
    )


def _folded(table: Table) -> Markup:
    return element("details", element("summary", f"Table: {table.title}"), _table(table))


def _table(table: Table) -> Markup:
    """Return a table in a box of its own that scrolls where the screen is narrow."""
    names, rows, numbers = table.laid_out()
    numeric = ["n" if number else None for number in numbers]
    body = []
    for i, cells in enumerate(rows):
        shades: Sequence[float | None] = table.shades[i] if table.shades else [None] * len(cells)
        first = element("th", cells[0], scope="row", class_=numeric[0])
        others = (
            element("td", cells[j], class_=numeric[j], style=_color(shades[j]))
            for j in range(1, len(cells))
        )
        body.append(element("tr", first, *others))
    head = (element("th", name, scope="col", class_=numeric[j]) for j, name in enumerate(names))
    whole = element(
        "table",
        element("thead", element("tr", *head)),
        element("tbody", *body),
    )
    return element("div", whole, class_="wide", tabindex=0, role="region", aria_label=table.title)


def _color(shade: float | None) -> str | None:
    """Return a background on which black text stays readable: blue above 0, orange below."""
    if shade is None:
        return None
    strength = min(abs(shade), 1.0)
    full = (0x8F, 0xC4, 0xE8) if shade >= 0 else (0xF2, 0xA9, 0x6E)
    mixed = (round(255 + (c - 255) * strength) for c in full)
    return f"background:#{''.join(f'{c:02x}' for c in mixed)}"
