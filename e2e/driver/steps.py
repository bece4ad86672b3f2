"""The steps of a run, in their order."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import images, tools
from e2e.driver import conformance, deploy, install, testing
from e2e.driver.paths import ROOT, TARGET
from e2e.driver.shell import Log, run
from e2e.suites import (
    bench, control_plane, fuzz, grpc_interop, h2spec, identity, limits, websocket,
)


@dataclass
class Tally:
    passed: int = 0
    failed: int = 0

    def add(self, other: "Tally") -> None:
        self.passed += other.passed
        self.failed += other.failed


@dataclass
class Context:
    """What a step gets: the options, the cluster, and a log of its own."""

    options: argparse.Namespace
    cluster: object
    logs: Path
    log: Log | None = None


@dataclass
class Step:
    name: str
    about: str
    action: Callable[[Context], Tally | None]
    on_cluster: bool = False  # it talks to the cluster


def choose(options: argparse.Namespace) -> list[Step]:
    """All steps, or those of `--only`, in the order of a full run."""
    every = _before() + _suites() + _cluster() + _tests() + _after()
    if not options.only:
        return every
    unknown = set(options.only) - {step.name for step in every}
    if unknown:
        raise SystemExit(f"no such step: {', '.join(sorted(unknown))} (--list shows them)")
    return [step for step in every if step.name in options.only]


def _before() -> list[Step]:
    return [
        Step("install", "system packages and the newer Go, if missing",
             lambda context: install.run_step(context.log)),
        Step("format", "cargo fmt --check", _cargo("fmt", "--check")),
        Step("lint", "cargo clippy, warnings are errors",
             _cargo("clippy", "--all-targets", "--locked", "--", "-D", "warnings")),
        Step("test", "cargo test", _cargo("test", "--locked")),
        Step("build", "cargo build --release", _cargo("build", "--release", "--locked")),
        Step("tools", "the cluster's programs, from Go modules", _tools),
        Step("chart", "helm lint; manifests/install.yaml is what the chart renders", _chart),
    ]


def _cluster() -> list[Step]:
    return [
        Step("image", "the Tidegate image", lambda context: context.cluster.image(context.log)),
        Step("cluster", "a real cluster comes up", lambda context: context.cluster.up(context.log)),
        Step("deploy", "helm installs Tidegate", deploy.run, True),
    ]


def _suites() -> list[Step]:
    """Fuzzing, and other people's tests against a Tidegate on loopback: without a cluster."""

    def step(module) -> Step:
        return Step(module.__name__.rpartition(".")[2], (module.__doc__ or "").split("\n")[0],
                    lambda context: Tally(*module.run(context)))

    return [step(module) for module in (
        fuzz, h2spec, grpc_interop, websocket, identity, limits, bench, control_plane)]


def _tests() -> list[Step]:
    def step(module) -> Step:
        return Step(module.__name__.rpartition(".")[2], (module.__doc__ or "").split("\n")[0],
                    lambda context: Tally(*testing.run_module(context, module)), True)

    return [step(module) for module in testing.modules()]


def _after() -> list[Step]:
    return [
        Step("conformance", "the official Gateway API suite",
             lambda context: Tally(*conformance.run(context)), True),
        Step("down", "everything goes away again",
             lambda context: None if context.options.keep else context.cluster.down(context.log)),
    ]


def _cargo(*arguments: str) -> Callable[[Context], None]:
    def action(context: Context) -> None:
        env = {"CARGO_TARGET_DIR": TARGET}
        if context.options.long:
            env["TIDEGATE_LONG"] = "1"
        run(context.log, "cargo", *arguments, cwd=ROOT, env=env)

    return action


def _tools(context: Context) -> None:
    node = context.options.cluster == "local"
    tools.build_all(context.log, node)
    images.build_all(context.log, node)


def _chart(context: Context) -> None:
    env = deploy.helm_folders() | {"HELM": str(tools.path("helm"))}
    chart = ROOT / "charts" / "tidegate"
    run(context.log, tools.path("helm"), "lint", "--strict", chart, env=env)
    run(context.log, ROOT / "charts" / "render", "--check", env=env, cwd=ROOT)
