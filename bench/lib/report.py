"""docs/benchmarks.md, from samples."""

from bench.lib import chart, stats
from bench.lib.measure import Sample
from bench.lib.paths import DOCS
from bench.lib.rows import ROWS, Goal, Row

_TITLES = {"tidegate": "Tidegate", "nginx": "nginx", "haproxy": "HAProxy", "envoy": "Envoy",
           "traefik": "Traefik", "caddy": "Caddy"}
_UNITS = {"cpu_us": "CPU µs a request", "p50_us": "µs", "p99_us": "µs", "pss_mb": "MB"}

_INTRO = """\
# What a request costs

<!-- Written by `bench/run --write`: do not edit. -->

Tidegate and other proxies do the same job on the same single core, in turns of {seconds} seconds, {rounds} rounds in one run. **CPU** is the user and
system time of all threads and processes of a proxy, divided by the requests that it answered. The origin and the load client, on another core, cost
less than any proxy does. Figures are medians with the lowest and the highest round; **ratios** are to nginx, medians of the ratios in each round.
Absolute figures change with machine and day; ratios in one run hold. How it is done, and how to repeat it: [bench/](../bench/README.md).

{facts}

![CPU a request, beside other proxies](benchmarks.svg)
"""


def write(facts: dict, samples: list[Sample]) -> None:
    """The page and its chart."""
    (DOCS / "benchmarks.md").write_text(page(facts, samples))
    (DOCS / "benchmarks.svg").write_text(chart.draw(samples))
    print(f"written: {DOCS / 'benchmarks.md'}", flush=True)


def page(facts: dict, samples: list[Sample]) -> str:
    measured = [row for row in ROWS if stats.labels(samples, row.name)]
    parts = [_INTRO.format(facts=_facts(facts), **facts["slices"])]
    for title, metrics in (("CPU", {"cpu_us"}), ("Latency", {"p50_us", "p99_us"}),
                           ("Memory", {"pss_mb"})):
        rows = [row for row in measured if row.metric in metrics]
        if rows:
            parts.append(_comparison(title, rows, samples))
    missed = [(row, goal) for row in measured for goal in row.goals
              if _met(samples, row, goal) is False]
    if missed:
        parts.append(_missed(missed, samples))
    parts.append(_everything(measured, samples))
    return "\n".join(parts)


def _facts(facts: dict) -> str:
    versions = ", ".join(f"{_TITLES.get(name, name)} {version}"
                         for name, version in sorted(facts["versions"].items()))
    return (f"Machine: {facts['cores']} cores of an {facts['processor']}, {facts['memory_gb']} GB, "
            f"{facts['kernel']}. Versions: {versions}. The run took {facts['minutes']} minutes.")


def _comparison(title: str, rows: list[Row], samples: list[Sample]) -> str:
    """A table with a line for each row and metric that has a goal or is the row's own."""
    others = [name for name in _TITLES if name != "tidegate"]
    unit = _UNITS[rows[0].metric]
    lines = [f"## {title}", "", f"{unit}; less is better.", "",
             f"| row | Tidegate | {' | '.join(_TITLES[name] for name in others)} | ratio | goal |",
             f"|---|{'--:|' * (len(others) + 2)}---|"]
    notes = []
    for row in rows:
        for metric in dict.fromkeys([row.metric, *(goal.metric for goal in row.goals)]):
            cells = [_cell(stats.value(samples, row.name, name, metric))
                     for name in ("tidegate", *others)]
            ratio = stats.ratio(samples, row.name, "tidegate", "nginx", metric)
            name = row.title if metric == row.metric else f"{row.title}, {_short(metric)}"
            if len({row.metric, *(goal.metric for goal in row.goals)}) > 1:
                name = f"{row.title}, {_short(metric)}"
            goals = [_goal(samples, row, goal) for goal in row.goals if goal.metric == metric]
            lines.append(f"| {name} | {' | '.join(cells)} | **{stats.number(ratio) or '–'}** | "
                         f"{'; '.join(goals)} |")
        notes += [f"- {row.title}: {row.note}"] if row.note else []
        notes += [f"- {row.title}: {text}" for text in _doubts(row, samples)]
    return "\n".join([*lines, "", *notes, ""])


