"""What clients see while the store of a limit fails, and how soon it is shared again."""

import time
from collections.abc import Callable
from contextlib import contextmanager

from e2e.lib import results
from e2e.lib.counting import together
from e2e.lib.http import Address
from e2e.lib.keepalive import Stream, Streams
from e2e.lib.results import quantile
from e2e.lib.standalone import start, stop
from e2e.lib.wait import wait_for
from e2e.suites.limits.objects import MODES, NAME, Stores, failing

_FILE = "limits-failures.md"
_COLUMNS = ["failure", "mode", "requests", "5xx", "p99 ms", "max ms", "shared again after s"]
_RATE = 40  # requests a second to each process for each mode
_HOLD = 2.5  # seconds that a failure lasts, if it is one that lasts
_AROUND = 1.0  # seconds of load before a failure, and after all is well again

# Everything that counts becomes a value that cannot: no algorithm keeps a set.
_SPOIL = ("for _, key in ipairs(redis.call('KEYS', '*')) do "
          "redis.call('DEL', key) redis.call('SADD', key, 'x') end")


def run(log, replicas: list[Address], stores: Stores) -> dict[str, bool]:
    one, sentinels, cluster = stores.failing, stores.sentinels, stores.cluster
    facts = {}
    for name, store, failure in (
        ("paused", "single", _paused(one)),
        ("killed and back", "single", _killed(one)),
        ("wrong-typed keys", "single", lambda: one.cli("EVAL", _SPOIL, 0)),
        ("out of memory", "single", _out_of_memory(one)),
        ("scripts flushed", "single", lambda: one.cli("SCRIPT", "FLUSH")),
        ("answers once in 100 ms", "single", _slow(log, one)),
        ("a node of the Cluster paused", "cluster",
         _of_cluster(cluster, _paused(cluster.nodes[0]))),
        ("a node of the Cluster killed and back", "cluster",
         _of_cluster(cluster, _killed(cluster.nodes[1]))),
        ("the master killed, Sentinel names another", "sentinel", _failover(sentinels)),
    ):
        facts |= _one(log, replicas, name, store, failure)
    return facts


def _one(log, replicas: list[Address], name: str, store: str,
         failure: Callable[[], None]) -> dict[str, bool]:
    """All three modes meet the failure at the same time; the two that go on must be shared
    before and after."""
    paths = {mode: failing(store, mode) for mode in MODES}
    streams = {mode: Streams([Stream(replica, NAME, path, _RATE, {"X-Key": "load"})
                              for replica in replicas]) for mode, path in paths.items()}
    for path in paths.values():
        wait_for(lambda path=path: together(replicas, NAME, path), 20, f"{path} is shared at first")
    with streams["Local"], streams["Open"], streams["Closed"]:
        time.sleep(_AROUND)
        failure()
        healed = time.monotonic()
        again = {}

        def all_shared() -> bool:
            for mode in (mode for mode in MODES if mode not in again):
                if together(replicas, NAME, paths[mode]):
                    again[mode] = time.monotonic() - healed
            return len(again) == len(MODES)

        wait_for(all_shared, 30, f"{name}: all modes are shared again, of {MODES}", every=0.02)
        time.sleep(_AROUND)
    return {what: holds for mode in MODES
            for what, holds in _judge(log, name, mode, streams[mode], again[mode]).items()}


def _judge(log, name: str, mode: str, streams: Streams, again: float) -> dict[str, bool]:
    times = [one.seconds * 1000 for one in streams.answers]
    errors = sum(one.status >= 500 for one in streams.answers) + streams.broken
    log.say(results.row(_FILE, _COLUMNS, [
        name, mode, len(times), errors, f"{quantile(times, 0.99):.1f}", f"{max(times):.0f}",
        f"{again:.1f}"]))
    others = sorted({one.status for one in streams.answers} - {200})
    if mode == "Closed":
        return {f"{name}, Closed: answered {others}, not only 503": set(others) <= {503}}
    return {f"{name}, {mode}: {errors} of {len(times)} failed, answered {others}":
            not errors and not others}


def _paused(redis) -> Callable[[], None]:
    def failure() -> None:
        redis.pause()
        time.sleep(_HOLD)
        redis.resume()

    return failure


def _killed(redis) -> Callable[[], None]:
    def failure() -> None:
        redis.kill()
        time.sleep(_HOLD)
        redis.start()

    return failure


def _of_cluster(cluster, failure: Callable[[], None]) -> Callable[[], None]:
    """With the time in which the nodes agree that they are whole again: it is theirs."""

    def whole() -> None:
        failure()
        wait_for(cluster.whole, 30, "the Cluster serves all slots again", every=0.02)

    return whole


def _out_of_memory(redis) -> Callable[[], None]:
    def failure() -> None:
        redis.cli("CONFIG", "SET", "maxmemory", "1")
        time.sleep(_HOLD)
        redis.cli("CONFIG", "SET", "maxmemory", "0")

    return failure


def _slow(log, redis) -> Callable[[], None]:
    """Its one thread sleeps again and again; what has come meanwhile is answered in between."""

    @contextmanager
    def sleeping():
        process = start(log, "redis-cli", "-p", redis.port, "-r", "-1", "DEBUG", "SLEEP", "0.1")
        try:
            yield
        finally:
            stop(process)

    def failure() -> None:
        with sleeping():
            time.sleep(_HOLD)

    return failure


def _failover(sentinels) -> Callable[[], None]:
    def failure() -> None:
        before = sentinels.current()
        sentinels.master.kill()
        wait_for(lambda: sentinels.current() != before, 30, "Sentinel names another master")

    return failure
