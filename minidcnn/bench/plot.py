"""A picture of a sweep: time per pixel against the images' size and against the batch."""

from __future__ import annotations

import os
from typing import Any

INK, FAINT, GRID, OURS, PEER = "#222222", "#666666", "#dddddd", "#1f77b4", "#e6781e"
NAMES = {"torch": "PyTorch"}


def sweep(result: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a PNG of what `measure` found in a sweep: single images of every size on the left, batches of one size on the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    _, _, height, width = result["shape"]
    single = [p for p in result["points"] if p["shape"][0] == 1 and p["shape"][2] == p["shape"][3]]
    batches = [p for p in result["points"] if tuple(p["shape"][2:]) == (height, width)]
    panels = [
        ([p["shape"][2] for p in single], single, "one square image", "height and width in pixels"),
        ([p["shape"][0] for p in batches], batches, f"batches of {height}x{width}", "images"),
    ]
    figure = Figure((9.6, 3.7), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    top = 1.2 * max(p[key] for p in result["points"] for key in ("microseconds", "peer_microseconds") if key in p)
    for i, (at, points, title, label) in enumerate(panels):
        axes = figure.add_axes((0.075 + 0.495 * i, 0.15, 0.41, 0.68))
        lines = [("minidcnn", "microseconds", OURS)]
        if result["peer"]:
            lines.append((NAMES[result["peer"]], "peer_microseconds", PEER))
        for name, key, colour in lines:
            axes.plot(at, [p[key] for p in points], color=colour, linewidth=1.8, marker="o", markersize=4.5, label=name)
        axes.set_xscale("log", base=2)
        axes.set_xticks(at, [str(n) for n in at])
        axes.minorticks_off()
        axes.set_ylim(0, top)
        axes.set_title(title, loc="left", fontsize=10, color=INK)
        axes.set_xlabel(label, fontsize=9, color=FAINT)
        axes.tick_params(labelsize=9, colors=FAINT, length=3)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GRID)
        if i == 0:
            axes.set_ylabel("microseconds per pixel", fontsize=9, color=FAINT)
            axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper right")
    title = f"A training step of {result['net']} (first layer {result['base']} channels), time per pixel; lower is better"
    figure.text(0.075, 0.935, title, fontsize=11, color=INK)
    figure.savefig(path, format="png")
