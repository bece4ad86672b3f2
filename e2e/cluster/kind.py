"""A kind cluster, where docker and kind are installed.

kind has no load balancer, so our double gives out addresses of a pool that the
host routes to the node's container, exactly as on the local cluster.
"""

import base64
import json
import shutil

from e2e.cluster import constants as c, loadbalancer, processes
from e2e.cluster.remote import RemoteCluster
from e2e.driver.paths import CACHE, IMAGES, ROOT
from e2e.driver.shell import CommandFailed, Log, output, run

_NAME = "tidegate-e2e"
_KEYS = CACHE / "kind"
_CONFIG = CACHE / "kind.yaml"


class KindCluster(RemoteCluster):
    name = "kind"
    pull_policy = "Never"
    known_addresses = True
    kubeconfig = str(CACHE / "kind.kubeconfig")
    flags = [f"--kubeconfig={kubeconfig}"]

    def image(self, log: Log) -> None:
        _require("docker")
        run(log, "docker", "build", "--tag", c.TIDEGATE_IMAGE, ROOT)

    def up(self, log: Log) -> None:
        _require("docker")
        _require("kind")
        if _NAME not in output("kind", "get", "clusters").split():
            _CONFIG.write_text(json.dumps(_cluster()))  # JSON is YAML
            run(log, "kind", "create", "cluster", "--name", _NAME, "--wait", "120s",
                "--kubeconfig", self.kubeconfig, "--config", _CONFIG)
        ours = [IMAGES.glob(f"*{name}*.tar") for name in ("echo", "peer", "redis")]
        for archive in sorted(archive for found in ours for archive in found):
            run(log, "kind", "load", "image-archive", "--name", _NAME, archive)
        self._load_balancer()

    def load_images(self, log: Log) -> None:
        run(log, "kind", "load", "docker-image", "--name", _NAME, c.TIDEGATE_IMAGE)

    def image_digest(self) -> str:
        return output("docker", "inspect", "--format", "{{.Id}}", c.TIDEGATE_IMAGE).strip()

    def down(self, log: Log) -> None:
        processes.stop("loadbalancer")
        self.stop_proxy()
        if shutil.which("kind"):
            run(log, "kind", "delete", "cluster", "--name", _NAME)

    def _load_balancer(self) -> None:
        node = output("docker", "inspect", "--format",
                      "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
                      f"{_NAME}-control-plane").strip()
        output("ip", "route", "replace", c.LOAD_BALANCER_RANGE, "via", node)
        processes.stop("loadbalancer")
        command = loadbalancer.command("--server", self._unpack_keys(), "--kubeconfig-dir", _KEYS)
        processes.start("loadbalancer", *command, inside=False, env={"PYTHONPATH": str(ROOT)})

    def _unpack_keys(self) -> str:
        """Puts the kubeconfig's keys into files; returns the API server's URL."""
        config = json.loads(output("kubectl", *self.flags, "config", "view", "--raw",
                                   "--output=json"))
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        _KEYS.mkdir(parents=True, exist_ok=True)
        for name, text in (("ca.crt", cluster["certificate-authority-data"]),
                           ("admin.crt", user["client-certificate-data"]),
                           ("admin.key", user["client-key-data"])):
            (_KEYS / name).write_bytes(base64.b64decode(text))
        return cluster["server"]


def _cluster() -> dict:
    """What kind leaves off by default and the local cluster has on."""
    group = c.TRUST_BUNDLES.rpartition("/")[0]
    return {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4",
            "featureGates": {"ClusterTrustBundle": True}, "runtimeConfig": {group: "true"}}


def _require(program: str) -> None:
    if not shutil.which(program):
        raise CommandFailed(f"--cluster kind needs {program}")
