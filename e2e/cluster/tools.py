"""Builds the cluster's programs from Go modules, each once per set of inputs.

A build lies in a folder named by a hash of what it is made of (module, version,
flags, own sources, Go's version), so a change makes a new build, no change
makes none, and two checkouts of different age can share the cache.
"""

import hashlib
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from e2e.driver.paths import BIN, E2E, TOOLS
from e2e.driver.shell import CommandFailed, Log, output, run
from e2e.cluster import golang

_CONTAINERD = "github.com/containerd/containerd/v2"
_CNI = "github.com/containernetworking/plugins/plugins"


@dataclass
class Tool:
    """One Go build: `packages` of a published module, or of a module of ours."""

    name: str
    programs: list[str]
    packages: list[str]
    version: str = ""  # set for a published module
    module: Path | None = None  # set for a module of ours
    tags: str = ""
    cgo: bool = False
    test: bool = False  # a test binary, of the single package
    newer_go: bool = False
    flags: list[str] = field(default_factory=lambda: ["-trimpath", "-ldflags=-s -w"])


def _kube_flags() -> list[str]:
    """Without its version a component calls itself v0.0.0, which Helm charts refuse."""
    module = (E2E / "cluster" / "go.mod").read_text()
    version = re.search(r"k8s.io/kubernetes (v(\d+)\.(\d+)\.\d+)", module)
    facts = zip(("gitVersion", "gitMajor", "gitMinor"), version.groups(), strict=True)
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    settings = [f"-X {package}.{name}={value}" for name, value in facts for package in packages]
    return ["-trimpath", f"-ldflags=-s -w {' '.join(settings)}"]


CONFORMANCE = E2E / "conformance"
SUITES = E2E / "suites" / "programs"
_IMAGES_MODULE = "sigs.k8s.io/gateway-api-conformance-images"

ALL = [
    Tool("kube", ["kube"], ["."], module=E2E / "cluster", cgo=True, flags=_kube_flags()),
    Tool("pause", ["pause"], ["./pause"], module=E2E / "cluster"),
    Tool("load", ["load"], ["."], module=E2E / "load"),
    Tool("containerd", ["containerd", "containerd-shim-runc-v2", "ctr"],
         [f"{_CONTAINERD}/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")],
         version="v2.4.2", tags="no_btrfs no_devmapper no_zfs", cgo=True),
    # Without seccomp every pod sandbox fails: containerd asks for a profile.
    Tool("runc", ["runc"], ["github.com/opencontainers/runc"],
         version="v1.5.2", tags="seccomp", cgo=True),
    Tool("cni", ["bridge", "loopback", "host-local", "portmap"],
         [f"{_CNI}/{path}" for path in ("main/bridge", "main/loopback", "ipam/host-local",
                                        "meta/portmap")], version="v1.9.1"),
    Tool("coredns", ["coredns"], ["github.com/coredns/coredns"], version="v1.14.6"),
    Tool("echo", ["echo-basic"], [f"{_IMAGES_MODULE}/echo-basic"],
         module=CONFORMANCE, newer_go=True),
    Tool("peer", ["peer"], ["./peer"], module=SUITES),
    Tool("h2spec", ["h2spec"], ["github.com/summerwind/h2spec/cmd/h2spec"], module=SUITES),
    *(Tool(f"grpc-{name}", [f"grpc-{name}"], [f"google.golang.org/grpc/interop/{name}"],
           module=SUITES) for name in ("client", "server")),
    Tool("helm", ["helm"], ["helm.sh/helm/v4/cmd/helm"], version="v4.3.1"),
    Tool("conformance", ["conformance.test"], ["."],
         module=CONFORMANCE, test=True, newer_go=True),
]


# What only a cluster made of our own processes needs.
NODE = {"kube", "pause", "containerd", "runc", "cni", "coredns"}


def build_all(log: Log, node: bool = True) -> None:
    """Builds what is missing and points `bin/` at the builds of today's inputs."""
    BIN.mkdir(parents=True, exist_ok=True)
    for tool in ALL if node else [tool for tool in ALL if tool.name not in NODE]:
        folder = TOOLS / f"{tool.name}-{_key(tool)}"
        if not folder.exists():
            log.say(f"building {tool.name}")
            _build(log, tool, folder)
        for program in tool.programs:
            _link(BIN / program, folder / program)


def path(program: str) -> Path:
    """A built program; a clear error if the step `tools` has not run yet."""
    found = BIN / program
    if not found.exists():
        raise CommandFailed(f"{found} is missing: run the step `tools` first")
    return found


def suite_module() -> Path:
    """The folder of the conformance suite's own sources and manifests."""
    found = output("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api/conformance",
                   cwd=CONFORMANCE, env=golang.environment(newer=True))
    return Path(found.strip())


def _build(log: Log, tool: Tool, folder: Path) -> None:
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    env = golang.environment(tool.newer_go)
    env["CGO_ENABLED"] = "1" if tool.cgo else "0"
    tags = [f"-tags={tool.tags}"] if tool.tags else []
    flags = [*tool.flags, "-buildvcs=false", *tags]
    if tool.module is None:
        packages = [f"{package}@{tool.version}" for package in tool.packages]
        run(log, "go", "install", *flags, *packages, env={**env, "GOBIN": partial}, nice=True)
    else:
        verb = ["test", "-c"] if tool.test else ["build"]
        run(log, "go", *verb, *flags, "-o", partial / tool.programs[0], *tool.packages,
            cwd=tool.module, env=env, nice=True)
    partial.rename(folder)
    for old in TOOLS.glob(f"{tool.name}-*"):
        if old != folder and old.name.removeprefix(f"{tool.name}-").isalnum():
            _forget_if_old(old)


def _forget_if_old(folder: Path) -> None:
    """Keeps a few builds for checkouts of another age, not all for ever."""
    siblings = sorted(TOOLS.glob(folder.name.rpartition("-")[0] + "-*"), key=os.path.getmtime)
    if len(siblings) > 3 and folder == siblings[0]:
        shutil.rmtree(folder, ignore_errors=True)


def _key(tool: Tool) -> str:
    inputs = [tool.name, tool.version, tool.tags, *tool.packages, *tool.flags,
              str(tool.cgo), str(tool.test), golang.version(tool.newer_go)]
    digest = hashlib.sha256("\n".join(inputs).encode())
    if tool.module is not None:
        for source in sorted(tool.module.rglob("*")):
            if source.suffix in (".go", ".mod", ".sum"):
                digest.update(source.relative_to(tool.module).as_posix().encode())
                digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and os.readlink(link) == str(target):
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target)
