"""Numbers that a run measured, as Markdown tables in the results folder."""

import math

from e2e.driver.paths import RESULTS

_begun: set[str] = set()


def row(file: str, columns: list[str], values: list) -> str:
    """Adds a row; the first one of a run begins the file anew. Returns it for showing."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / file
    if file not in _begun:
        _begun.add(file)
        path.write_text(f"{_line(columns)}\n{_line(['---'] * len(columns))}\n")
    with open(path, "a") as table:
        table.write(_line(values) + "\n")
    return ", ".join(f"{name} {value}" for name, value in zip(columns, values, strict=True))


def _line(cells: list) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def quantile(values: list[float], q: float) -> float:
    """The value that a share `q` of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]
