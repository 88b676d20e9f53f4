from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from clinbundles.scripts.reproduce import plots

PLAN = {
    "rows": {"network": ["A", "B"]},
    "columns": {"arm": ["original", "blurred"]},
    "tables": {"1": {"title": "Dice", "metric": "dice"}},
    "costs": {"2": {"title": "GMAC", "cost": "macs"}},
}
LINES = [
    ("1", "Dice", "A", "original", 0.5, 0.02, 0.4, None),
    ("1", "Dice", "A", "blurred", 0.6, None, 0.7, None),
    ("1", "Dice", "B", "original", 0.8, 0.01, None, None),
    ("2", "GMAC", "A", "original", 4.0, None, None, 1.0),
    ("2", "GMAC", "A", "blurred", 1.0, None, None, 0.25),
    ("2", "GMAC", "B", "original", 4.0, None, None, 1.0),
]


@pytest.fixture
def summary() -> pd.DataFrame:
    return pd.DataFrame(LINES, columns=["table", "metric", "network", "arm", "mean", "std", "published", "ratio"])


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn, kept open to be looked at."""
    drawn: list[Figure] = []
    monkeypatch.setattr(plt, "close", drawn.append)
    return drawn


def test_bars_are_the_means_and_diamonds_the_published_values(
    summary: pd.DataFrame, figures: list[Figure], tmp_path: Path
) -> None:
    plots.plot(PLAN, summary[summary["table"] == "1"], "heading", tmp_path / "bars.png")
    assert (tmp_path / "bars.png").stat().st_size > 5000
    axis = figures[0].axes[0]
    assert np.nan_to_num([bar.get_height() for bar in axis.patches]).tolist() == [0.5, 0.8, 0.6, 0]
    diamonds = [line.get_ydata() for line in axis.lines if line.get_marker() == "D"]
    np.testing.assert_allclose(np.concatenate(diamonds), [0.4, np.nan, 0.7, np.nan])
    assert axis.get_ylim() == (0, 1)


@pytest.mark.parametrize(("tables", "panels"), [(["1", "2"], 3), (["1"], 1), (["2"], 1)])
def test_lines_have_a_panel_for_the_metric_for_the_cost_and_for_both(
    summary: pd.DataFrame, figures: list[Figure], tmp_path: Path, tables: list[str], panels: int
) -> None:
    part = summary[summary["table"].isin(tables)]
    plots.plot_lines(PLAN, part if "2" in tables else part.drop(columns="ratio"), "heading", tmp_path / "lines.png")
    assert (tmp_path / "lines.png").stat().st_size > 5000
    if len(tables) == 2:
        assert len(figures[0].axes) == panels
        trade = figures[0].axes[-1]
        points = {(line.get_xdata()[0], line.get_ydata()[0]) for line in trade.lines if len(line.get_xdata()) == 1}
        assert {(1.0, 0.5), (0.25, 0.6), (1.0, 0.8)} <= points


def test_a_legend_of_many_names_stays_within_the_picture_and_their_colours_differ(
    figures: list[Figure], tmp_path: Path
) -> None:
    names = [f"trained on some slices {k}" for k in range(14)]
    rows = [("1", "Dice", "A", name, 0.5, None, None, None) for name in names]
    summary = pd.DataFrame(rows, columns=["table", "metric", "network", "arm", "mean", "std", "published", "ratio"])
    plots.plot(PLAN | {"columns": {"arm": names}}, summary, "a heading " * 30, tmp_path / "tables.png")
    (figure,) = figures
    figure.canvas.draw()
    legend = figure.legends[0].get_window_extent()
    title = figure._suptitle.get_window_extent()
    panel = figure.axes[0].get_tightbbox()
    assert 0 <= legend.x0 < legend.x1 <= figure.bbox.x1
    assert panel.y1 <= legend.y0 < legend.y1 <= title.y0 < title.y1 <= figure.bbox.y1
    assert len({bars[0].get_facecolor() for bars in figure.axes[0].containers if hasattr(bars, "patches")}) == 14
