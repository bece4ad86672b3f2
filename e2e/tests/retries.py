"""Retries of HTTPRoute rules: what is sent again, how often, and what never is."""

import uuid

from e2e.lib import http
from e2e.lib.manifests import route, rule

ORDER = 18


def _served(t, host: str, **retry) -> tuple[str, int]:
    t.peer()
    address = t.gateway()
    parts = {"retry": retry} if retry else {}
    t.apply(route("retried", host, [rule("peer", **parts)]))
    http.get_when(address, host)
    return address


def _ask(address, host: str, fail: int, code: int, method: str = "GET", **options):
    """A request whose first `fail` attempts are failed by the backend, 0 by a closed connection."""
    headers = {"X-Attempts-Of": uuid.uuid4().hex, "X-Fail-Times": str(fail),
               "X-Fail-Code": str(code)}
    return http.request(address, host, method=method, headers=headers, **options)


def test_a_listed_status_is_tried_again_until_it_is_another(t):
    address = _served(t, "codes.example", codes=[500, 503], attempts=3, backoff="10ms")
    answer = _ask(address, "codes.example", 2, 503)
    assert (answer.status, answer.json()["attempt"]) == (200, 3), answer
    assert _ask(address, "codes.example", 3, 500).json()["attempt"] == 4


def test_the_last_answer_goes_to_the_client_when_the_attempts_are_used_up(t):
    address = _served(t, "few.example", codes=[503], attempts=2, backoff="10ms")
    assert _ask(address, "few.example", 3, 503).status == 503


def test_a_status_that_is_not_listed_is_not_tried_again(t):
    address = _served(t, "other.example", codes=[503], attempts=3, backoff="10ms")
    assert _ask(address, "other.example", 1, 502).status == 502


def test_without_retry_nothing_is_tried_again(t):
    address = _served(t, "plain.example")
    assert _ask(address, "plain.example", 1, 503).status == 503


def test_a_connection_that_breaks_before_an_answer_is_tried_again(t):
    address = _served(t, "broken.example", attempts=2, backoff="10ms")
    answer = _ask(address, "broken.example", 1, 0)
    assert (answer.status, answer.json()["attempt"]) == (200, 2), answer


def test_a_request_with_a_body_is_tried_again_with_its_body(t):
    address = _served(t, "body.example", codes=[503], attempts=2, backoff="10ms")
    answer = _ask(address, "body.example", 1, 503, "PUT", body=b"x" * 10_000)
    assert (answer.status, answer.json()["attempt"], answer.json()["body"]) == (200, 2, 10_000), \
        answer
