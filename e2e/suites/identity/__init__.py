"""identity: tokens of a real issuer, good and hostile, and key sets that change and fail.

The issuer is a program of its own on another JOSE library; see tokens.py for what it makes.
"""

import http.client
import json
import time
from contextlib import contextmanager
from pathlib import Path

from e2e.lib import http as client, results, standalone, venv
from e2e.lib.standalone import HOST, Standalone, free_port
from e2e.lib.wait import stays, wait_for
from e2e.suites.identity.objects import NAME, objects

_HERE = Path(__file__).parent
_FILE = "identity.md"
_COLUMNS = ["what", "tried", "accepted", "note"]
_INTERVAL = 30  # seconds between two fetches of a key set, whatever arrives
_FLOOD = 35
_TOLD = ("x-subject", "x-tenant-id", "authorization")  # what the backend may learn of a token
_BROKEN = ("garbage", "empty", "no-keys", "fails", "large", "elsewhere", "hangs")


class Issuer:
    """The running program."""

    def __init__(self, log):
        self.port = free_port()
        home = venv.environment(log, "identity", _HERE / "requirements.txt")
        self._process = standalone.start(log, home / "bin" / "python", "-B",
                                         _HERE / "issuer.py", self.port)

    def __enter__(self) -> "Issuer":
        standalone.wait_listens(self._process, self.port)
        return self

    def __exit__(self, *_error) -> None:
        standalone.stop(self._process)

    def control(self, word: str) -> None:
        self._ask("POST", f"/control/{word}")

    def tokens(self) -> dict:
        return self._ask("GET", "/tokens")

    def fetches(self) -> list[float]:
        return self._ask("GET", "/fetches")

    def _ask(self, method: str, path: str):
        connection = http.client.HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request(method, path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


class _Facts:
    """What was found, each with whether it should be so."""

    def __init__(self, log):
        self.log = log
        self.passed = self.failed = 0

    def add(self, what: str, holds: bool) -> None:
        self.passed += holds
        self.failed += not holds
        if not holds:
            self.log.say(f"FAILED {what}")


def run(context) -> tuple[int, int]:
    """Returns how many facts held and did not."""
    facts = _Facts(context.log)
    with Issuer(context.log) as issuer:
        port = free_port()
        with Standalone(context.log, objects(port, issuer.port)):
            address = (HOST, port)
            _good(facts, address, issuer)
            _hostile(facts, address, issuer)
            _flood(facts, address, issuer)
            _rotation(facts, address, issuer)
            _failures(facts, address, issuer)
        _no_keys_at_the_start(facts, context.log, issuer)
    return facts.passed, facts.failed


def _send(address: tuple[str, int], case: dict) -> tuple[int, dict[str, str], bytes]:
    """The request as bytes: some of it no client library would send."""
    lines = [f"GET {case['path']} HTTP/1.1", f"Host: {NAME}", "Connection: close",
             *(f"{name}: {value}" for name, value in case["headers"])]
    received = client.raw(address, ("\r\n".join(lines) + "\r\n\r\n").encode())
    head, _, body = received.partition(b"\r\n\r\n")
    if not head:
        return 0, {}, b""  # the connection was ended: refused as well
    first, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip()
               for name, _, value in (field.partition(":") for field in fields)}
    return int(first.split()[1]), headers, body


def _bearer(token: str) -> dict:
    return {"path": "/", "headers": [["Authorization", f"Bearer {token}"]]}


def _good(facts: _Facts, address, issuer: Issuer) -> None:
    first = issuer.tokens()["valid"][0]
    wait_for(lambda: _send(address, first)[0] == 200, 15, "a good token is accepted")
    good = issuer.tokens()["valid"]
    accepted = 0
    for case in good:
        status, _, body = _send(address, case)
        accepted += status == 200
        facts.add(f"good: {case['name']}: {status}", status == 200)
        if status == 200:
            # Lists, not a dict: what a client sent must not stand beside what is true.
            seen = [(name.lower(), value) for name, value in json.loads(body)["headers"]]
            told = [one for one in seen if one[0].replace("_", "-") in _TOLD]
            facts.add(f"good: {case['name']}: the backend is told {told}",
                      sorted(told) == [("x-subject", "alice"), ("x-tenant-id", "acme")])
    facts.log.say(results.row(_FILE, _COLUMNS, ["good tokens", len(good), accepted, ""]))


def _hostile(facts: _Facts, address, issuer: Issuer) -> None:
    bad = issuer.tokens()["hostile"]
    codes: dict[int, int] = {}
    for case in bad:
        status, headers, _ = _send(address, case)
        codes[status] = codes.get(status, 0) + 1
        facts.add(f"hostile: {case['name']}: {status}", status in (0, 400, 401, 413, 431))
        if status == 401:
            challenge = headers.get("www-authenticate", "")
            facts.add(f"hostile: {case['name']}: WWW-Authenticate: {challenge}",
                      challenge.startswith("Bearer"))
    note = ", ".join(f"{status}: {count}" for status, count in sorted(codes.items()))
    facts.log.say(results.row(_FILE, _COLUMNS, [
        "hostile tokens", len(bad), codes.get(200, 0), note]))


