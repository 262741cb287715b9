"""How figures look: one palette for light and one for dark pages, PNG in memory. No display is needed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safeladder.types import SafeladderError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """Colours of a figure. `series` are told apart by people with colour vision deficiencies (Okabe &
    Ito)."""

    page: str
    ink: str
    muted: str
    grid: str
    accent: str
    series: tuple[str, ...]


LIGHT = Theme(
    page="#ffffff",
    ink="#1c2430",
    muted="#66707d",
    grid="#e3e7ec",
    accent="#0072b2",
    series=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#555555", "#7b4fa3"),
)
DARK = Theme(
    page="#171b21",
    ink="#e6e9ee",
    muted="#9aa5b1",
    grid="#2b323c",
    accent="#56b4e9",
    series=("#56b4e9", "#ff9248", "#2fc495", "#e79fc6", "#e0b84a", "#8fd0ff", "#bbbbbb", "#b394e0"),
)


@contextmanager
def themed(theme: Theme) -> Iterator[None]:
    """Draw everything inside in a theme.

    Raises:
        SafeladderError: matplotlib is missing.
    """
    try:
        import matplotlib
    except ImportError:
        raise SafeladderError("the report needs matplotlib: pip install 'safeladder[plot]'") from None
    settings: dict[Any, Any] = {
        "figure.facecolor": theme.page,
        "axes.facecolor": theme.page,
        "savefig.facecolor": theme.page,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.ink,
        "axes.titlecolor": theme.ink,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": theme.grid,
        "text.color": theme.ink,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "font.size": 10,
        "legend.frameon": False,
    }
    with matplotlib.rc_context(settings):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in inches; not known to pyplot, so nothing has to be closed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as PNG; equal figures give equal bytes."""
    layout = figure.get_layout_engine()
    if layout is not None:
        # Left in place, it would have the whole figure drawn once more, unseen, to be laid out.
        layout.execute(figure)
        figure.set_layout_engine("none")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
