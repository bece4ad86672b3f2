"""The objects of the suite: one route that asks for a token, and one that does not."""

from e2e.lib.manifests import POLICY_API, extension
from e2e.lib.standalone import backend, gateway, route

NAME = "identity.example"


def objects(port: int, issuer_port: int) -> list[dict]:
    guarded = route("issuer", filters=[extension("Middleware", "who")])
    open_rule = {"matches": [{"path": {"type": "Exact", "value": "/open"}}],
                 "backendRefs": [{"name": "issuer", "port": 80}]}
    guarded["spec"]["rules"].append(open_rule)
    guarded["spec"]["hostnames"] = [NAME]
    return [*gateway(port), *backend("issuer", issuer_port), guarded, _who()]


def _who() -> dict:
    jwt = {
        "issuer": "https://issuer.example",
        "audiences": ["api"],
        "keys": {"remote": {"backendRef": {"name": "issuer", "port": 80}, "path": "/jwks.json"}},
        "leeway": "60s",
        "maxLifetime": "1h",
        "requiredClaims": [{"name": "tenant", "values": ["acme"]}],
        "claimsToHeaders": [{"claim": "tenant", "header": "X-Tenant-ID"}],
        "consumerClaim": "azp",
    }
    return {"apiVersion": POLICY_API, "kind": "Middleware",
            "metadata": {"name": "who", "namespace": "default"},
            "spec": {"authentication": {
                "realm": "e2e",
                "headers": {"subject": "X-Subject", "consumer": "X-Consumer-Name"},
                "methods": [{"jwt": jwt}]}}}