def _flood(facts: _Facts, address, issuer: Issuer) -> None:
    """Names of keys that nobody has: the issuer must not feel them."""
    unknown = issuer.tokens()["unknown"]
    before, end, sent = len(issuer.fetches()), time.time() + _FLOOD, 0
    accepted = 0
    while time.time() < end:
        accepted += _send(address, _bearer(unknown[sent % len(unknown)]))[0] == 200
        sent += 1
    fetches = issuer.fetches()
    closest = min((b - a for a, b in zip(fetches, fetches[1:])), default=float("inf"))
    facts.add(f"flood: {accepted} of {sent} accepted", accepted == 0)
    facts.add(f"flood: two fetches within {closest:.1f} s", closest > _INTERVAL - 1)
    facts.log.say(results.row(_FILE, _COLUMNS, [
        f"unknown keys for {_FLOOD} s", sent, accepted,
        f"{len(fetches) - before} fetches of the key set"]))


def _rotation(facts: _Facts, address, issuer: Issuer) -> None:
    """A new key is found by the first token that names it; the old one counts until it is gone."""
    old = issuer.tokens()["turns"]["turn-0"]
    facts.add("rotation: the first key", _send(address, _bearer(old))[0] == 200)
    issuer.control("turn")
    turns = issuer.tokens()["turns"]
    began = time.monotonic()
    wait_for(lambda: _send(address, _bearer(turns["turn-1"]))[0] == 200, _INTERVAL + 10,
             "a token by the new key is accepted")
    took = time.monotonic() - began
    facts.add("rotation: the old key beside it",
              _send(address, _bearer(issuer.tokens()["turns"]["turn-0"]))[0] == 200)
    facts.log.say(results.row(_FILE, _COLUMNS, [
        "a new key while the old one is in use", 2, 2, f"known after {took:.1f} s"]))


def _failures(facts: _Facts, address, issuer: Issuer) -> None:
    """Known keys count on while the issuer gives nothing of use; nobody else gets in."""
    stranger = _bearer(issuer.tokens()["unknown"][0])
    good = _bearer(issuer.tokens()["turns"]["turn-0"])
    for mode in ("hangs", "garbage"):
        issuer.control(mode)
        asked = len(issuer.fetches())
        refused = wait_for(lambda: _send(address, stranger)[0] == 401
                           and len(issuer.fetches()) > asked, _INTERVAL + 10,
                           f"the issuer is asked while its answer is: {mode}")
        try:
            stays(lambda: _send(address, good)[0] == 200, 6, "known keys count")
            held = refused
        except AssertionError:
            held = False
        facts.add(f"the issuer {mode}: known keys count, others do not", held)
        facts.log.say(results.row(_FILE, _COLUMNS, [
            f"a known key while the issuer's answer is: {mode}", 1, int(held), ""]))
    issuer.control("good")


def _no_keys_at_the_start(facts: _Facts, log, issuer: Issuer) -> None:
    """Without any keys nobody gets in, quickly; other routes are served; it heals by itself."""
    good = _bearer(issuer.tokens()["turns"]["turn-0"])
    for mode in _BROKEN:
        issuer.control(mode)
        asked = len(issuer.fetches())
        port = free_port()
        address = (HOST, port)
        with _released(issuer), Standalone(log, objects(port, issuer.port)):
            wait_for(lambda: len(issuer.fetches()) > asked, 10, "the issuer is asked")
            began = time.monotonic()
            status = _send(address, good)[0]
            took = time.monotonic() - began
            facts.add(f"no keys ({mode}): {status}", status in (401, 503))
            facts.add(f"no keys ({mode}): the open route",
                      _send(address, {"path": "/open", "headers": []})[0] == 200)
            healed = _heals(issuer, address, good) if mode == _BROKEN[-1] else ""
            facts.log.say(results.row(_FILE, _COLUMNS, [
                f"started while the issuer's answer is: {mode}", 1, int(status == 200),
                f"{status} after {took * 1000:.0f} ms{healed}"]))


def _heals(issuer: Issuer, address: tuple[str, int], good: dict) -> str:
    issuer.control("good")
    began = time.monotonic()
    wait_for(lambda: _send(address, good)[0] == 200, _INTERVAL + 20, "the keys are there")
    return f"; served {time.monotonic() - began:.1f} s after the issuer answers"


@contextmanager
def _released(issuer: Issuer):
    """Whoever waits for the key set is let go, also after a failure."""
    try:
        yield
    finally:
        issuer.control("good")
