"""Medians, spreads and ratios of samples."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from bench.lib.measure import Sample
from bench.lib.rows import Goal, Row


@dataclass
class Value:
    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{number(self.median)} ({number(self.low)}–{number(self.high)})"


def value(samples: Iterable[Sample], row: str, label: str, metric: str) -> Value | None:
    found = [one for sample in samples if (sample.row, sample.label) == (row, label)
             for one in [getattr(sample, metric)] if one is not None]
    return Value(statistics.median(found), min(found), max(found)) if found else None


def labels(samples: Iterable[Sample], row: str) -> list[str]:
    return list(dict.fromkeys(one.label for one in samples if one.row == row))


def ratio(samples: list[Sample], row: str, label: str, reference: str, metric: str) -> float | None:
    """The median of the ratios round by round: what disturbs a round disturbs both."""
    by_round: dict[int, dict[str, float]] = {}
    for one in samples:
        if one.row == row and getattr(one, metric) is not None:
            by_round.setdefault(one.round, {})[one.label] = getattr(one, metric)
    found = [both[label] / both[reference] for both in by_round.values()
             if label in both and both.get(reference)]
    return statistics.median(found) if found else None


def reached(samples: list[Sample], row: Row, goal: Goal, label: str) -> float | None:
    """What is compared with the goal's limit."""
    if goal.reference is None:
        found = value(samples, row.name, label, goal.metric)
        return found.median if found else None
    reference = goal.reference
    if reference.startswith("tidegate:"):  # the same binary in another variant
        reference = label.partition(":")[0] + reference.removeprefix("tidegate")
    return ratio(samples, row.name, label, reference, goal.metric)


def met(found: float, goal: Goal) -> bool:
    """As printed: the third digit after the point is noise."""
    return round(found, 2) <= goal.limit


def number(value: float | None) -> str:
    """Three digits that matter."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