def _cell(value: stats.Value | None) -> str:
    if value is None:
        return ""
    return (f"{stats.number(value.median)} <sub>{stats.number(value.low)}–"
            f"{stats.number(value.high)}</sub>")


def _goal(samples: list[Sample], row: Row, goal: Goal) -> str:
    found = stats.reached(samples, row, goal, "tidegate")
    if found is None:
        return ""
    mark = "met" if stats.met(found, goal) else "**missed**"
    if goal.reference is None:
        return f"≤ {goal.limit:g} MB: {mark}"
    if goal.reference == "nginx":
        return f"≤ {goal.limit:g}: {mark}"
    return f"≤ {goal.limit:g} of {goal.words}: {stats.number(found)}, {mark}"


def _met(samples: list[Sample], row: Row, goal: Goal) -> bool | None:
    found = stats.reached(samples, row, goal, "tidegate")
    return None if found is None else stats.met(found, goal)


def _doubts(row: Row, samples: list[Sample]) -> list[str]:
    """What a reader should know before believing a row."""
    found = []
    for label in stats.labels(samples, row.name):
        errors = sum(one.errors for one in samples if (one.row, one.label) == (row.name, label))
        if errors:
            found.append(f"{label}: {errors} failed requests.")
    bound = [label for label in stats.labels(samples, row.name) if _load_bound(samples, row, label)]
    if bound:
        found.append(f"load-bound with {', '.join(bound)}.")
    return found


def _load_bound(samples: list[Sample], row: Row, label: str) -> bool:
    """Fixed rates are meant to leave the proxy idle at times."""
    if getattr(row.load, "rate_share", None):
        return False
    proxy = stats.value(samples, row.name, label, "proxy_core")
    load = stats.value(samples, row.name, label, "load_core")
    return bool(proxy and load and load.median > max(0.93, proxy.median))


def _missed(missed: list[tuple[Row, Goal]], samples: list[Sample]) -> str:
    lines = ["## Goals that are missed", ""]
    for row, goal in missed:
        found = stats.number(stats.reached(samples, row, goal, "tidegate"))
        against = f" times {goal.words}" if goal.reference else " MB"
        name = row.title + (f", {_short(goal.metric)}" if goal.metric != "cpu_us" else "")
        lines.append(f"- **{name}**: {found}{against} instead of {goal.limit:g}."
                     + (f" {row.reason}" if row.reason else ""))
    return "\n".join([*lines, ""])


def _everything(rows: list[Row], samples: list[Sample]) -> str:
    heads = ["row", "proxy", "CPU µs", "of it system", "requests/s", "p50 µs", "p99 µs", "PSS MB",
             "RSS MB", "proxy's core", "load's core"]
    metrics = ["cpu_us", "system_us", "rps", "p50_us", "p99_us", "pss_mb", "rss_mb",
               "proxy_core", "load_core"]
    lines = ["## All figures", "",
             "Medians. The cores' columns say how busy each was; a row is load-bound with a proxy "
             "if the load's core was full and the proxy's was not: there could be more requests a "
             "second, at about the same CPU for each. With HTTP/2 there is no p50: "
             "h2load does not tell. PSS counts memory that processes share once; it is what "
             "rows of memory compare, because nginx has two processes.", "",
             f"| {' | '.join(heads)} |", f"|---|---|{'--:|' * len(metrics)}"]
    for row in rows:
        for label in stats.labels(samples, row.name):
            values = [stats.value(samples, row.name, label, metric) for metric in metrics]
            cells = ["" if value is None else
                     f"{value.median:.0%}" if metric.endswith("core") else
                     stats.number(value.median)
                     for value, metric in zip(values, metrics, strict=True)]
            lines.append(f"| {row.name} | {label} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _short(metric: str) -> str:
    return {"cpu_us": "CPU", "p50_us": "p50", "p99_us": "p99", "pss_mb": "memory"}[metric]
