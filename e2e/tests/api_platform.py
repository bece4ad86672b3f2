"""manifests/samples/api-platform, as its README tells newcomers to use it."""

import json
import re
import time

from e2e.cluster import constants as c
from e2e.driver.paths import CACHE, ROOT
from e2e.driver.shell import output
from e2e.lib import http, kube
from e2e.lib.case import Case
from e2e.lib.wait import wait_for

ORDER = 14

_SAMPLE = ROOT / "manifests" / "samples" / "api-platform"
_HOST = "api.example.com"
_ORIGIN = {"Origin": "https://app.example.com"}
_MOBILE = {"X-API-Key": "demo-mobile-key-2"}
_PARTNER = {"X-API-Key": "demo-partner-key"}

# The images of the sample, and what plays them here: nothing is pulled from anywhere.
_IMAGES = {
    "registry.k8s.io/gateway-api/conformance/echo-basic:v0.1.0": ("ECHO_IMAGE", None),
    "docker.io/valkey/valkey:8-alpine": ("REDIS_IMAGE", None),
    "docker.io/library/busybox:1.37": ("PEER_IMAGE", ["/peer", "-files=:8080", "-folder=/keys"]),
}


class _Platform:
    """The sample in the namespace of a test."""

    def __init__(self, t: Case):
        self._t = t
        t.apply(self._here(_issuer("keys")))
        for path in sorted(_SAMPLE.glob("[1-9]*.yaml")):
            for document in self._here(path.read_text()).split("\n---\n"):
                t.apply(self._playable(document))
        for name in ("shop", "redis", "issuer"):
            kube.wait_available(t.namespace, name)
        self.address = t.gateway_address("api")
        # A worker's first request finds Redis not connected yet, and is counted by its pod alone.
        http.get_when(self.address, _HOST, "/partners", headers=_PARTNER, confirm=24, timeout=60)
        http.get_when(self.address, _HOST, "/orders/7", headers=_bearer("web-app"), confirm=1,
                      timeout=60)

    def ask(self, path: str, headers: dict | None = None, method: str = "GET") -> http.Response:
        return http.request(self.address, _HOST, path, method, headers)

    def status(self, *arguments) -> int:
        return self.ask(*arguments).status

    def seen(self, *arguments) -> dict[str, list[str]]:
        """What the service received, by lower-case name."""
        answer = self.ask(*arguments)
        assert answer.status == 200, answer
        return {name.lower(): values for name, values in answer.json()["headers"].items()}

    def _here(self, text: str) -> str:
        return re.sub(r"\bapi-platform\b", self._t.namespace, text)

    def _playable(self, document: str) -> str | dict:
        """Its image exchanged for one that this cluster has."""
        image = re.search(r"image: (\S+)", document)
        if not image:
            return document
        # kubectl reads YAML for us: the driver has the standard library only.
        whole = json.loads(kube.kubectl("create", "--dry-run=client", "-o", "json", "-f", "-",
                                        stdin=document))
        name, command = _IMAGES[image.group(1)]
        container = whole["spec"]["template"]["spec"]["containers"][0]
        container |= {"image": getattr(c, name), "imagePullPolicy": "IfNotPresent"}
        if command:
            container["command"] = command
        return whole


def _issuer(*words: str) -> str:
    key = CACHE / "e2e-issuer.pem"
    return output(_SAMPLE / "issuer.sh", *words, env={"ISSUER_KEY": key}).strip()


def _bearer(app: str, *scopes: str) -> dict:
    return {"Authorization": f"Bearer {_issuer('token', app, *scopes)}"}


def test_callers_are_known_by_token_and_by_key(t):
    platform = _Platform(t)
    nobody = platform.ask("/orders/7")
    assert nobody.status == 401, nobody
    assert 'Bearer realm="api"' in nobody.headers["WWW-Authenticate"], nobody.headers
    wrong = _bearer("web-app")
    wrong["Authorization"] += "x"
    refused = platform.ask("/orders/7", wrong)
    assert refused.status == 401, refused
    assert "invalid_token" in refused.headers["WWW-Authenticate"], refused.headers
    for headers in (_bearer("web-app"), _bearer("mobile-app"), _MOBILE,
                    {"X-API-Key": "demo-mobile-key-1"}, _PARTNER):
        assert platform.status("/orders/7", headers) == 200, headers
    assert platform.status("/orders/7", {"X-API-Key": "demo-mobile-key-3"}) == 401


def test_the_service_is_told_who_asks_and_not_how_they_showed_it(t):
    platform = _Platform(t)
    forged = {"X-Consumer-Name": "admin", "X-Consumer-Plan": "gold", "X-Tenant-ID": "evil",
              "X_Consumer_Name": "admin", "X-Debug": "1"}
    seen = platform.seen("/orders/7", {**_bearer("web-app"), **forged})
    assert seen["x-consumer-name"] == ["web-app"], seen
    assert seen["x-consumer-groups"] == ["apps"], seen
    assert seen["x-consumer-plan"] == ["free"], seen
    assert seen["x-subject"] == ["alice"], seen
    assert seen["x-tenant-id"] == ["acme"], seen
    assert seen["x-platform"] == ["api"], seen
    hidden = {"authorization", "x-api-key", "x-debug", "x_consumer_name"} & set(seen)
    assert not hidden, f"the service got {hidden}"
    seen = platform.seen("/orders/7", {**_MOBILE, **forged})
    assert seen["x-consumer-name"] == ["mobile-app"], seen
    assert seen["x-subject"] == ["mobile-app"], seen  # a key has no other subject
    assert not {"authorization", "x-api-key", "x-tenant-id"} & set(seen), seen


