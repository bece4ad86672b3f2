"""What tests say to the cluster, through kubectl as a user would."""

import json

from e2e.cluster import constants as c
from e2e.driver.paths import BIN
from e2e.driver.shell import CommandFailed, output
from e2e.lib.wait import wait_for

_command: list[str] = [f"{BIN}/kube", "kubectl", f"--kubeconfig={c.KUBECONFIG}"]


def use(command: list[str]) -> None:
    """Sets the kubectl of this run: which program, and for which cluster."""
    _command[:] = command


def kubectl(*arguments, stdin: str | None = None, check=True) -> str:
    return output(*_command, *arguments, stdin=stdin, check=check)


def apply(manifest: str | dict | list, namespace: str | None = None) -> None:
    """Applies YAML text or objects, in `namespace` where they name none."""
    where = ["--namespace", namespace] if namespace else []
    kubectl("apply", "--server-side", "--force-conflicts", *where, "-f", "-",
            stdin=_text(manifest))


def refused(manifest: str | dict, namespace: str) -> str:
    """Applies what must be refused; returns the API server's words."""
    try:
        apply(manifest, namespace)
    except CommandFailed as error:
        return str(error)
    raise AssertionError("the API server accepted what it should refuse")


def delete(manifest: str | dict | list, namespace: str | None = None) -> None:
    where = ["--namespace", namespace] if namespace else []
    kubectl("delete", "--ignore-not-found", "--wait=false", *where, "-f", "-",
            stdin=_text(manifest))


def get(kind: str, name: str = "", namespace: str = "", selector: str = "") -> dict:
    """One object, or with no name a list of them; {} if it does not exist."""
    where = ["--namespace", namespace] if namespace else []
    which = [name] if name else []
    chosen = ["--selector", selector] if selector else []
    text = kubectl("get", kind, *which, *where, *chosen, "--ignore-not-found", "-o", "json")
    return json.loads(text) if text.strip() else {}


def items(kind: str, namespace: str = "", selector: str = "") -> list[dict]:
    return get(kind, namespace=namespace, selector=selector).get("items", [])


def available(namespace: str, deployment: str) -> bool:
    """The deployment has been rolled out entirely and every replica is available."""
    found = get("deployment", deployment, namespace)
    status, wanted = found.get("status", {}), found.get("spec", {}).get("replicas", 1)
    return (
        status.get("observedGeneration", 0) >= found.get("metadata", {}).get("generation", 1)
        # A number that is 0 is not written.
        and status.get("updatedReplicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
    )


def wait_available(namespace: str, deployment: str, timeout: float = 90) -> None:
    wait_for(lambda: available(namespace, deployment), timeout,
             f"deployment {namespace}/{deployment} is available")


def node_ready(node: str) -> bool:
    conditions = get("node", node).get("status", {}).get("conditions", [])
    return any(x["type"] == "Ready" and x["status"] == "True" for x in conditions)


def condition(conditions: list[dict], kind: str) -> dict:
    """The condition of this type, or an empty one."""
    return next((x for x in conditions if x["type"] == kind), {})


def events(namespace: str, name: str, reason: str | None = None) -> list[dict]:
    """Events about an object, by its name."""
    return [
        event
        for event in items("events", namespace)
        if event["involvedObject"].get("name") == name
        and (reason is None or event.get("reason") == reason)
    ]


def pods(namespace: str, selector: str) -> list[dict]:
    return [
        pod for pod in items("pods", namespace, selector)
        if "deletionTimestamp" not in pod["metadata"]
    ]


def _text(manifest: str | dict | list) -> str:
    if isinstance(manifest, str):
        return manifest
    if isinstance(manifest, list):
        manifest = {"apiVersion": "v1", "kind": "List", "items": manifest}
    return json.dumps(manifest)
