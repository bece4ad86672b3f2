"""Limits that three pods count together in one Redis, and each for itself while it is away."""

import time
from collections import Counter
from contextlib import contextmanager

from e2e.lib import http, kube
from e2e.lib.case import SELECTOR, TIDEGATE, Case
from e2e.lib.counting import new_key, together
from e2e.lib.http import Address
from e2e.lib.keepalive import Client, Stream, Streams
from e2e.lib.manifests import extension, policy, redis, route, secret
from e2e.lib.wait import wait_for

ORDER = 15
BREAKS_CLUSTER = True  # it speaks to pods by their addresses, and stops a process of one

_FILE = "limits-cluster.md"
_COLUMNS = ["algorithm", "pods", "asked in a window", "let through", "bound", "by each pod"]
_HOST = "shared.example"
_PODS = 3
_ADMIN = 9901

# A user who may do what docs/rate-limit-stores.md says, and no more.
_LOGIN = {"username": "tidegate", "password": "not-what-it-was"}
_MAY = ["+eval", "+evalsha", "+time", "+get", "+set", "+del", "+pexpire", "+zadd", "+zcard",
        "+zrange", "+zremrangebyscore", "+select"]
_USERS = ["--user", "default", "off",
          "--user", _LOGIN["username"], "on", f">{_LOGIN['password']}", "~tidegate:*", *_MAY]

_LIMIT, _BOUND = 1_000, (990, 1_010)
_ALGORITHMS = {"fixed": "FixedWindow", "log": "SlidingLog"}
_ASKED = 1_200
# A second, to each pod. Were the limit divided by the pods, those that are asked less would not
# use up their share.
_RATES = (60, 40, 20)
_WINDOW = 60
_ROOM = 20  # seconds that asking so often takes at most, on a machine that is not busy

_SMALL, _EACH = 30, 10  # a limit, and what each of three pods lets through by itself
_NOBODY_REACHES = 1_000_000


@contextmanager
def _served(t: Case):
    """The limits on three pods; their addresses."""
    t.apply(*redis("redis", *_USERS), secret("redis", **_LOGIN),
            policy("Middleware", "answer", directResponse={"statusCode": 200, "body": "ok\n"}),
            # How it counts is asked for, not how busy the machine is: its time is long.
            *(_limit(t, name, "Closed", _LIMIT, "1m", algorithm, timeout="1s")
              for name, algorithm in _ALGORITHMS.items()),
            _limit(t, "many", "Local", _NOBODY_REACHES, "1h", "FixedWindow"),
            _limit(t, "few", "Local", _SMALL, "1h", "SlidingLog"),
            route("shared", _HOST, [_rule(name) for name in (*_ALGORITHMS, "many", "few")]))
    t.gateway()
    kube.wait_available(t.namespace, "redis")
    with _three():
        port = t.get("service", "gw-tidegate")["spec"]["ports"][0]["targetPort"]
        pods = [(pod["status"]["podIP"], port) for pod in kube.pods(TIDEGATE, SELECTOR)]
        assert len(pods) == _PODS, pods
        for name in (*_ALGORITHMS, "many"):
            for pod in pods:
                wait_for(lambda pod=pod, name=name: _warm(pod, name), 30,
                         f"all workers of {pod[0]} have Redis for {name}")
        yield pods


@contextmanager
def _three():
    before = kube.get("deployment", "tidegate", TIDEGATE)["spec"]["replicas"]
    try:
        _scale(TIDEGATE, "tidegate", _PODS)
        yield
    finally:
        _scale(TIDEGATE, "tidegate", before)


def _scale(namespace: str, deployment: str, replicas: int) -> None:
    kube.kubectl("scale", f"deployment/{deployment}", "--namespace", namespace,
                 f"--replicas={replicas}")
    kube.wait_available(namespace, deployment)


def _limit(t: Case, name: str, failure_mode: str, requests: int, window: str, algorithm: str,
           **store) -> dict:
    """A limit for each value of X-Key."""
    login = {"topology": "Single", "addresses": [f"redis.{t.namespace}.svc:6379"],
             "secretRef": {"name": "redis"}}
    one = {"name": name, "requests": requests, "window": window, "algorithm": algorithm,
           "key": [{"type": "Header", "name": "X-Key"}]}
    return policy("RateLimit", name, failureMode=failure_mode, limits=[one],
                  store={"type": "Redis", "redis": {**login, **store}})


def _rule(name: str) -> dict:
    return {"matches": [{"path": {"type": "Exact", "value": f"/{name}"}}],
            "filters": [extension("RateLimit", name), extension("Middleware", "answer")]}


def _warm(pod: Address, name: str) -> bool:
    """Whether each worker is connected to the store: it meets some of so many connections."""
    for _ in range(16):
        client = Client(pod, _HOST)
        try:
            answer = client.get(f"/{name}", {"X-Key": "warm"})
        except OSError:  # the pod does not listen on this port yet
            return False
        finally:
            client.close()
        if answer.status != 200 or "x-ratelimit-remaining" not in answer.headers:
            return False
    return True