def test_groups_and_scopes_say_what_may_be_done(t):
    platform = _Platform(t)
    answer = platform.ask("/orders/7", _bearer("web-app"), "DELETE")
    assert answer.status == 403, answer
    assert platform.status("/orders/7", _bearer("web-app", "orders:delete"), "DELETE") == 200
    assert platform.status("/orders/7", _bearer("web-app", "orders:read"), "DELETE") == 403
    assert platform.status("/partners/stock", _MOBILE) == 403
    assert platform.status("/partners/stock", _PARTNER) == 200
    assert platform.status("/orders", _PARTNER, "POST") == 403
    assert platform.status("/orders", _MOBILE, "POST") == 200


def test_guests_read_the_catalog_and_wrong_keys_are_told_so(t):
    platform = _Platform(t)
    seen = platform.seen("/catalog", {"X-Consumer-Name": "admin"})
    assert seen["x-consumer-name"] == ["guest"], seen
    assert platform.seen("/catalog", _PARTNER)["x-consumer-name"] == ["partner"]
    assert platform.status("/catalog", {"X-API-Key": "demo-mobile-key-3"}) == 401
    assert platform.status("/catalog", {"Authorization": "Bearer x.y.z"}) == 401


def test_each_consumer_has_what_its_plan_gives_in_all_pods_together(t):
    platform = _Platform(t)
    before = time.monotonic()
    free = [platform.ask("/orders", _bearer("web-app")) for _ in range(25)]
    codes = [one.status for one in free]
    # The first request that was answered in setting up counts as well.
    assert codes.count(200) in (18, 19, 20), codes
    assert set(codes) == {200, 429}, codes
    refused = next(one for one in free if one.status == 429)
    assert 1 <= int(refused.headers["Retry-After"]) <= 60, refused.headers
    assert refused.headers["X-RateLimit-Limit"] == "20", refused.headers
    assert refused.headers["X-RateLimit-Remaining"] == "0", refused.headers
    assert "RateLimit" in refused.headers and "RateLimit-Policy" in refused.headers
    gold = [platform.status("/orders", _MOBILE) for _ in range(105)]
    if time.monotonic() - before < 50:  # else the first of them have left the window
        assert gold.count(200) == 100, gold
    assert platform.status("/orders", _PARTNER) == 200


def test_without_redis_nobody_is_turned_away_and_it_is_shared_again_after(t):
    platform = _Platform(t)
    scale = ("scale", "deployment/redis", "--namespace", t.namespace)
    kube.kubectl(*scale, "--replicas=0")
    wait_for(lambda: not kube.pods(t.namespace, "app=redis"), 30, "Redis is away")
    codes = [platform.status("/orders", _PARTNER) for _ in range(50)]
    assert set(codes) == {200}, codes
    kube.kubectl(*scale, "--replicas=1")
    kube.wait_available(t.namespace, "redis")

    def shared() -> bool:
        """A new Redis has counted nothing: each answer of any pod has one less left."""
        left = [int(platform.ask("/orders", _PARTNER).headers["X-RateLimit-Remaining"])
                for _ in range(6)]
        return left == [left[0] - i for i in range(6)]

    wait_for(shared, 30, "the pods count together again")


def test_browsers_of_the_web_app_may_call(t):
    platform = _Platform(t)
    ask = {**_ORIGIN, "Access-Control-Request-Method": "POST",
           "Access-Control-Request-Headers": "authorization"}
    preflight = platform.ask("/orders", ask, "OPTIONS")
    assert preflight.status in (200, 204), preflight
    assert preflight.headers["Access-Control-Allow-Origin"] == _ORIGIN["Origin"], preflight.headers
    answer = platform.ask("/orders", {**_ORIGIN, **_bearer("web-app")})
    assert answer.status == 200, answer
    assert answer.headers["Access-Control-Allow-Origin"] == _ORIGIN["Origin"], answer.headers
    assert answer.headers["X-Content-Type-Options"] == "nosniff", answer.headers
    assert answer.json()["path"] == "/v1/orders", answer.body
    refused = platform.ask("/orders", _ORIGIN)
    assert refused.status == 401, refused
    assert refused.headers["Access-Control-Allow-Origin"] == _ORIGIN["Origin"], (
        "a script must be able to read that it has to sign in")


def test_every_object_of_the_sample_says_that_all_is_well(t):
    platform = _Platform(t)
    assert platform.status("/catalog") == 200
    for kind in ("middleware", "ratelimit", "consumer"):
        for one in kube.items(kind, t.namespace):
            name = one["metadata"]["name"]
            wait_for(lambda kind=kind, name=name: _well(t.get(kind, name)), 20,
                     f"{kind} {name} is well")


def _well(one: dict) -> bool:
    status = one.get("status", {})
    conditions = status.get("conditions", []) + [
        condition for ancestor in status.get("ancestors", [])
        for condition in ancestor["conditions"]]
    assert conditions, f"no status: {status}"
    wrong = [one for one in conditions if one["status"] != "True"]
    assert not wrong, wrong
    return True
