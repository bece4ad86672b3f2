"""The rows of the table: what is asked, of whom, and what the goal is."""

from dataclasses import dataclass

from bench.lib.loads import H2load, Hold, Nothing, Own, Wrk

ALL = ("nginx", "haproxy", "envoy", "traefik", "caddy", "tidegate")
MOST = ("nginx", "haproxy", "envoy", "tidegate")
LEAN = ("nginx", "haproxy", "tidegate")
PAIR = ("nginx", "tidegate")


@dataclass(frozen=True)
class Goal:
    """`metric` of Tidegate is at most `limit`: times that of `reference`, or in all."""

    limit: float
    metric: str = "cpu_us"
    reference: str | None = "nginx"
    words: str = "nginx"  # the reference, for readers


@dataclass(frozen=True)
class Row:
    """`peers` are proxies, in the row's variant of their config unless `name:variant` says so."""

    name: str
    title: str
    load: object
    peers: tuple[str, ...]
    goals: tuple[Goal, ...] = ()
    variant: str = "plain"
    metric: str = "cpu_us"  # what the chart and the first table show
    quick: bool = False
    cores: str = "proxy"  # `both`: the proxy may use the load's core too
    connections: int = 4_096  # that the proxies must be able to hold
    note: str = ""
    redis: bool = False  # one runs on the load's core
    reason: str = ""  # why a goal is missed, as measured; shown while it is


_MEMORY = "pss_mb"

# Good until 2100; nobody has the private half of its key.
_TOKEN = (
    "Authorization: Bearer eyJhbGciOiAiUlMyNTYiLCAia2lkIjogImJlbmNoIiwgInR5cCI6ICJKV1QifQ"
    ".eyJpc3MiOiJodHRwczovL2lzc3Vlci5iZW5jaC5leGFtcGxlIiwiYXVkIjoiYXBpIiwic3ViIjoidXNlci0"
    "wMDAwMDEiLCJhenAiOiJ3ZWItYXBwIiwidGVuYW50IjoiYWNtZSIsImdyb3VwcyI6WyJhcHBzIl0sInNjb3B"
    "lIjoib3JkZXJzOnJlYWQgb3JkZXJzOndyaXRlIiwiaWF0IjoxNzY3MjI1NjAwLCJuYmYiOjE3NjcyMjU2MDA"
    "sImV4cCI6NDEwMjQ0NDgwMCwianRpIjoiMGY2ZDZhNGUtNmM3Zi00YTJlLTllMGQtMWYyZjFmM2E0YjVjIn0"
    ".pSmjTWbGaBPw-CziXC_LIMm_7P2IeR_8Ao2wbz8w8nMO9g50fcQwqDMMIy5SlVpIZdzobdMFu62JKVIRTsI"
    "z-b2cKRBMKh6e5IC5WZFamtibmMeTrak-5p1xF0pLNTNEZJaGVc6u_oIShSwsMPkOHC1q2H-naoG-DhZB9Lu"
    "MHW2HOstjTioUFP3XbaW8hL0iKSeQP3XxYMuC5UBKF4XOJDO8swg7S1NHw9j1JP5Zv_IbF38TLV2PUX2U_OJ"
    "e2UC5p0L6TKxVZVCCJe7JPv3DS0P6G514BK9JrdN5EcpQUmfnjwKonZoJiTsaDK3aSyMXLIjWYbJwjejfeHQ"
    "Sackt0A")

