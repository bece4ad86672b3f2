"""Installs Tidegate with its Helm chart, the way the README tells users to."""

from e2e.cluster import constants as c, tools
from e2e.driver.paths import CACHE, ROOT
from e2e.driver.shell import CommandFailed, run as run_program
from e2e.lib import kube

NAMESPACE = "tidegate-system"
_CHART = ROOT / "charts" / "tidegate"


def run(context) -> None:
    """Installs or upgrades; pods of an earlier image of the same tag are replaced."""
    context.cluster.load_images(context.log)
    repository, _, tag = c.TIDEGATE_IMAGE.rpartition(":")
    run_program(
        context.log,
        *(tools.path("helm"), "upgrade", "--install", "tidegate", _CHART),
        *("--namespace", NAMESPACE, "--create-namespace"),
        *("--set", f"image.repository={repository}", "--set", f"image.tag={tag}"),
        *("--set", f"image.pullPolicy={context.cluster.pull_policy}"),
        *("--set", "gatewayAPI.crds=standard"),
        env=helm_environment(context.cluster),
    )
    try:
        kube.kubectl("rollout", "restart", "deployment/tidegate", "--namespace", NAMESPACE)
        kube.wait_available(NAMESPACE, "tidegate")
    except (CommandFailed, AssertionError):
        context.log.write(kube.kubectl("get", "pods", "--all-namespaces", "-o", "wide"))
        context.log.write(kube.kubectl("describe", "pods", "--namespace", NAMESPACE))
        context.log.write(kube.kubectl("logs", "--namespace", NAMESPACE, "--tail=60",
                                       "--all-containers", "--selector",
                                       "app.kubernetes.io/name=tidegate", check=False))
        raise


def helm_environment(cluster) -> dict:
    """Helm's own files stay in our cache, not among the user's."""
    folders = {f"HELM_{kind}_HOME": CACHE / "helm" for kind in ("CACHE", "CONFIG", "DATA")}
    return {"KUBECONFIG": cluster.kubeconfig, **folders}
