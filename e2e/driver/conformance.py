"""Runs the official Gateway API conformance suite and keeps its report."""

import re

from e2e.cluster import constants as c, tools
from e2e.driver.paths import E2E, RESULTS, ROOT
from e2e.driver.shell import CommandFailed, run as run_program

_FEATURES = E2E / "conformance" / "features.txt"
_PROFILE = "GATEWAY-HTTP"
_CORE = ["Gateway", "HTTPRoute", "ReferenceGrant"]  # of that profile
REPORT = RESULTS / "conformance-report.yaml"


def features() -> list[str]:
    """The profile's core and what `features.txt` adds: one a line, # for remarks."""
    lines = [line.partition("#")[0].strip() for line in _FEATURES.read_text().splitlines()]
    return _CORE + [line for line in lines if line]


def run(context) -> tuple[int, int]:
    """Runs the suite; returns how many of its tests passed and failed."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    broken = False
    try:
        run_program(context.log, tools.path("conformance.test"), *_arguments(context),
                    env={"KUBECONFIG": context.cluster.kubeconfig}, cwd=RESULTS)
    except CommandFailed:
        broken = True
    verdicts = _verdicts(context.log.path.read_text(errors="replace"))
    passed, failed, skipped = (
        sum(verdict == kind for verdict in verdicts.values()) for kind in ("PASS", "FAIL", "SKIP"))
    context.log.say(f"{_PROFILE} with {len(features())} features: "
                    f"{passed} passed, {failed} failed, {skipped} skipped; report: {REPORT}")
    for name, verdict in verdicts.items():
        if verdict == "FAIL":
            context.log.say(f"FAILED {name}")
    if broken and not failed:
        failed = 1  # it ended before any test did
    return passed, failed


def _arguments(context) -> list[str]:
    only = [f"-run-test={context.options.test}"] if context.options.test else []
    return [
        "-test.v",
        "-test.timeout=60m",
        "-gateway-class=tidegate",
        f"-conformance-profiles={_PROFILE}",
        f"-supported-features={','.join(features())}",
        f"-usable-address={c.USABLE_ADDRESS}",
        f"-unusable-address={c.UNUSABLE_ADDRESS}",
        "-organization=tidegate",
        "-project=tidegate",
        "-url=https://tidegate.dev",
        f"-version=v{_version()}",
        "-contact=@tidegate/maintainers",
        f"-report-output={REPORT}",
        *only,
    ]


def _version() -> str:
    found = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    return found.group(1) if found else "0.0.0"


def _verdicts(text: str) -> dict[str, str]:
    """PASS, FAIL or SKIP of each of the suite's tests: the children of its one Go test."""
    lines = re.findall(r"^    --- (PASS|FAIL|SKIP): TestConformance/([^/\s]+) ", text, re.M)
    return {name: verdict for verdict, name in lines}
