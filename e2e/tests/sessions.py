"""Session persistence (GEP-1619): a client stays with its backend."""

import http.cookies

from e2e.lib import http as client, kube
from e2e.lib.manifests import route, rule
from e2e.lib.wait import wait_for

ORDER = 65
CHANNEL = "experimental"

_HOST = "session.example"


def _served(t, **session) -> tuple[str, int]:
    t.backend(replicas=3)
    address = t.gateway()
    t.apply(route("sticky", _HOST, [rule(sessionPersistence=session)]))
    client.get_when(address, _HOST)
    return address


def _cookie(address, name: str) -> tuple[http.cookies.Morsel, str]:
    """The cookie of a first answer and the pod that gave it, once there is one."""

    def given():
        answer = client.get(address, _HOST)
        jar = http.cookies.SimpleCookie(answer.headers.get("Set-Cookie", ""))
        return (jar[name], answer.pod) if name in jar else None

    return wait_for(given, 15, f"an answer sets the cookie {name}")


def _stays(address, headers: dict, pod: str) -> None:
    pods = {client.get(address, _HOST, headers=headers).pod for _ in range(30)}
    assert pods == {pod}, f"the session of {pod} went to {pods}"


def test_a_cookie_keeps_a_client_at_its_pod(t):
    address = _served(t, type="Cookie", cookie={"name": "stay"})
    morsel, pod = _cookie(address, "stay")
    _stays(address, {"Cookie": f"other=1; stay={morsel.value}"}, pod)
    others = {client.get(address, _HOST).pod for _ in range(40)}
    assert len(others) == 3, f"clients without cookie all went to {others}"
    assert morsel["path"] == "/" and not morsel["max-age"] and not morsel["expires"], morsel
    assert morsel["httponly"], "no script has any use for it"


def test_a_permanent_cookie_says_when_it_ends(t):
    address = _served(t, type="Cookie", absoluteTimeout="1h",
                      cookie={"name": "stay", "lifetimeType": "Permanent", "path": "/sub"})
    morsel, _ = _cookie(address, "stay")
    assert morsel["max-age"] == "3600" or morsel["expires"], morsel
    assert morsel["path"] == "/sub", morsel


def test_a_header_keeps_a_client_at_its_pod(t):
    address = _served(t, type="Header", header={"name": "X-Session"})

    def given():
        answer = client.get(address, _HOST)
        value = answer.headers.get("X-Session")
        return (value, answer.pod) if value else None

    value, pod = wait_for(given, 15, "an answer has the header")
    _stays(address, {"X-Session": value}, pod)


def test_every_pod_of_tidegate_knows_a_session(t):
    """Connections go to any of the pods: what one has said, all must understand."""
    address = _served(t, type="Cookie", cookie={"name": "stay"})
    for _ in range(5):
        morsel, pod = _cookie(address, "stay")
        _stays(address, {"Cookie": f"stay={morsel.value}"}, pod)


def test_a_session_whose_pod_is_gone_gets_another_one(t):
    address = _served(t, type="Cookie", cookie={"name": "stay"})
    morsel, pod = _cookie(address, "stay")
    headers = {"Cookie": f"stay={morsel.value}"}
    kube.kubectl("delete", "pod", pod, "--namespace", t.namespace)
    answer = client.get_when(address, _HOST, headers=headers)
    assert answer.pod != pod
    new = http.cookies.SimpleCookie(answer.headers.get("Set-Cookie", ""))
    assert "stay" in new, "the client has to learn of its new session"


def test_a_forged_session_is_a_new_one(t):
    address = _served(t, type="Cookie", cookie={"name": "stay"})
    _cookie(address, "stay")
    for value in ("", "x", "a" * 4000, "127.0.0.1:80", "%00"):
        answer = client.get(address, _HOST, headers={"Cookie": f"stay={value}"})
        assert answer.status == 200, f"{value[:20]!r} is answered with {answer.status}"
