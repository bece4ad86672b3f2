"""docs/benchmarks.svg: above, every row as a ratio to nginx; below, all proxies in some rows.

Plain SVG with a style sheet of its own, which follows the reader's light or dark theme.
"""

from html import escape

from bench.lib import stats
from bench.lib.measure import Sample
from bench.lib.rows import ROWS, Row

_WIDTH = 960
_NAMES = 330  # of the rows, left of the bars
_BAR = 460  # pixels for the scale's end
_SCALE = 1.6  # ratio at the scale's end; longer bars are cut and say how long they are
_TITLES = {"tidegate": "Tidegate", "nginx": "nginx", "haproxy": "HAProxy", "envoy": "Envoy",
           "traefik": "Traefik", "caddy": "Caddy"}
_STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
.title { font-size: 16px; font-weight: 600; }
.faint { fill: #656d76; font-size: 12px; }
.tidegate { fill: #0969da; } .haproxy { fill: #afb8c1; } .other { fill: #afb8c1; }
.nginx { fill: #6e7781; } .line { stroke: #6e7781; stroke-dasharray: 4 3; }
.goal { stroke: #cf222e; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .faint { fill: #9198a1; }
  .tidegate { fill: #4493f8; } .haproxy { fill: #59636e; } .other { fill: #59636e; }
  .nginx { fill: #9198a1; } .line { stroke: #9198a1; } .goal { stroke: #ff7b72; }
}
"""


class _Canvas:
    """Elements from top to bottom; `y` is where the next goes."""

    def __init__(self):
        self.y = 0
        self.parts = []

    def text(self, x: float, y: float, text: str, style: str = "", anchor: str = "start") -> None:
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" '
                          f'text-anchor="{anchor}">{escape(text)}</text>')

    def bar(self, y: float, width: float, height: float, style: str) -> None:
        self.parts.append(f'<rect x="{_NAMES}" y="{y:.1f}" width="{max(width, 1):.1f}" '
                          f'height="{height}" rx="2" class="{style}"/>')

    def line(self, x: float, top: float, bottom: float, style: str) -> None:
        self.parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" '
                          f'class="{style}"/>')

    def svg(self) -> str:
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {self.y:.0f}" '
                f'width="{_WIDTH}" height="{self.y:.0f}" role="img">\n'
                f"<title>CPU a request, beside other proxies</title>\n<style>{_STYLE}</style>\n"
                + "\n".join(self.parts) + "\n</svg>\n")


def draw(samples: list[Sample]) -> str:
    canvas = _Canvas()
    _ratios(canvas, samples)
    for row in ROWS:
        labels = stats.labels(samples, row.name)
        if row.metric == "cpu_us" and {"envoy", "traefik", "caddy", "tidegate"} <= set(labels):
            _panel(canvas, row, samples)
    return canvas.svg()


def _ratios(canvas: _Canvas, samples: list[Sample]) -> None:
    rows = [(row, stats.ratio(samples, row.name, "tidegate", "nginx", row.metric),
             stats.ratio(samples, row.name, "haproxy", "nginx", row.metric)) for row in ROWS]
    rows = [one for one in rows if one[1] is not None]
    if not rows:
        return
    canvas.y += 26
    canvas.text(0, canvas.y, "Cost as a ratio to nginx: shorter is cheaper", "title")
    canvas.y += 20
    canvas.text(0, canvas.y, "CPU a request, and at the end latency and memory. Blue: Tidegate. "
                "Grey: HAProxy. Red: Tidegate's goal. Dashed: nginx.", "faint")
    canvas.y += 14
    top = canvas.y
    for row, ours, haproxy in rows:
        _ratio(canvas, row, ours, haproxy)
    canvas.line(_NAMES + _x(1.0), top, canvas.y - 4, "line")
    canvas.text(_NAMES + _x(1.0), canvas.y + 12, "nginx = 1", "faint", "middle")
    canvas.y += 24


def _ratio(canvas: _Canvas, row: Row, ours: float, haproxy: float | None) -> None:
    suffix = {"p50_us": ", p50"}.get(row.metric, "")
    canvas.text(_NAMES - 10, canvas.y + 14, row.title + suffix, "", "end")
    canvas.bar(canvas.y + 2, _x(ours), 11, "tidegate")
    canvas.text(_NAMES + _x(max(ours, 1.0 if ours > 0.93 else 0)) + 8, canvas.y + 12,
                f"{ours:.2f}", "faint")
    if haproxy is not None:
        canvas.bar(canvas.y + 14, _x(haproxy), 4, "haproxy")
    for goal in row.goals:
        if goal.reference == "nginx" and goal.metric == row.metric:
            canvas.line(_NAMES + _x(goal.limit), canvas.y, canvas.y + 20, "goal")
    canvas.y += 25


def _x(ratio: float) -> float:
    return min(ratio, _SCALE) / _SCALE * _BAR


def _panel(canvas: _Canvas, row: Row, samples: list[Sample]) -> None:
    """All proxies, in microseconds of CPU a request, the cheapest first."""
    found = [(name, stats.value(samples, row.name, name, "cpu_us")) for name in _TITLES]
    found = sorted(((name, value.median) for name, value in found if value),
                   key=lambda one: one[1])
    most = found[-1][1]
    canvas.y += 34
    canvas.text(0, canvas.y, row.title, "title")
    canvas.text(_NAMES + _BAR, canvas.y, "CPU µs a request", "faint", "end")
    canvas.y += 8
    for name, cost in found:
        style = name if name in ("tidegate", "nginx") else "other"
        canvas.text(_NAMES - 10, canvas.y + 13, _TITLES[name], "", "end")
        width = cost / most * _BAR
        canvas.bar(canvas.y + 3, width, 12, style)
        canvas.text(_NAMES + width + 8, canvas.y + 13, stats.number(cost), "faint")
        canvas.y += 19
