"""What a test gets: a namespace, an echo backend, addresses, and places for numbers."""

import re
import uuid

from e2e.driver.shell import Log
from e2e.lib import http, kube, manifests, results
from e2e.lib.wait import wait_for

TIDEGATE = "tidegate-system"
SELECTOR = "app.kubernetes.io/name=tidegate"


class Case:
    """One running test. Leaving the `with` block removes what it made."""

    def __init__(self, cluster, name: str, long: bool, log: Log):
        self.cluster = cluster
        self.long = long
        self.log = log
        stem = re.sub(r"[^a-z0-9]+", "-", name.removeprefix("test_").lower())[:30].strip("-")
        self.namespace = f"t-{stem}-{uuid.uuid4().hex[:5]}"
        self._extra: list[str] = []

    def __enter__(self) -> "Case":
        kube.apply(manifests.namespace(self.namespace))
        return self

    def __exit__(self, *_error) -> None:
        for name in [self.namespace, *self._extra]:
            kube.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")

    def other_namespace(self) -> str:
        """A second namespace, removed with the first."""
        name = f"{self.namespace}-b{len(self._extra)}"
        self._extra.append(name)
        kube.apply(manifests.namespace(name))
        return name

    def apply(self, *objects: str | dict) -> None:
        for one in objects:
            kube.apply(one, self.namespace)

    def delete(self, kind: str, name: str) -> None:
        kube.kubectl("delete", kind, name, "--namespace", self.namespace, "--wait=false")

    def get(self, kind: str, name: str) -> dict:
        return kube.get(kind, name, self.namespace)

    def backend(self, name: str = "echo", replicas: int = 1) -> None:
        """An echo server with a Service on port 80; it waits until it is available."""
        self.apply(*manifests.echo(name, replicas))
        kube.wait_available(self.namespace, name)

    def peer(self, name: str = "peer", replicas: int = 1,
             command: list[str] | None = None) -> None:
        """The program `peer` (see manifests.peer); it waits until it is available."""
        self.apply(*manifests.peer(name, replicas, command))
        kube.wait_available(self.namespace, name)

    def condition(self, kind: str, name: str, condition: str, status: str, reason: str) -> dict:
        """Waits for a condition of the object, or of a route by its first parent."""

        def found():
            whole = self.get(kind, name).get("status", {})
            for part in ("parents", "ancestors"):
                whole = (whole.get(part) or [whole])[0]
            one = kube.condition(whole.get("conditions", []), condition)
            assert (one.get("status"), one.get("reason")) == (status, reason), one
            return one

        return wait_for(found, 15, f"{condition} of {kind} {name} is {status} ({reason})")

    def gateway(self, name: str = "gw", **options) -> tuple[str, int]:
        """A Gateway of our class; waits until it is programmed; its address and port."""
        self.apply(manifests.gateway(name, **options))
        return self.gateway_address(name)

    def gateway_address(self, name: str = "gw", port: int = 80) -> tuple[str, int]:
        def address():
            status = self.get("gateway", name).get("status", {})
            programmed = kube.condition(status.get("conditions", []), "Programmed")
            values = [entry["value"] for entry in status.get("addresses", [])]
            return values[0] if values and programmed.get("status") == "True" else None

        found = wait_for(address, 30, f"gateway {name} is programmed with an address"), port
        if self._serves_http(name, port):
            wait_for(lambda: http.is_open(found), 15, f"the node leads {found} to the pods")
        return found

    def _serves_http(self, name: str, port: int) -> bool:
        """Whether a listener takes HTTP there, and so connections without a route as well."""
        gateway = self.get("gateway", name)
        said = {one["name"]: one["conditions"] for one in gateway["status"].get("listeners", [])}
        return any(
            kube.condition(said.get(one["name"], []), "Programmed").get("status") == "True"
            for one in gateway["spec"]["listeners"]
            if one["port"] == port and one["protocol"] in ("HTTP", "HTTPS"))

    def ingress_address(self, port: int = 80) -> tuple[str, int]:
        """The address of Tidegate's own Service, which serves every Ingress."""

        def address():
            status = kube.get("service", "tidegate", TIDEGATE).get("status", {})
            given = status.get("loadBalancer", {}).get("ingress", [])
            return (given[0].get("ip") or given[0].get("hostname")) if given else None

        return wait_for(address, 30, "the service tidegate has an address"), port

    def say(self, text: str) -> None:
        self.log.say(text)

    def record(self, file: str, columns: list[str], values: list) -> None:
        """Adds a row to a table of results, and shows it."""
        self.log.say("       " + results.row(file, columns, values))
