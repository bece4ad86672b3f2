"""How long a change takes until clients see it: measured, not judged."""

import http.client
import time

from e2e.lib import http as client
from e2e.lib.api import collection
from e2e.lib.manifests import route
from e2e.lib.results import quantile

ORDER = 30

_FILE = "propagation.md"
_COLUMNS = ["case", "changes", "p50 ms", "p99 ms", "max ms", "goal p99 ms"]
_EXISTING, _ADDED, _GIVE_UP = 100, 100, 10.0


def _in(namespace: str, manifest: dict) -> dict:
    manifest["metadata"]["namespace"] = namespace
    return manifest


class _Poller:
    """Asks over one kept connection, so that a poll costs little more than a round trip."""

    def __init__(self, address):
        self._connection = http.client.HTTPConnection(*address, timeout=5)

    def until(self, host: str, status: int, began: float) -> float:
        """Seconds from `began` until the first answer with this status."""
        while True:
            got = self._status(host)
            now = time.monotonic()
            if got == status:
                return now - began
            assert now - began < _GIVE_UP, f"{host} still answers {got}"
            time.sleep(0.002)

    def _status(self, host: str) -> int | None:
        try:
            self._connection.request("GET", "/", headers={"Host": host})
            response = self._connection.getresponse()
            response.read()
            return response.status
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return None


def _report(t, case: str, seconds: list[float]) -> None:
    ms = [1000 * one for one in seconds]
    t.record(_FILE, _COLUMNS, [case, len(ms), f"{quantile(ms, 0.5):.0f}",
                               f"{quantile(ms, 0.99):.0f}", f"{max(ms):.0f}", 300])


def test_a_new_route_is_served_soon_after_it_was_stored(t):
    t.backend()
    address = t.gateway()
    api = t.cluster.api()
    for i in range(_EXISTING):
        api.create(_in(t.namespace, route(f"old-{i}", f"old-{i}.example")))
    client.get_when(address, f"old-{_EXISTING - 1}.example", timeout=30)
    poller = _Poller(address)
    added, removed = [], []
    for i in range(_ADDED):
        manifest = _in(t.namespace, route(f"new-{i}", f"new-{i}.example"))
        api.create(manifest)
        added.append(poller.until(f"new-{i}.example", 200, time.monotonic()))
    for i in range(_ADDED):
        api.delete(f"{collection(manifest)}/new-{i}")
        removed.append(poller.until(f"new-{i}.example", 404, time.monotonic()))
    _report(t, f"route added next to {_EXISTING} others", added)
    _report(t, "route removed", removed)