def test_three_pods_let_through_together_what_one_limit_allows(t):
    with _served(t) as pods:
        for name, streams in _in_one_window(pods).items():
            _judge(t, name, streams)


def _in_one_window(pods: list[Address]) -> dict[str, list[Stream]]:
    """All algorithms at the same time; once more if the machine was too busy for that."""
    for attempt in range(3):
        wait_for(lambda: _left() > _ROOM, _WINDOW, "a window has begun")
        end = time.time() + _left()
        key = {"X-Key": f"attempt-{attempt}"}
        found = {name: [Stream(pod, _HOST, f"/{name}", rate, key)
                        for pod, rate in zip(pods, _RATES, strict=True)] for name in _ALGORITHMS}
        with Streams([stream for streams in found.values() for stream in streams]):
            wait_for(lambda found=found, end=end: _have_asked(found) or time.time() > end,
                     _WINDOW + 10, f"{_ASKED} requests, or the end of the window")
        last = max(one.ended for streams in found.values() for one in Streams(streams).answers)
        if _have_asked(found) and last < end:
            return found
    raise AssertionError(f"{_ASKED} requests for each algorithm take longer than {_WINDOW} s here")


def _left() -> float:
    """Seconds until the next window that begins with the clock's minute."""
    return _WINDOW - time.time() % _WINDOW


def _have_asked(found: dict[str, list[Stream]]) -> bool:
    return all(len(Streams(streams).answers) >= _ASKED for streams in found.values())


def _judge(t: Case, name: str, streams: list[Stream]) -> None:
    both = Streams(streams)
    codes = Counter(one.status for one in both.answers)
    each = [sum(one.status == 200 for one in stream.answers) for stream in streams]
    t.record(_FILE, _COLUMNS, [_ALGORITHMS[name], len(streams), len(both.answers), codes[200],
                               f"{_BOUND[0]} to {_BOUND[1]}", each])
    assert not both.broken and set(codes) == {200, 429}, f"{name}: {codes}, {both.broken} broken"
    assert _BOUND[0] <= codes[200] <= _BOUND[1], f"{name}: {codes[200]} of {len(both.answers)}"
    assert all(each), f"{name}: not every pod let something through: {each}"


def test_while_redis_is_away_each_pod_counts_its_share_and_nobody_gets_an_error(t):
    with _served(t) as pods:
        _wait_together(pods)
        load = [Stream(pod, _HOST, "/many", 20, {"X-Key": "load"}) for pod in pods]
        with Streams(load) as streams:
            for failure in (_paused, _gone):
                before = {pod: _unanswered(pod) for pod in pods}
                with failure(t):
                    for pod in pods:
                        wait_for(lambda pod=pod, before=before: _unanswered(pod) > before[pod],
                                 20, f"{pod[0]} says in its metrics that Redis does not answer")
                    wait_for(lambda: _each(pods) == [_EACH] * _PODS, 30,
                             f"each of {_PODS} pods lets {_EACH} of {_SMALL} through")
                _wait_together(pods)
        codes = Counter(one.status for one in streams.answers)
        assert set(codes) == {200} and not streams.broken, f"{codes}, {streams.broken} broken"


def _wait_together(pods: list[Address]) -> None:
    wait_for(lambda: together(pods, _HOST, "/many"), 30, "the pods count together")


@contextmanager
def _paused(t: Case):
    """Redis keeps its connections and answers nothing."""
    where = (t.namespace, kube.pods(t.namespace, "app=redis")[0]["metadata"]["name"], "redis")
    t.cluster.pause_pod(*where)
    try:
        yield
    finally:
        t.cluster.resume_pod(*where)


@contextmanager
def _gone(t: Case):
    """There is no Redis; another one comes, which has counted nothing."""
    _scale(t.namespace, "redis", 0)
    try:
        yield
    finally:
        _scale(t.namespace, "redis", 1)


def _unanswered(pod: Address) -> float:
    """Questions that Redis did not answer, as the pod tells of them."""
    metrics = http.get((pod[0], _ADMIN), "admin", "/metrics").body.decode()
    lines = [line for line in metrics.splitlines()
             if line.startswith("tidegate_ratelimit_store_errors_total")]
    assert lines, "no metric tells of the store's errors"
    return sum(float(line.split()[-1]) for line in lines)


def _each(pods: list[Address]) -> list[int]:
    """What each pod lets through of a new key, asked for more than its share."""
    key = new_key()
    passed = []
    for pod in pods:
        client = Client(pod, _HOST)
        try:
            codes = [client.get("/few", key).status for _ in range(_EACH + 5)]
        finally:
            client.close()
        passed.append(codes.count(200))
    return passed
