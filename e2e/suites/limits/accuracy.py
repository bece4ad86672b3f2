"""How many requests each algorithm lets through with each store: all at the same time."""

import time

from e2e.lib import results
from e2e.lib.http import Address
from e2e.lib.keepalive import Client, Stream, Streams
from e2e.lib.wait import wait_for
from e2e.suites.limits.objects import (
    ALGORITHMS, BURSTS, LIMIT, NAME, SECONDS, WARM, Stores, path,
)

_FILE = "limits-accuracy.md"
_COLUMNS = ["store", "processes", "algorithm", "asked in 60 s", "let through", "bound",
            "most in any 60 s"]
_RATE = 25  # of all processes together: one and a half times what may pass
_LONGER = 12  # seconds more than a window: what may pass after it shows in any 60 seconds
_TOLERANCE = 0.01


def run(log, replicas: list[Address], stores: Stores) -> dict[str, bool]:
    """Asks for a minute of the clock and a little longer: aligned windows begin with it."""
    kinds = [(store, algorithm) for store in stores.exact() for algorithm in ALGORITHMS]
    streams = {kind: _streams(replicas, *kind) for kind in kinds}
    for store in stores.exact():
        wait_for(lambda store=store: _warm(replicas, store), 20, f"all workers have {store}")
    begin = _next_minute()
    with Streams([stream for several in streams.values() for stream in several]):
        time.sleep(begin + SECONDS + _LONGER - time.time())
    facts = {}
    for kind, several in streams.items():
        facts |= _judge(log, *kind, several, begin)
    return facts


def _streams(replicas: list[Address], store: str, algorithm: str) -> list[Stream]:
    """A pod counts by itself where the store is its own: that is shown of one."""
    used = replicas[:1] if store == "Local" else replicas
    return [Stream(replica, NAME, path(store, algorithm), _RATE / len(used)) for replica in used]


def _warm(replicas: list[Address], store: str) -> bool:
    """Whether each worker is connected to the store: it meets some of so many connections."""
    for replica in replicas * 16:
        client = Client(replica, NAME)
        try:
            if client.get(path(store, WARM), {"X-Key": WARM}).status != 200:
                return False
        finally:
            client.close()
    return True


def _next_minute() -> float:
    """Waits for the clock, which is that of the Redis servers as well."""
    begin = (time.time() // SECONDS + 1) * SECONDS
    time.sleep(begin - time.time())
    return begin


def _judge(log, store: str, algorithm: str, streams: list[Stream], begin: float) -> dict[str, bool]:
    both = Streams(streams)
    minute = [one for one in both.answers if one.ended < begin + SECONDS]
    passed = sum(one.status == 200 for one in minute)
    least, most = _bounds(algorithm)
    burst = max(most, _most_in_any_window(both))
    log.say(results.row(_FILE, _COLUMNS, [
        store, len(streams), algorithm, len(minute), passed, f"{least} to {most}",
        _most_in_any_window(both)]))
    name = f"{algorithm} with {store}"
    others = sorted({one.status for one in both.answers} - {200, 429})
    facts = {
        f"{name}: {passed} of {len(minute)} passed, {least} to {most} may": least <= passed <= most,
        f"{name}: other answers than 200 and 429: {others}": not others and not both.broken,
    }
    if algorithm == "SlidingLog":
        facts[f"{name}: {burst} in some 60 s, {most} may"] = burst <= most
    return facts


def _bounds(algorithm: str) -> tuple[int, int]:
    """What docs/rate-limits.md promises of a minute: buckets let their burst pass as well. A
    small one forgets what was not asked for in time, if the client is late."""
    least, most = LIMIT * (1 - _TOLERANCE), LIMIT * (1 + _TOLERANCE)
    if algorithm == "LeakyBucket":
        least = LIMIT * (1 - 10 * _TOLERANCE)
    return round(least), round(most) + BURSTS.get(algorithm, 0)


def _most_in_any_window(streams: Streams) -> int:
    times = sorted(one.ended for one in streams.answers if one.status == 200)
    first = most = 0
    for last, ended in enumerate(times):
        while times[first] <= ended - SECONDS:
            first += 1
        most = max(most, last - first + 1)
    return most
