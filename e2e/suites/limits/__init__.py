"""limits: rate limits of three Tidegates that share real Redis servers, whole and broken.

How exact each algorithm is with each store, what clients see while a store fails, how soon it
is shared again, and what asking it costs. Times are recorded, not judged.
"""

from contextlib import ExitStack

from e2e.lib.keepalive import Client
from e2e.lib.redis import Cluster, Redis, Sentinels, valkey
from e2e.lib.standalone import HOST, Standalone, free_port
from e2e.suites.limits import accuracy, failures, latency, objects

_REPLICAS = 3


def run(context) -> tuple[int, int]:
    """Returns how many facts held and did not."""
    with ExitStack() as stack:
        stores = objects.Stores(
            single=stack.enter_context(Redis(context.log)),
            valkey=stack.enter_context(Redis(context.log, program=valkey(context.log))),
            failing=stack.enter_context(Redis(context.log, "--enable-debug-command", "local")),
            sentinels=stack.enter_context(Sentinels(context.log)),
            cluster=stack.enter_context(Cluster(context.log)))
        ports = [free_port() for _ in range(_REPLICAS)]
        for port in ports:
            stack.enter_context(Standalone(context.log, objects.all_of(port, stores)))
        replicas = [(HOST, port) for port in ports]
        for replica in replicas:
            _answers(replica)
        facts: dict[str, bool] = {}
        for part in (latency, accuracy, failures):
            facts |= part.run(context.log, replicas, stores)
    for what, holds in facts.items():
        if not holds:
            context.log.say(f"FAILED {what}")
    return sum(facts.values()), len(facts) - sum(facts.values())


def _answers(replica: tuple[str, int]) -> None:
    client = Client(replica, objects.NAME)
    status = client.get(objects.OPEN).status
    client.close()
    assert status == 200, f"a route without limits is answered with {status}"
