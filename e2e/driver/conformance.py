"""Runs the official Gateway API conformance suite and keeps its report."""

import json
import re
import time
from pathlib import Path

from e2e.cluster import constants as c, tools
from e2e.driver import deploy
from e2e.driver.paths import E2E, RESULTS, ROOT
from e2e.driver.shell import CommandFailed, run as run_program
from e2e.lib import kube, results
from e2e.lib.manifests import CLASS

_FEATURES = E2E / "conformance" / "features.txt"
_PROFILES = ["GATEWAY-HTTP", "GATEWAY-GRPC", "GATEWAY-TLS", "GATEWAY-TCP", "GATEWAY-UDP"]
_TABLE = "conformance.md"
_COLUMNS = ["replicas", "profile", "core", "extended", "failed", "skipped", "unsupported features"]


def features() -> list[str]:
    """What `features.txt` names: one a line, # for remarks."""
    lines = [line.partition("#")[0].strip() for line in _FEATURES.read_text().splitlines()]
    return [line for line in lines if line]


def run(context) -> tuple[int, int]:
    """Runs the suite; returns how many of its tests passed and failed.

    With `--long` a second time, with three replicas.
    """
    deploy.channel(context, "experimental")
    # The name that the Gateway API project asks for: channel, version, mode.
    name = f"experimental-{_version()}-default-report.yaml"
    passed, failed = _suite(context, 2, name)
    failed += 0 if context.options.test else _undeclared(context)
    if context.options.long and not failed:
        deploy.replicas(context, 3)
        try:
            more = _suite(context, 3, f"3-replicas-{name}")
        finally:
            deploy.replicas(context, 2)
        passed, failed = passed + more[0], failed + more[1]
    return passed, failed


def _undeclared(context) -> int:
    """What is run and what users read in the GatewayClass must be the same."""
    status = kube.get("gatewayclass", CLASS).get("status", {})
    declared = [feature["name"] for feature in status.get("supportedFeatures", [])]
    different = sorted(set(declared) ^ set(features()))
    for name in different:
        where = "the GatewayClass" if name in declared else _FEATURES.name
        context.log.say(f"FAILED the feature {name} is in {where} only")
    return len(different)


def _suite(context, replicas: int, name: str) -> tuple[int, int]:
    """One run. A part of the suite (`--test`) writes no report: it would be incomplete."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    part = context.options.test
    report = RESULTS / (f"part-{name}" if part else name)
    for old in (report, Path(f"{report}.json")):
        old.unlink(missing_ok=True)
    start = context.log.path.stat().st_size
    began = time.monotonic()
    broken = False
    try:
        run_program(context.log, tools.path("conformance.test"), *_arguments(report, part),
                    env={"KUBECONFIG": context.cluster.kubeconfig}, cwd=RESULTS)
    except CommandFailed:
        broken = True
    took = time.monotonic() - began
    with open(context.log.path, errors="replace") as log:
        log.seek(start)
        verdicts = _verdicts(log.read())
    passed = sum(verdict == "PASS" for verdict in verdicts.values())
    bad = {name: verdict for name, verdict in verdicts.items() if verdict != "PASS"}
    context.log.say(f"{len(_PROFILES)} profiles, {len(features())} features, {replicas} replicas: "
                    f"{passed} passed, {len(bad)} failed or skipped in {took:.0f} s")
    for test, verdict in bad.items():
        context.log.say(f"{'SKIPPED' if verdict == 'SKIP' else 'FAILED'} {test}")
    failed = len(bad)
    if part:
        report.unlink(missing_ok=True)
        assert verdicts, f"the suite has no test with {part} in its name"
    else:
        failed += _incomplete(context, replicas, Path(f"{report}.json"))
        context.log.say(f"report: {report}")
    Path(f"{report}.json").unlink(missing_ok=True)
    if broken and not failed:
        failed = 1  # it ended before any test did, or the list of features is not whole
    return passed, failed


def _arguments(report: Path, part: str | None) -> list[str]:
    which = f"^TestConformance$/{re.escape(part)}" if part else "."
    return [
        "-test.v",
        "-test.timeout=60m",
        f"-test.run={which}",
        f"-gateway-class={CLASS}",
        f"-conformance-profiles={','.join(_PROFILES)}",
        f"-supported-features={','.join(features())}",
        f"-usable-address={c.USABLE_ADDRESS}",
        f"-unusable-address={c.UNUSABLE_ADDRESS}",
        "-organization=tidegate",
        "-project=tidegate",
        "-url=https://tidegate.dev",
        f"-version=v{_version()}",
        "-contact=@tidegate/maintainers",
        f"-report-output={report}",
    ]


def _version() -> str:
    found = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    return found.group(1) if found else "0.0.0"


def _verdicts(text: str) -> dict[str, str]:
    """PASS, FAIL or SKIP of each of the suite's tests: the children of its one Go test.

    The mesh tests are in the same list and left out by the suite itself: they belong to
    other profiles, which are not for gateways.
    """
    lines = re.findall(r"^    --- (PASS|FAIL|SKIP): TestConformance/([^/\s]+) ", text, re.M)
    mesh = set(re.findall(r"Skipping (\S+): suite does not support Mesh$", text, re.M))
    return {name: verdict for verdict, name in lines if name not in mesh}


def _incomplete(context, replicas: int, report: Path) -> int:
    """Shows the report's profiles; returns what keeps them from being complete.

    Failed and skipped tests have been counted by their verdicts, so these are profiles
    that are missing, or that name an unsupported feature.
    """
    if not report.exists():
        context.log.say("FAILED the suite wrote no report")
        return 1
    profiles = {one["name"]: one for one in json.loads(report.read_text())["profiles"]}
    problems = 0
    for name in _PROFILES:
        if name not in profiles:
            context.log.say(f"FAILED {name} is not in the report")
            problems += 1
            continue
        parts = [profiles[name].get(part, {}) for part in ("core", "extended")]
        numbers = [part.get("statistics", {}) for part in parts]
        unsupported = parts[1].get("unsupportedFeatures", [])
        for feature in unsupported:
            context.log.say(f"FAILED {name}: {feature} is unsupported")
        problems += len(unsupported)
        context.log.say(results.row(_TABLE, _COLUMNS, [
            replicas, name, *(part.get("Passed", 0) for part in numbers),
            *(sum(part.get(key, 0) for part in numbers) for key in ("Failed", "Skipped")),
            len(unsupported)]))
    return problems
