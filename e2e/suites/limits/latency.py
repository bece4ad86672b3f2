"""What a limit in Redis adds to a request, held against the same answer without a limit.

Limited and open requests take turns one by one, so whatever slows the machine slows both.
"""

from e2e.lib import results
from e2e.lib.http import Address
from e2e.lib.keepalive import Client
from e2e.lib.results import quantile
from e2e.lib.wait import wait_for
from e2e.suites.limits.objects import NAME, OPEN, Stores, failing

_FILE = "limits-latency.md"
_COLUMNS = ["store", "requests", "p50 ms", "p99 ms", "max ms", "without limit p50 ms",
            "without limit p99 ms", "added p99 ms", "goal"]
_KEY = {"X-Key": "latency"}
_PAIRS = 3_000
# From the moment it hangs: later ones do not even try, and would hide what the first wait.
_PAIRS_HANGING = 300


def run(log, replicas: list[Address], stores: Stores) -> dict[str, bool]:
    limited = failing("single", "Local")
    client = Client(replicas[0], NAME)
    wait_for(lambda: "x-ratelimit-remaining" in client.get(limited, _KEY).headers, 10,
             "it is limited")
    facts = _measure(log, client, limited, "Redis on the same machine", _PAIRS, 1)
    stores.failing.pause()
    try:
        facts |= _measure(log, client, limited, "Redis hangs", _PAIRS_HANGING, 12)
    finally:
        stores.failing.resume()
        client.close()
    return facts


def _measure(log, client: Client, limited: str, name: str, pairs: int,
             goal: int) -> dict[str, bool]:
    times: dict[str, list[float]] = {limited: [], OPEN: []}
    statuses = set()
    for _ in range(pairs):
        for path, found in times.items():
            answer = client.get(path, _KEY)
            found.append(answer.seconds * 1000)
            statuses.add(answer.status)
    ours, plain = times.values()
    added = quantile(ours, 0.99) - quantile(plain, 0.99)
    log.say(results.row(_FILE, _COLUMNS, [
        name, pairs, f"{quantile(ours, 0.5):.2f}", f"{quantile(ours, 0.99):.2f}",
        f"{max(ours):.1f}", f"{quantile(plain, 0.5):.2f}", f"{quantile(plain, 0.99):.2f}",
        f"{added:.2f}", f"≤ {goal}"]))
    return {f"{name}: answered {sorted(statuses)}": statuses == {200}}
