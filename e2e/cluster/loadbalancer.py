"""The load-balancer double: gives Services of type LoadBalancer an address.

kube-proxy already forwards a Service's load-balancer address to its pods, and
the host routes the pool to the node; so all that is left of a cloud's part is
to choose the address and write it into the status. A requested address is
honoured; one that is taken or out of the pool leaves the Service pending.
"""

import argparse
import sys
import time

from e2e.lib.api import Api, ApiError

_PERIOD = 0.2


class Pool:
    """Free addresses, lowest first, and who holds the others."""

    def __init__(self, addresses: list[str]):
        self.free = list(addresses)
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
        if not self.free or (wanted and wanted not in self.free):
            return None
        address = wanted or self.free[0]
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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kubeconfig-dir", help="admin.crt, admin.key and ca.crt")
    parser.add_argument("--server", required=True)
    parser.add_argument("--first", required=True, help="the pool's first address")
    parser.add_argument("--count", type=int, required=True)
    arguments = parser.parse_args()
    stem, _, last = arguments.first.rpartition(".")
    pool = Pool([f"{stem}.{int(last) + i}" for i in range(arguments.count)])
    api = Api(arguments.server, arguments.kubeconfig_dir)
    while True:
        try:
            assign(api, pool)
        except (ApiError, OSError) as error:
            print(error, file=sys.stderr, flush=True)
        time.sleep(_PERIOD)


if __name__ == "__main__":
    main()
