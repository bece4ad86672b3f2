"""A real Kubernetes of one node, made of processes in a network namespace.

API server, controllers, scheduler, kubelet, kube-proxy, containerd and pods with
network namespaces of their own: only the load balancer is a double.
"""

import os
import shutil
import signal
import time
from pathlib import Path

from e2e.cluster import config, constants as c, images, loadbalancer, network, pki, processes, tools
from e2e.driver.paths import BIN, E2E, ROOT, STATE
from e2e.driver.shell import CommandFailed, Log, output
from e2e.image import oci, tidegate
from e2e.lib import kube
from e2e.lib.api import Api, ApiError
from e2e.lib.wait import wait_for


class LocalCluster:
    """Up, down, and the ways in which a test may hurt the cluster."""

    name = "local"
    may_break = True  # parts of it can be stopped by tests
    known_addresses = True  # they are those of `constants`
    pull_policy = "Never"
    kubeconfig = c.KUBECONFIG

    def use(self) -> None:
        """The tests' kubectl points here by default."""

    def image(self, log: Log) -> None:
        tidegate.build(log)

    def up(self, log: Log) -> None:
        if self._healthy():
            log.say("the cluster of an earlier run is up: using it")
        else:
            self.down(log)
            self._start(log)
        self.load_images(log)
        kube.apply((E2E / "cluster" / "coredns.yaml").read_text())
        wait_for(lambda: kube.available("kube-system", "coredns"), 120, "CoreDNS is available")

    def down(self, log: Log) -> None:
        """Ends everything that `up` started: recorded pids and the namespace's own."""
        for name in ("loadbalancer", "kubelet"):  # else they would repair what follows
            processes.stop(name)
        _kill_containers()
        for name in processes.recorded():
            processes.stop(name, signal.SIGKILL)  # nothing of theirs is kept
        for pid in network.pids() if network.exists() else []:
            processes.kill(pid, signal.SIGKILL)
        _unmount()
        network.down()
        shutil.rmtree(STATE, ignore_errors=True)
        shutil.rmtree(Path(c.CONTAINERD_SOCKET).parent, ignore_errors=True)
        _remove_cgroups()

    def api(self, timeout: float = 10) -> Api:
        return Api(c.API_URL, c.PKI, timeout)

    def load_images(self, log: Log) -> None:
        images.import_all(log)

    def image_digest(self) -> str:
        return oci.manifest_digest(tidegate.ARCHIVE)

    def stop_api_server(self) -> None:
        """Kills it without a farewell, as a crashed control-plane host would."""
        processes.stop("apiserver", signal.SIGKILL)

    def start_api_server(self) -> None:
        _start_kube("apiserver", "kube-apiserver", config.API_SERVER)
        wait_for(_api_ready, 60, "the API server is ready")

    def pause_pod(self, namespace: str, pod: str, container: str) -> None:
        """A container's process stands still: it keeps its connections and answers nothing."""
        os.kill(images.container_pid(namespace, pod, container), signal.SIGSTOP)

    def resume_pod(self, namespace: str, pod: str, container: str) -> None:
        os.kill(images.container_pid(namespace, pod, container), signal.SIGCONT)

    def kill_pod(self, namespace: str, pod: str, container: str) -> None:
        """SIGKILL to a container's process, from outside, as the OOM killer does."""
        os.kill(images.container_pid(namespace, pod, container), signal.SIGKILL)

    def _healthy(self) -> bool:
        """Whether a cluster of the same programs is up, of an earlier run with --keep."""
        if not network.exists() or not all(map(processes.running, _DAEMONS)):
            return False
        if not _MADE_OF.exists() or _MADE_OF.read_text() != _programs():
            return False
        try:
            return _api_ready()
        except OSError:
            return False

    def _start(self, log: Log) -> None:
        began = time.monotonic()
        STATE.mkdir(parents=True, exist_ok=True)
        _MADE_OF.write_text(_programs())
        pki.create()
        config.write()
        network.up()
        _start_kube("etcd", "etcd", config.ETCD)
        _start_kube("apiserver", "kube-apiserver", config.API_SERVER)
        processes.start("containerd", BIN / "containerd", "-c", config.CONTAINERD_CONFIG,
                        env={"PATH": f"{BIN}:{os.environ['PATH']}"})
        # Controllers and scheduler give up if their RBAC is not there yet.
        wait_for(_api_ready, 60, "the API server is ready")
        _start_kube("controllers", "kube-controller-manager", config.CONTROLLER_MANAGER)
        _start_kube("scheduler", "kube-scheduler", config.SCHEDULER)
        wait_for(lambda: os.path.exists(c.CONTAINERD_SOCKET), 30, "containerd listens")
        _start_kube("kubelet", "kubelet", config.KUBELET)
        _start_kube("proxy", "kube-proxy", config.PROXY)
        _start_load_balancer()
        wait_for(lambda: kube.node_ready(c.NODE), 60, "the node is ready")
        log.say(f"the node is ready after {time.monotonic() - began:.1f} s")


_DAEMONS = ("etcd", "apiserver", "containerd", "controllers", "scheduler", "kubelet", "proxy",
            "loadbalancer")


_MADE_OF = STATE / "programs"


def _programs() -> str:
    """Which builds the node's programs are, and how they are started; fails if one is missing."""
    names = ("kube", "containerd", "runc", "bridge")
    builds = [str(tools.path(name).resolve()) for name in names]
    return "\n".join([*builds, *config.API_SERVER, *map(str, loadbalancer.command())])


def _start_kube(name: str, component: str, arguments: list[str]) -> None:
    processes.start(name, BIN / "kube", component, *arguments)


def _start_load_balancer() -> None:
    command = loadbalancer.command("--server", c.API_URL, "--kubeconfig-dir", c.PKI)
    processes.start("loadbalancer", *command, inside=False, env={"PYTHONPATH": str(ROOT)})


def _api_ready() -> bool:
    try:
        return Api(c.API_URL, c.PKI, timeout=2).text("/readyz") == "ok"
    except (ApiError, OSError):
        return False


def _kill_containers() -> None:
    if not os.path.exists(c.CONTAINERD_SOCKET) or not processes.running("containerd"):
        return
    try:
        for task in images.ctr("task", "ls", "-q").split():
            output(*images.CTR, "task", "kill", "-s", "KILL", task, check=False)
    except CommandFailed:
        pass  # the namespace's own pids are killed next


def _unmount() -> None:
    """Whatever is mounted under the state folder, innermost first."""
    with open("/proc/mounts") as mounts:
        points = [line.split()[1] for line in mounts]
    ours = [point for point in points if point.startswith(f"{STATE}/")]
    for point in sorted(ours, reverse=True):
        output("umount", "-l", point, check=False)


def _remove_cgroups() -> None:
    """The empty cgroups of pods; a leftover would only be untidy, so errors pass."""
    top = Path("/sys/fs/cgroup")
    for root in [*top.glob("kubepods"), *top.glob("*/kubepods")]:  # v2, v1
        for folder, _, _ in os.walk(root, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                pass
