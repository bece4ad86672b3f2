"""What the terminal shows of a row."""

from bench.lib import stats
from bench.lib.measure import Sample
from bench.lib.rows import Row

_COLUMNS = ["cpu_us", "system_us", "rps", "p50_us", "p99_us", "pss_mb", "proxy_core", "load_core"]
_HEADS = ["CPU us/req", "of it sys", "req/s", "p50 us", "p99 us", "PSS MB", "proxy core",
          "load core"]


def row(one: Row, samples: list[Sample]) -> str:
    labels = stats.labels(samples, one.name)
    lines = [f"  {'':22}{'ratio':>7}  {'CPU us/req (from–to)':>24}"
             + "".join(f"{head:>11}" for head in _HEADS[1:])]
    for label in labels:
        values = [stats.value(samples, one.name, label, name) for name in _COLUMNS]
        ratio = stats.ratio(samples, one.name, label, _reference(labels), one.metric)
        lines.append(f"  {label:22}{stats.number(ratio):>7}  {str(values[0] or ''):>24}"
                     + "".join(f"{_cell(value, name):>11}"
                               for value, name in list(zip(values, _COLUMNS, strict=True))[1:]))
    errors = {label: sum(s.errors for s in samples if (s.row, s.label) == (one.name, label))
              for label in labels}
    lines += [f"  {label}: {count} errors" for label, count in errors.items() if count]
    for goal in one.goals:
        for label in [s for s in labels if _is_ours(s, one, samples)]:
            found = stats.reached(samples, one, goal, label)
            if found is not None:
                verdict = "met" if stats.met(found, goal) else "NOT met"
                against = goal.reference or "in all"
                lines.append(f"  {label}: {goal.metric} {stats.number(found)}, goal <= "
                             f"{goal.limit} ({against}): {verdict}")
    return "\n".join(lines)


def _is_ours(label: str, one: Row, samples: list[Sample]) -> bool:
    others = {spec.partition(":")[0] for spec in one.peers} - {"tidegate"}
    return ":" not in label and label not in others


def _reference(labels: list[str]) -> str:
    return "nginx" if "nginx" in labels else labels[0]


def _cell(value, name: str) -> str:
    if value is None:
        return ""
    return f"{value.median:.0%}" if name.endswith("_core") else stats.number(value.median)
