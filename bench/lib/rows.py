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
    reason: str = ""  # why a goal is missed, as measured; shown while it is


_MEMORY = "pss_mb"

ROWS = [
    Row("small-64", "HTTP/1.1 small GET, 64 connections", Wrk(64), (*ALL, "nginx:forwarded"),
        (Goal(0.85),), quick=True,
        note="`nginx:forwarded` sets the same X-Forwarded-* and X-Request-Id fields as Tidegate."),
    Row("small-8", "the same, 8 connections", Wrk(8), LEAN, (Goal(0.95),), quick=True),
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
    Row("10k", "10 KB answers", Wrk(64, "/10k"), ALL, (Goal(1.0),)),
    Row("1m", "1 MB answers", Wrk(16, "/1m"), (*MOST, "nginx:bulk-512k"), (Goal(1.0),),
        variant="bulk", note="nginx and HAProxy with buffers of 64 KiB; `nginx:bulk-512k` with "
                             "512 KiB for each transfer."),
    Row("upload", "1 MB uploads", Wrk(16, "/upload", upload=1_000_000),
        (*MOST, "nginx:bulk-512k"), (Goal(1.0),), variant="bulk"),
    Row("close", "a new connection for every request", Own(64, flags=("--close",)), MOST,
        (Goal(1.0),)),
    Row("tls", "TLS 1.3 keep-alive GET", Wrk(64, tls=True), ALL, (Goal(0.9),), quick=True),
    Row("tls-full", "TLS 1.3 full handshakes", Own(16, flags=("--tls", "--close")), MOST,
        (Goal(1.0),)),
    Row("tls-resumed", "TLS 1.3 resumed handshakes",
        Own(16, flags=("--tls", "--close", "--resume")), MOST, (Goal(1.0),)),
    Row("h2-10", "HTTP/2 over TLS, 10 streams", H2load(10, tls=True), LEAN, (Goal(0.9),)),
    Row("h2-100", "HTTP/2 over TLS, 100 streams", H2load(100, tls=True), ALL, (Goal(0.9),)),
    Row("h2c-10", "HTTP/2 in clear, 10 streams", H2load(10), LEAN, (Goal(0.9),)),
    Row("h2c-100", "HTTP/2 in clear, 100 streams", H2load(100), LEAN, (Goal(0.9),), quick=True),
    Row("grpc", "gRPC unary, HTTP/2 to HTTP/2", H2load(10, grpc=True), MOST, (Goal(0.8),)),
    Row("websocket", "WebSocket echo, 64-byte messages",
        Own(64, flags=("--path", "/ws", "--websocket", "64")), LEAN, (Goal(1.0),)),
    Row("log", "small GET, access log on (JSON, to a file)", Wrk(64), ALL, (Goal(0.9),),
        variant="log"),
    Row("hosts", "5,000 hosts, random host", Own(64, flags=("--hosts", "5000")),
        (*PAIR, "tidegate:plain"), (Goal(1.05, reference="tidegate:plain", words="our single route"),), variant="hosts"),
    Row("policies", "rate limit, header changes, CORS", Wrk(64, fields=(
        "Origin: https://app.example.com", "X-Debug: 1")),
        ("nginx", "nginx:policies-noauth", "tidegate", "tidegate:plain"),
        (Goal(1.25, reference="tidegate:plain", words="our plain row"), Goal(1.0)), variant="policies",
        note="nginx with limit_req, headers and auth_request; `nginx:policies-noauth` without "
             "auth_request."),
    Row("latency", "latency at half load", Own(64, 0.5), LEAN,
        (Goal(1.0, "p50_us"), Goal(1.0, "p99_us")), metric="p50_us"),
    Row("workers", "two workers instead of one, same load", Own(64, 0.5),
        ("tidegate:plain", "tidegate"),
        (Goal(1.05, reference="tidegate:plain", words="one worker"),),
        variant="workers-2", cores="both",
        note="Both may use two cores; the rate is half of nginx's best."),
    Row("memory", "memory, idle", Nothing(), ALL, (Goal(20, _MEMORY, None),), metric=_MEMORY,
        quick=True),
    Row("memory-10000", "memory with 10,000 idle connections", Hold(10_000), MOST,
        (Goal(1.0, _MEMORY),), metric=_MEMORY, connections=10_240),
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
