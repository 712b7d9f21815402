"""The explorer's curves in Vega-Lite, drawn like the figures, and the script that draws them."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

from malmen.figures.style import GREY, EditorStyle, editor_styles

WIDTH = 1.8
"""Width of lines in pixels."""
SHAPES = {"s": "square", "^": "triangle-up", "D": "diamond", "o": "circle", "v": "triangle-down", "P": "cross"}
"""Vega's names of matplotlib's markers."""
OTHERS = ("stroke", "triangle-left", "wedge", "triangle-right", "arrow")
"""Shapes in place of the markers that Vega lacks."""
EXPORT = "window.vegaEmbed = vegaEmbed;"
"""What is added to Vega's script, so that the page can call it."""


@dataclass(frozen=True)
class Look:
    """How an editor looks: colour, Vega's name of the marker, and dashes and gaps in pixels (none for a solid line)."""

    colour: str
    shape: str
    dash: tuple[float, ...]

    @classmethod
    def of(cls, style: EditorStyle, number: int) -> "Look":
        """Return the look for a style in the figures; ``number`` chooses a shape where Vega lacks the marker."""
        dash = tuple(round(WIDTH * length, 2) for length in style.line[1]) if isinstance(style.line, tuple) else ()
        return cls(style.colour, SHAPES.get(str(style.marker), OTHERS[number % len(OTHERS)]), dash)


def looks(editors: Iterable[str]) -> dict[str, Look]:
    """Return the look of each editor, in the figures' order of drawing."""
    return {name: Look.of(style, i) for i, (name, style) in enumerate(editor_styles(editors).items())}


def chart(looked: dict[str, Look]) -> dict[str, Any]:
    """Return the Vega-Lite specification of one panel.

    Its data come from the page: ``points`` (m, editor, label, value, std, low, high), ``before`` (m, value), and the
    parameters ``ticks`` (the values of m), ``picked_m`` and ``picked_editor``.
    """
    editors = list(looked)
    x = alt.X(
        "m:Q",
        title="number of edits m",
        scale=alt.Scale(type="log", base=2, nice=False, padding=12),
        axis=alt.Axis(values=alt.ExprRef("ticks"), format=",d", labelOverlap=True, grid=False),
    )
    scale = alt.Scale(domain=[0, 100])
    y = alt.Y(
        "value:Q",
        title=None,
        scale=scale,
        axis=alt.Axis(values=list(range(0, 101, 20)), labelExpr="datum.label + ' %'"),
    )
    colour = alt.Color(
        "editor:N", legend=None, scale=alt.Scale(domain=editors, range=[look.colour for look in looked.values()])
    )
    shape = alt.Shape(
        "editor:N", legend=None, scale=alt.Scale(domain=editors, range=[look.shape for look in looked.values()])
    )
    dashes = alt.StrokeDash(
        "editor:N", legend=None, scale=alt.Scale(domain=editors, range=[list(look.dash) for look in looked.values()])
    )
    picked = "datum.editor === picked_editor"
    tooltip = [
        alt.Tooltip("label:N", title="editor"),
        alt.Tooltip("m:Q", format=",d"),
        alt.Tooltip("value:Q", title="mean, %", format=".1f"),
        alt.Tooltip("std:Q", title="std over seeds", format=".1f"),
    ]
    points = alt.Chart(alt.NamedData("points"))
    low = alt.Y("low:Q", title=None, scale=scale)
    band = points.mark_area(opacity=0.15).encode(x=x, y=low, y2="high:Q", color=colour)
    before = alt.Chart(alt.NamedData("before"))
    rule = before.transform_filter("datum.m === picked_m").mark_rule(color="#999", strokeWidth=1).encode(x=x)
    unedited = before.mark_line(color=GREY, strokeDash=[1.5, 3], strokeWidth=1.5).encode(x=x, y=y)
    line = points.mark_line().encode(
        x=x,
        y=y,
        color=colour,
        strokeDash=dashes,
        size=alt.condition(picked, alt.value(1.8 * WIDTH), alt.value(WIDTH)),
    )
    mark = points.mark_point(filled=True, opacity=1, stroke="white", strokeWidth=0.7, cursor="pointer").encode(
        x=x, y=y, color=colour, shape=shape, tooltip=tooltip, size=alt.condition(picked, alt.value(110), alt.value(60))
    )
    drawn = alt.layer(band, rule, unedited, line, mark).add_params(
        alt.param(name="ticks", value=[]),
        alt.param(name="picked_m", value=1),
        alt.param(name="picked_editor", value=""),
    )
    specification: dict[str, Any] = (
        drawn.properties(width="container", height=210)
        .configure(font="system-ui, sans-serif", background="white")
        .to_dict()
    )
    return specification


@dataclass(frozen=True)
class Bundle:
    """The script that draws Vega-Lite, with all that it needs, as vl-convert-python ships it.

    Attributes:
        script: the script; it defines ``vegaEmbed``.
        versions: its parts with their versions.
    """

    script: str
    versions: dict[str, str]

    @classmethod
    def installed(cls) -> "Bundle":
        """Return the script for the version of Vega-Lite that altair writes."""
        lite = alt.SCHEMA_VERSION.removeprefix("v")
        versions = {
            "Vega": vl_convert.get_vega_version(),
            "Vega-Lite": lite,
            "Vega-Embed": vl_convert.get_vega_embed_version(),
        }
        return cls(vl_convert.javascript_bundle(EXPORT, ".".join(lite.split(".")[:2])), versions)

    @property
    def sha256(self) -> str:
        """SHA-256 of the script."""
        return hashlib.sha256(self.script.encode()).hexdigest()
