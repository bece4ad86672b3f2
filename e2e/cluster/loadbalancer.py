"""The load-balancer double: gives Services of type LoadBalancer an address.

kube-proxy already forwards a Service's load-balancer address to its pods, and
the host routes the pool to the node; so all that is left of a cloud's part is
to choose the address and write it into the status. A requested address is
honoured; one that is taken or out of the pool leaves the Service pending.
"""

import argparse
import ipaddress
import sys
import time

from e2e.cluster import constants as c
from e2e.lib.api import Api, ApiError

_PERIOD = 0.2


class Pool:
    """Free addresses, the longest unused first, and who holds the others.

    The static ones are for those who ask for them by name: else a test that wants a certain
    address could find it given to somebody else.
    """

    def __init__(self, addresses: list[str], static: list[str]):
        self.free = [*addresses, *static]
        self.static = frozenset(static)
        self.held: dict[str, str] = {}

    def release_all_but(self, live: set[str]) -> None:
        for uid in set(self.held) - live:
            self.free.append(self.held.pop(uid))

    def remember(self, uid: str, address: str) -> None:
        """Notes what an earlier run of the double (or a user) has written."""
        if self.held.get(uid) != address and address in self.free:
            self.free.remove(address)
            self.held[uid] = address

    def take(self, uid: str, wanted: str | None) -> str | None:
        if uid in self.held:
            return self.held[uid]
        if wanted and wanted not in self.free:
            return None
        address = wanted or next((one for one in self.free if one not in self.static), None)
        if address is None:
            return None
        self.free.remove(address)
        self.held[uid] = address
        return address


def assign(api: Api, pool: Pool) -> None:
    """One look at all Services: those without an address get one."""
    services = [
        service
        for service in api.get("/api/v1/services?resourceVersion=0")["items"]
        if service["spec"].get("type") == "LoadBalancer"
        and "deletionTimestamp" not in service["metadata"]
    ]
    pool.release_all_but({service["metadata"]["uid"] for service in services})
    pending = []
    for service in services:
        given = service.get("status", {}).get("loadBalancer", {}).get("ingress")
        if given:
            pool.remember(service["metadata"]["uid"], given[0].get("ip", ""))
        else:
            pending.append(service)
    for service in pending:
        meta = service["metadata"]
        address = pool.take(meta["uid"], service["spec"].get("loadBalancerIP"))
        if address:
            _write(api, meta["namespace"], meta["name"], address)


def _write(api: Api, namespace: str, name: str, address: str) -> None:
    api.patch(
        f"/api/v1/namespaces/{namespace}/services/{name}/status",
        {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}},
    )
    print(f"{namespace}/{name}: {address}", flush=True)


def command(*access) -> list:
    """The program with the pools of `constants`; `access` says how to reach the API server."""
    stem = c.LOAD_BALANCER_RANGE.rpartition(".")[0]
    return [
        *(sys.executable, "-m", "e2e.cluster.loadbalancer", *access),
        f"--pool={stem}.{c.LOAD_BALANCER_FIRST}-{stem}.{c.LOAD_BALANCER_LAST}",
        f"--static={stem}.{c.STATIC_FIRST}-{stem}.{c.STATIC_LAST}",
    ]


def _range(text: str) -> list[str]:
    first, last = map(ipaddress.ip_address, text.split("-"))
    return [str(first + i) for i in range(int(last) - int(first) + 1)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kubeconfig-dir", help="admin.crt, admin.key and ca.crt")
    parser.add_argument("--server", required=True)
    parser.add_argument("--pool", required=True, type=_range, metavar="FIRST-LAST")
    parser.add_argument("--static", required=True, type=_range, metavar="FIRST-LAST",
                        help="addresses that are given only to those who ask for them")
    arguments = parser.parse_args()
    pool = Pool(arguments.pool, arguments.static)
    api = Api(arguments.server, arguments.kubeconfig_dir)
    while True:
        try:
            assign(api, pool)
        except (ApiError, OSError) as error:
            print(error, file=sys.stderr, flush=True)
        time.sleep(_PERIOD)


if __name__ == "__main__":
    main()
