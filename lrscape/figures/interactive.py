"""Curves to be pointed at in a browser; surfaces to be turned are in `surfaces`."""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lrscape.errors import InputError
from lrscape.figures.style import COLORS, CYCLE, check_result, label

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

RATE = CYCLE[3]
DASHES = {"test": "solid", "validation": "dash", "train": "dot"}
# With more of them one box of all values would hide the curves.
TOGETHER = 3


def interactive_curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    seams: Mapping[str, Sequence[float]] | None = None,
) -> go.Figure:
    """Draws losses, errors and learning rates of runs over their epochs.

    Args:
        runs: name -> logged lines, as `lrscape.figures.learning_curves` takes them.
            Names are shown as text, whatever they hold.
        seams: name -> epochs at which the run was made longer, drawn as vertical lines.

    Returns:
        A Plotly figure: three panels over one axis, of which one box shows the values
        at the epoch that is pointed at. A run has its colour where there are several,
        and a part of the data has its colour where there is one.

    Example:
        >>> lines = [{'epoch': 1.0, 'learning_rate': 0.1, 'test_error': 0.5}]
        >>> figure = interactive_curves({'a': lines})
        >>> [(trace.name, float(trace.y[0])) for trace in figure.data]
        [('test error (%)', 50.0), ('learning rate', 0.1)]
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    several = len(runs) > 1
    for color, (name, lines) in zip(itertools.cycle(CYCLE), runs.items(), strict=False):
        prefix = f"{as_text(name)}: " if several else ""
        style = {"color": color}
        # An entry of the legend for a run, or for a part of its data.
        parts = [p for p in DASHES if any(f"{p}_loss" in line for line in lines)]
        for part in ("",) if several else parts:
            figure.add_scatter(
                x=[None], y=[None], mode="lines", legendgroup=prefix + part,
                name=as_text(name) if several else part,
                line=style if several else {"color": COLORS[part]},
            )  # fmt: skip
        for axis, measured, unit in (("y", "loss", 1.0), ("y2", "error", 100.0)):
            for part, dash in DASHES.items():
                found = [line for line in lines if f"{part}_{measured}" in line]
                if not found:
                    continue
                shown = f"{part} {measured} ({'nats' if unit == 1 else '%'})"
                figure.add_scatter(
                    x=[line["epoch"] for line in found],
                    y=[unit * line[f"{part}_{measured}"] for line in found],
                    name=prefix + shown, yaxis=axis,
                    legendgroup=prefix + ("" if several else part),
                    mode="lines+markers" if len(found) < 12 else "lines",
                    showlegend=False,
                    line=(
                        {**style, "dash": dash} if several else {"color": COLORS[part]}
                    ),
                )  # fmt: skip
        rated = [line for line in lines if "learning_rate" in line]
        figure.add_scatter(
            x=[line["epoch"] for line in rated],
            y=[line["learning_rate"] for line in rated],
            name=f"{prefix}learning rate", yaxis="y3", mode="lines",
            legendgroup=prefix if several else None, showlegend=False,
            line=style if several else {"color": RATE},
        )  # fmt: skip
        for epoch in (seams or {}).get(name, ()):
            figure.add_shape(
                type="line", x0=epoch, x1=epoch, y0=0, y1=1, yref="paper",
                line={"dash": "dash", "width": 1, **(style if several else {})},
            )  # fmt: skip
    panels = (
        (0.68, 1.0, "loss (nats)"),
        (0.31, 0.63, "error (%)"),
        (0.0, 0.26, "rate"),
    )
    figure.update_layout(
        {
            f"yaxis{n or ''}": {
                "domain": [low, high], "title": {"text": text}, "rangemode": "tozero",
                "hoverformat": ".4g",
            }
            for n, (low, high, text) in zip((0, 2, 3), panels, strict=True)
        },
        xaxis={"title": {"text": "epoch"}, "anchor": "y3"},
        hovermode="x unified" if len(runs) <= TOGETHER else "closest",
        hoversubplots="axis",
        legend={"orientation": "h", "y": 1.01, "yanchor": "bottom"},
        margin={"l": 60, "r": 10, "t": 56, "b": 45},
    )  # fmt: skip
    return figure


def interactive_line(
    result: xr.Dataset, *, ends: Mapping[float, str] | None = None
) -> go.Figure:
    """Draws what was measured along a line, to be pointed at.

    Args:
        result: over one coordinate; see `lrscape.figures.line_figure`.
        ends: coordinate -> name of the point there.

    Returns:
        A Plotly figure: a panel for each variable that is no standard error, of which
        two are drawn on each side as a band. What is not finite leaves a gap.

    Raises:
        InputError: a result over more than one coordinate.

    Example:
        >>> from lrscape.landscape import line, measure_surface
        >>> surface = measure_surface(lambda w: w ** 2, line(0.0, 1.0), [0.0, 0.5, 1.0])
        >>> result = surface.to_dataset({'alpha': [0.0, 0.5, 1.0]})
        >>> interactive_line(result).data[-1].y.tolist()
        [0.0, 0.25, 1.0]
    """
    import plotly.graph_objects as go

    check_result("result", result)
    if len(result.dims) != 1:
        raise InputError(
            f"the result lies over {', '.join(map(str, result.dims))}; "
            "interactive_line draws one coordinate: use interactive_surface"
        )
    (coordinate,) = result.dims
    x = result[coordinate].values
    shown = [name for name in result if not str(name).endswith("_standard_error")]
    figure = go.Figure()
    height = 1 / len(shown)
    for n, name in enumerate(shown):
        key = f"y{n + 1}" if n else "y"
        y = result[name].values
        error = f"{name}_standard_error"
        if error in result:
            band = 2 * result[error].values
            known = np.isfinite(y) & np.isfinite(band)
            edge = np.concatenate([(y + band)[known], (y - band)[known][::-1]])
            figure.add_scatter(
                x=np.concatenate([x[known], x[known][::-1]]), y=edge, yaxis=key,
                fill="toself", mode="none", fillcolor="rgba(0, 114, 178, 0.2)",
                hoverinfo="skip", showlegend=False,
            )  # fmt: skip
        figure.add_scatter(
            x=x, y=y, yaxis=key, name=as_text(label(result[name])), mode="lines",
            line={"color": CYCLE[0]}, showlegend=False,
        )  # fmt: skip
        low = 1 - (n + 1) * height
        figure.update_layout(
            {
                f"yaxis{n + 1 if n else ''}": {
                    "domain": [low + (0.06 if n < len(shown) - 1 else 0), low + height],
                    "title": {"text": as_text(label(result[name]))},
                    "hoverformat": ".4g",
                }
            }
        )
    for at, end in (ends or {}).items():
        figure.add_shape(
            type="line", x0=at, x1=at, y0=0, y1=1, yref="paper",
            line={"dash": "dot", "color": "#888888", "width": 1},
        )  # fmt: skip
        figure.add_annotation(
            x=at, y=1, yref="paper", yanchor="bottom", showarrow=False,
            text=as_text(end),
        )  # fmt: skip
    figure.update_layout(
        xaxis={
            "title": {"text": as_text(label(result[coordinate]))},
            "anchor": f"y{len(shown)}" if len(shown) > 1 else "y",
        },
        hovermode="x unified",
        hoversubplots="axis",
        margin={"l": 60, "r": 10, "t": 52, "b": 45},
    )
    return figure


def as_text(text: str) -> str:
    """Text as Plotly shows it letter by letter: it reads some HTML otherwise.

    Example:
        >>> as_text('<b>run</b>')
        '&lt;b&gt;run&lt;/b&gt;'
    """
    return html.escape(text, quote=False)