ROWS = [
    Row("small-64", "HTTP/1.1 small GET, 64 connections", Wrk(64), (*ALL, "nginx:forwarded"),
        (Goal(0.85),), quick=True,
        note="`nginx:forwarded` sets the same X-Forwarded-* and X-Request-Id fields as Tidegate.",
        reason="Four system calls are four fifths of what nginx costs, and Tidegate makes the same "
               "four: a bare loop on httparse, which only passes heads on, had 0.94 here. nginx's "
               "row adds no fields; with those that Tidegate adds (`nginx:forwarded`) it costs "
               "more than Tidegate."),
    Row("small-8", "the same, 8 connections", Wrk(8), LEAN, (Goal(0.95),), quick=True,
        reason="Two reads, two writes and 0.45 to 0.49 `epoll_wait` a request by `strace` (nginx: "
               "the same reads and writes, 0.6 to 0.96), and no more system time. What is more is "
               "user time, for the fields that nginx's row does not add: see the first row."),
    Row("small-1000", "the same, 1,000 connections", Wrk(1_000), LEAN, (Goal(0.95),), quick=True),
    Row("small-rate", "the same at a fixed rate, 70 % of nginx's best", Own(64, 0.7), LEAN,
        note="All get the same requests a second, so none gains from larger batches."),
    Row("fields", "small GET with the 12 header fields of a browser",
        Wrk(64, fields=(
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "Accept-Language: en-US,en;q=0.5", "Accept-Encoding: gzip, deflate, br, zstd",
            "Referer: https://bench.example/index.html", "Upgrade-Insecure-Requests: 1",
            "Sec-Fetch-Dest: document", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Site: same-origin",
            "Priority: u=0, i", "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark")),
        LEAN),
    Row("10k", "10 KB answers", Wrk(64, "/10k"), ALL, (Goal(1.0),),
        reason="Both make one read and one write a side, and where system calls were slower both "
               "took 17.4 µs; where they are fast, what is left is more of the whole."),
    Row("1m", "1 MB answers", Wrk(16, "/1m"), (*MOST, "nginx:bulk-512k"), (Goal(1.0),),
        variant="bulk", note="nginx and HAProxy with buffers of 64 KiB; `nginx:bulk-512k` with "
                             "512 KiB for each transfer."),
    Row("upload", "1 MB uploads", Wrk(16, "/upload", upload=1_000_000),
        (*MOST, "nginx:bulk-512k"), (Goal(1.0),), variant="bulk"),
    Row("close", "a new connection for every request", Own(64, flags=("--close",)), MOST,
        (Goal(1.0),),
        reason="The load's core is full and the proxies wait, so a proxy wakes up for less work: "
               "rounds differ by half. 8 system calls a connection by `strace` where nginx has "
               "9; other runs had 0.96 and 1.05."),
    Row("tls", "TLS 1.3 keep-alive GET", Wrk(64, tls=True), ALL, (Goal(0.9),), quick=True,
        reason="On the edge: other runs had 0.78 (five rounds) and 0.90 (two). System time is the "
               "same."),
    Row("tls-full", "TLS 1.3 full handshakes", Own(16, flags=("--tls", "--close")), MOST,
        (Goal(1.0),)),
    Row("tls-resumed", "TLS 1.3 resumed handshakes",
        Own(16, flags=("--tls", "--close", "--resume")), MOST, (Goal(1.0),)),
    Row("h2-10", "HTTP/2 over TLS, 10 streams", H2load(10, tls=True), LEAN, (Goal(0.9),)),
    Row("h2-100", "HTTP/2 over TLS, 100 streams", H2load(100, tls=True), ALL, (Goal(0.9),)),
    Row("h2c-10", "HTTP/2 in clear, 10 streams", H2load(10), LEAN, (Goal(0.9),)),
    Row("h2c-100", "HTTP/2 in clear, 100 streams", H2load(100), LEAN, (Goal(0.9),), quick=True),
    Row("grpc", "gRPC unary, HTTP/2 to HTTP/2", H2load(10, grpc=True), MOST, (Goal(0.8),),
        reason="On the edge: nginx took 11.4 to 19.4 µs in this run. 0.59 in five turns of four "
               "seconds later that day, 0.49 in an earlier full run."),
    Row("websocket", "WebSocket echo, 64-byte messages",
        Own(64, flags=("--path", "/ws", "--websocket", "64")), LEAN, (Goal(1.0),)),
    Row("log", "small GET, access log on (JSON, to a file)", Wrk(64), ALL, (Goal(0.9),),
        variant="log",
        reason="Rounds differ by more than the goal is off (nginx: 8.7 to 14.8 µs). 0.76 in an "
               "earlier full run where system calls were slower, 1.15 in five turns of four "
               "seconds later that day; why was not found out."),
    Row("hosts", "5,000 hosts, random host", Own(64, flags=("--hosts", "5000")),
        (*PAIR, "tidegate:plain"),
        (Goal(1.05, reference="tidegate:plain", words="our single route"),), variant="hosts",
        reason="Memory, not lookup: by `perf` 7 % of the time are waits for cache misses that "
               "follow one another (place and name of the host, rule, targets, counters), and "
               "what they push out is missing in the kernel. Other runs had 1.03 to 1.13; huge "
               "pages for the heap made no difference. nginx costs more in this row."),
    Row("policies", "JWT, rate limit, header changes, CORS", Wrk(64, fields=(
        "Origin: https://app.example.com", "X-Debug: 1", _TOKEN)),
        ("nginx", "nginx:policies-noauth", "tidegate", "tidegate:plain"),
        (Goal(1.35, reference="tidegate:plain", words="our plain row"), Goal(1.0)),
        variant="policies",
        note="nginx with limit_req, headers and auth_request, which asks the origin about every "
             "token; `nginx:policies-noauth` without auth_request. Only Tidegate verifies it."),
    Row("jwt", "a token on every request (RS256)", Wrk(64, fields=(_TOKEN,)),
        ("tidegate", "tidegate:plain"), variant="jwt",
        note="Verified once, then known by its hash until it expires."),
    Row("limits", "three rate limits, counted in the pod", Wrk(64), ("tidegate", "tidegate:plain"),
        variant="limits"),
    Row("limits-redis", "the same three, counted in Redis", Wrk(64), ("tidegate", "tidegate:plain"),
        variant="limits-redis", redis=True,
        note="One trip a request; Redis shares the load's core, and its CPU is not in the figure."),
    Row("latency", "latency at half load", Own(64, 0.5), LEAN,
        (Goal(1.0, "p50_us"), Goal(1.0, "p99_us")), metric="p50_us",
        reason="Client, proxy and origin share two cores, which are 94 and 79 % busy at this rate: "
               "who waits for a core waits as long as others take. CPU a request is 1.02 of "
               "nginx; no other cause was found."),
    Row("workers", "two workers instead of one, same load", Own(64, 0.5),
        ("tidegate:plain", "tidegate"),
        (Goal(1.05, reference="tidegate:plain", words="one worker"),),
        variant="workers-2", cores="both",
        note="Both may use two cores; the rate is half of nginx's best.",
        reason="Each of two finds half as much to do when it wakes: 0.9 `epoll_wait` and 0.6 "
               "switches a request where one worker has 0.45 and 0.45. User time is less with two, "
               "so nothing that they share is waited for."),
    Row("memory", "memory, idle", Nothing(), ALL, (Goal(20, _MEMORY, None),), metric=_MEMORY,
        quick=True),
    Row("memory-10000", "memory with 10,000 idle connections", Hold(10_000), MOST,
        (Goal(1.0, _MEMORY),), metric=_MEMORY, connections=10_240,
        reason="Without any connection it is 15.4 MB, as much as nginx with 10,000: 14.5 of them are "
               "pages of the program that starting it has touched. A connection takes 2.0 KB, "
               "nginx's 0.7."),
    Row("memory-tls", "memory with 5,000 idle TLS connections", Hold(5_000, tls=True), LEAN,
        metric=_MEMORY, connections=10_240),
    Row("memory-5000", "memory with 5,000 routes, after load",
        Own(64, flags=("--hosts", "5000")), PAIR, (Goal(40, _MEMORY, None),), variant="hosts",
        metric=_MEMORY),
]


def choose(names: list[str] | None, quick: bool) -> list[Row]:
    unknown = set(names or ()) - {row.name for row in ROWS}
    if unknown:
        raise SystemExit(f"no such row: {', '.join(sorted(unknown))} (--list shows them)")
    return [row for row in ROWS if (row.name in names if names else row.quick or not quick)]
