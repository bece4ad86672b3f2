"""h2spec: the HTTP/2 specification's sentences as tests, over TLS and in clear text."""

import xml.etree.ElementTree as xml
from pathlib import Path

from e2e.cluster import tools
from e2e.driver.paths import RESULTS
from e2e.driver.shell import CommandFailed, run as run_program
from e2e.lib import certificates, results, standalone
from e2e.lib.standalone import HOST, Standalone, free_port

_FILE = "h2spec.md"
_COLUMNS = ["transport", "tests", "passed", "failed", "skipped", "runs"]
_TESTS = 146  # of h2spec 2.2.1, with the strict one


def run(context) -> tuple[int, int]:
    """Returns how many of its tests passed and failed; skipped ones count as failed."""
    repetitions = 20 if context.options.long else 1
    plain, secure, port = (free_port() for _ in range(3))
    certificate, key = certificates.self_signed("h2spec.example")
    objects = [
        *standalone.gateway(plain, secure),
        standalone.secret(certificates.secret("cert", certificate, key)),
        *standalone.backend("peer", port),
        standalone.route("peer"),
    ]
    # It answers only after the whole request: what some tests send after a first HEADERS
    # frame would otherwise race with the answer to it.
    backend = standalone.start(context.log, tools.path("peer"), f"-backend={HOST}:{port}")
    try:
        standalone.wait_listens(backend, port)
        with Standalone(context.log, objects):
            both = [_transport(context, *one, repetitions)
                    for one in (("clear text", plain, []), ("TLS", secure, ["--tls", "-k"]))]
    finally:
        standalone.stop(backend)
    return sum(one[0] for one in both), sum(one[1] for one in both)


def _transport(context, name: str, port: int, flags: list[str], times: int) -> tuple[int, int]:
    """All runs over one transport; the row shows the worst of them."""
    worst = None
    for _ in range(times):
        found = _once(context, port, flags)
        worst = max(worst or found, found, key=lambda one: one.total - one.passed)
    failed = max(_TESTS, worst.total) - worst.passed
    context.log.say(results.row(_FILE, _COLUMNS, [
        name, worst.total, worst.passed, len(worst.failures), worst.skipped, times]))
    for failure in worst.failures:
        context.log.say(f"FAILED {failure}")
    return worst.passed, failed


class _Report:
    """What h2spec's JUnit report says."""

    def __init__(self, path: Path):
        cases = list(xml.parse(path).getroot().iter("testcase"))
        self.total = len(cases)
        self.failures = [f"{case.get('package')}: {case.get('classname')}" for case in cases
                         if case.find("failure") is not None or case.find("error") is not None]
        self.skipped = sum(case.find("skipped") is not None for case in cases)
        self.passed = self.total - len(self.failures) - self.skipped


def _once(context, port: int, flags: list[str]) -> _Report:
    report = RESULTS / "h2spec.xml"
    report.unlink(missing_ok=True)
    try:
        run_program(context.log, tools.path("h2spec"), "--host", HOST, "--port", port,
                    "--strict", "--timeout", "4", "--junit-report", report, *flags)
    except CommandFailed:
        if not report.exists():
            raise  # it ended before it could say what failed
    found = _Report(report)
    report.unlink()
    return found
