"""The objects of the suite: a route for each store and algorithm, answered by Tidegate itself."""

from dataclasses import dataclass

from e2e.lib.manifests import GATEWAY_API
from e2e.lib.redis import MASTER, Cluster, Redis, Sentinels
from e2e.lib.standalone import gateway

NAME = "limits.example"
OPEN = "/open"  # the same answer without a limit
_API = "tidegate.dev/v1alpha1"
_META = {"namespace": "default"}

ALGORITHMS = ("FixedWindow", "SlidingWindow", "SlidingLog", "TokenBucket", "LeakyBucket")
LIMIT = 1_000
SECONDS = 60
BURSTS = {"TokenBucket": 100, "LeakyBucket": 10}

WARM = "warm"  # in place of an algorithm: the path that only opens connections to the store

MODES = ("Local", "Open", "Closed")
MANY = 1_000_000  # a limit that nobody reaches: what remains of it shows who counts together


@dataclass
class Stores:
    single: Redis
    valkey: Redis
    failing: Redis  # the one that is broken on purpose
    sentinels: Sentinels
    cluster: Cluster

    def exact(self) -> dict[str, dict]:
        """The stores of which accuracy is shown. Their time is long: how an algorithm counts
        is asked for, not how busy the machine is."""
        patient = {"timeout": "1s"}
        return {
            "Local": {"type": "Local"},
            "Redis": _redis("Single", [self.single.address], **patient),
            "Valkey": _redis("Single", [self.valkey.address], **patient),
            "Redis, Sentinel": _redis("Sentinel", self.sentinels.addresses,
                                      sentinelMaster=MASTER, **patient),
            "Redis, Cluster": _redis("Cluster", self.cluster.addresses, **patient),
        }

    def broken(self) -> dict[str, dict]:
        """The stores that fail, with the timeouts that users have by default."""
        return {
            "single": _redis("Single", [self.failing.address]),
            "sentinel": _redis("Sentinel", self.sentinels.addresses, sentinelMaster=MASTER),
            "cluster": _redis("Cluster", self.cluster.addresses),
        }


def all_of(port: int, stores: Stores) -> list[dict]:
    """Everything that one Tidegate serves, on this port."""
    found = [*gateway(port), _answer(), _route("open", [(OPEN, [])])]
    for store, config in stores.exact().items():
        rules = []
        for algorithm in ALGORITHMS:
            name = f"{_slug(store)}-{algorithm.lower()}"
            found.append(_limit(name, config, "Closed", _counted(algorithm)))
            rules.append((path(store, algorithm), [name]))
        found.append(_limit(f"{_slug(store)}-{WARM}", config, "Closed", _many()))
        rules.append((path(store, WARM), [f"{_slug(store)}-{WARM}"]))
        found.append(_route(_slug(store), rules))
    for store, config in stores.broken().items():
        rules = []
        for mode in MODES:
            name = f"{store}-{mode.lower()}"
            found.append(_limit(name, config, mode, _many()))
            rules.append((failing(store, mode), [name]))
        found.append(_route(f"failing-{store}", rules))
    return found


def path(store: str, algorithm: str) -> str:
    return f"/exact/{_slug(store)}/{algorithm.lower()}"


def failing(store: str, mode: str) -> str:
    """The path of a limit whose store fails; each `X-Key` is counted by itself."""
    return f"/failing/{store}/{mode.lower()}"


def _redis(topology: str, addresses: list[str], **more) -> dict:
    return {"type": "Redis", "redis": {"topology": topology, "addresses": addresses, **more}}


def _counted(algorithm: str) -> dict:
    burst = {"burst": BURSTS[algorithm]} if algorithm in BURSTS else {}
    return {"name": "all", "requests": LIMIT, "window": f"{SECONDS}s", "algorithm": algorithm,
            "key": [{"type": "All"}], **burst}


def _many() -> dict:
    return {"name": "many", "requests": MANY, "window": "1h", "algorithm": "FixedWindow",
            "key": [{"type": "Header", "name": "X-Key"}]}


def _limit(name: str, store: dict, failure_mode: str, limit: dict) -> dict:
    return {"apiVersion": _API, "kind": "RateLimit", "metadata": {"name": name, **_META},
            "spec": {"store": store, "failureMode": failure_mode, "limits": [limit]}}


def _answer() -> dict:
    return {"apiVersion": _API, "kind": "Middleware", "metadata": {"name": "answer", **_META},
            "spec": {"directResponse": {"statusCode": 200, "body": "ok\n"}}}


def _route(name: str, rules: list[tuple[str, list[str]]]) -> dict:
    def rule(path: str, limits: list[str]) -> dict:
        filters = [_extension("RateLimit", limit) for limit in limits]
        return {"matches": [{"path": {"type": "Exact", "value": path}}],
                "filters": [*filters, _extension("Middleware", "answer")]}

    return {"apiVersion": GATEWAY_API, "kind": "HTTPRoute", "metadata": {"name": name, **_META},
            "spec": {"parentRefs": [{"name": "gw"}], "hostnames": [NAME],
                     "rules": [rule(*one) for one in rules]}}


def _extension(kind: str, name: str) -> dict:
    return {"type": "ExtensionRef",
            "extensionRef": {"group": "tidegate.dev", "kind": kind, "name": name}}


def _slug(store: str) -> str:
    return store.lower().replace(", ", "-")
