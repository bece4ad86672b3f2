"""Installs Tidegate with its Helm chart, the way the README tells users to."""

from e2e.cluster import constants as c, tools
from e2e.driver.paths import CACHE, ROOT
from e2e.driver.shell import CommandFailed, Log, run as run_program
from e2e.lib import kube

NAMESPACE = "tidegate-system"
_CHART = ROOT / "charts" / "tidegate"


def run(context) -> None:
    """Installs or upgrades. The tag never changes, so the annotation with the image's
    digest is what makes an upgrade replace the pods, and only if there is a reason."""
    context.cluster.load_images(context.log)
    repository, _, tag = c.TIDEGATE_IMAGE.rpartition(":")
    settings = {
        "image.repository": repository,
        "image.tag": tag,
        "image.pullPolicy": context.cluster.pull_policy,
        "gatewayAPI.crds": "standard",
        "podAnnotations.e2e-image": context.cluster.image_digest(),
    }
    flags = [f"--set-string={key}={value}" for key, value in settings.items()]
    try:
        run_program(
            context.log,
            *(tools.path("helm"), "upgrade", "--install", "tidegate", _CHART, *flags),
            *("--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout=2m"),
            env=helm_environment(context.cluster),
        )
        kube.wait_available(NAMESPACE, "tidegate")
    except (CommandFailed, AssertionError):
        _describe(context.log)
        raise


def _describe(log: Log) -> None:
    """Why the pods are not ready, as far as the cluster and they themselves know."""
    ours = ("--namespace", NAMESPACE)
    for command in (
        ("get", "pods", "--all-namespaces", "-o", "wide"),
        ("describe", "pods", *ours),
        ("logs", *ours, "--all-containers", "--tail=60", "--prefix",
         "--selector", "app.kubernetes.io/name=tidegate"),
    ):
        log.write(kube.kubectl(*command, check=False))


def helm_environment(cluster) -> dict:
    return {"KUBECONFIG": cluster.kubeconfig, **helm_folders()}


def helm_folders() -> dict:
    """Helm's own files stay in our cache, not among the user's."""
    return {f"HELM_{kind}_HOME": str(CACHE / "helm" / kind.lower())
            for kind in ("CACHE", "CONFIG", "DATA")}
