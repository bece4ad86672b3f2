"""Issuers in the cluster whose keys pods fetch: one that changes them, one that goes away."""

import hashlib

from e2e.cluster import constants as c
from e2e.lib import http, kube
from e2e.lib.case import SELECTOR, TIDEGATE, Case
from e2e.lib.http import Address
from e2e.lib.manifests import extension, policy, route
from e2e.lib.tokens import SigningKey, key_set
from e2e.lib.wait import wait_for

ORDER = 16

_HOST = "issuers.example"
_ISSUER = "https://issuer.example"
_REFETCH = 30  # seconds between two fetches of a key set, whatever tokens come
_PATIENCE = 3 * _REFETCH
_ALL_PODS = 24  # answers in a row after which every pod has been met


def _published(name: str, *keys: SigningKey) -> list[dict]:
    """The issuer's key set at its Service; with other keys its pods are replaced."""
    labels, text = {"app": name}, key_set(*keys)
    container = {
        "name": "issuer", "image": c.PEER_IMAGE, "imagePullPolicy": "IfNotPresent",
        "command": ["/peer", "-files=:8080", "-folder=/keys"],
        "volumeMounts": [{"name": "keys", "mountPath": "/keys"}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    # A ConfigMap of its own for each set: what is mounted changes only much later.
    version = hashlib.sha256(text.encode()).hexdigest()[:8]
    config = f"{name}-{version}"
    spec = {"containers": [container], "volumes": [{"name": "keys", "configMap": {"name": config}}]}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": config},
         "data": {"jwks.json": text}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
         "spec": {"replicas": 1, "selector": {"matchLabels": labels},
                  "template": {"metadata": {"labels": labels}, "spec": spec}}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
         "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]}},
    ]


def _tokens_of(name: str, **remote) -> dict:
    """A Middleware that takes tokens by the keys that the Service of this name publishes."""
    keys = {"backendRef": {"name": name, "port": 80}, "path": "/jwks.json", **remote}
    return policy("Middleware", name, authentication={
        "methods": [{"jwt": {"issuer": _ISSUER, "keys": {"remote": keys}}}]})


def _rule(name: str) -> dict:
    return {"matches": [{"path": {"type": "Exact", "value": f"/{name}"}}],
            "filters": [extension("Middleware", name), extension("Middleware", "answer")]}


def _answers(address: Address, path: str, key: SigningKey, status: int, timeout: float) -> None:
    http.get_when(address, _HOST, path, status=status, timeout=timeout, confirm=_ALL_PODS,
                  headers=key.bearer(_ISSUER, sub="alice"))


def test_a_new_key_is_found_and_known_keys_outlive_their_issuer(t):
    """Both at the same time, because each waits for the next fetch."""
    first, second, stays = (SigningKey(name) for name in ("first", "second", "stays"))
    t.apply(*_published("turning", first), *_published("leaving", stays))
    for name in ("turning", "leaving"):
        kube.wait_available(t.namespace, name)
    t.apply(policy("Middleware", "answer", directResponse={"statusCode": 200, "body": "ok\n"}),
            # The one is fetched again because of a token, the other because it is time.
            _tokens_of("turning"), _tokens_of("leaving", refresh=f"{_REFETCH}s"),
            route("issuers", _HOST, [_rule(name) for name in ("turning", "leaving")]))
    address = t.gateway()
    _answers(address, "/turning", first, 200, 20)
    _answers(address, "/leaving", stays, 200, 20)
    http.get_when(address, _HOST, "/leaving", status=401)
    pods = _pods()

    _scale(t, "leaving", 0)
    t.apply(*_published("turning", first, second))
    kube.wait_available(t.namespace, "turning")
    _answers(address, "/turning", second, 200, _PATIENCE)
    _answers(address, "/turning", first, 200, 5)
    told = _wait_told(t, "leaving")
    assert f"Service {t.namespace}/leaving:80" in told, told
    assert "24 hours" in told, told
    _is_described(t, "leaving", told)
    _answers(address, "/leaving", stays, 200, 5)
    _answers(address, "/leaving", second, 401, 5)
    assert not _note(t, "turning"), _note(t, "turning")

    _scale(t, "leaving", 1)
    wait_for(lambda: not _note(t, "leaving"), _PATIENCE, "the status has nothing to tell any more")
    assert _pods() == pods, f"pods were {pods} and are {_pods()}"


def _wait_told(t: Case, name: str) -> str:
    """What the status says of the keys; the policy itself is as good as before."""

    def told():
        note = _note(t, name)
        assert "cannot be fetched" in note, note
        return note

    return wait_for(told, _PATIENCE, f"the status of {name} says that its issuer is away")


def _note(t: Case, name: str) -> str:
    """The message of the Middleware's condition Accepted, which must be true."""
    ancestors = t.get("middleware", name).get("status", {}).get("ancestors", [])
    assert ancestors, f"{name} has no status"
    accepted = kube.condition(ancestors[0]["conditions"], "Accepted")
    assert accepted.get("status") == "True", accepted
    return accepted.get("message", "")


def _is_described(t: Case, name: str, told: str) -> None:
    """What `kubectl describe` shows: the condition, and a Warning of its own."""

    def warned():
        events = kube.events(t.namespace, name, "KeysUnreachable")
        return [event for event in events if event["type"] == "Warning"]

    events = wait_for(warned, 15, f"an event says that the issuer of {name} is away")
    assert any(f"{t.namespace}/leaving" in event["message"] for event in events), events
    shown = kube.kubectl("describe", "middleware", name, "--namespace", t.namespace)
    assert told in shown and "KeysUnreachable" in shown, shown


def _pods() -> dict[str, int]:
    """Tidegate's pods, and how often their containers were started again."""
    return {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"]
            for pod in kube.pods(TIDEGATE, SELECTOR)}


def _scale(t: Case, deployment: str, replicas: int) -> None:
    kube.kubectl("scale", f"deployment/{deployment}", "--namespace", t.namespace,
                 f"--replicas={replicas}")
