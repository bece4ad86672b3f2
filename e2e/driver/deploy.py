"""Installs Tidegate with its Helm chart, the way the README tells users to."""

from e2e.cluster import constants as c, tools
from e2e.driver.paths import CACHE, ROOT
from e2e.driver.shell import CommandFailed, Log, run as run_program
from e2e.lib import kube

NAMESPACE = "tidegate-system"
_CHART = ROOT / "charts" / "tidegate"
_ANY_CRD = "httproutes.gateway.networking.k8s.io"
_CHANNEL = "gateway.networking.k8s.io/channel"


def run(context) -> None:
    """Installs or upgrades, on the standard channel of the Gateway API.

    A cluster of an earlier run that has the experimental channel keeps it: there is no
    way back while objects use its fields.
    """
    context.cluster.load_images(context.log)
    _helm(context, crds=_installed_channel() or "standard")


def channel(context, wanted: str) -> None:
    """Brings the channel's CRDs into the running cluster, if they are not there yet."""
    if _installed_channel() == wanted:
        return
    # Of the Gateway API's own bundles, which a provider may have installed: it forbids
    # exactly this change, and says itself that it has to go first.
    for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
        kube.kubectl("delete", kind, "safe-upgrades.gateway.networking.k8s.io",
                     "--ignore-not-found")
    _helm(context, crds=wanted)


def replicas(context, number: int) -> None:
    _helm(context, replicas=number)


def _helm(context, crds: str | None = None, replicas: int | None = None) -> None:
    """The tag never changes, so the annotation with the image's digest is what makes an
    upgrade replace the pods, and only if there is a reason."""
    repository, _, tag = c.TIDEGATE_IMAGE.rpartition(":")
    settings = {
        "image.repository": repository,
        "image.tag": tag,
        "image.pullPolicy": context.cluster.pull_policy,
        "gatewayAPI.crds": crds or _installed_channel() or "standard",
        "podAnnotations.e2e-image": context.cluster.image_digest(),
    }
    flags = [f"--set-string={key}={value}" for key, value in settings.items()]
    if replicas:
        flags.append(f"--set=replicas={replicas}")
    try:
        run_program(
            context.log,
            *(tools.path("helm"), "upgrade", "--install", "tidegate", _CHART, *flags),
            *("--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout=2m"),
            "--force-conflicts",  # a test changes a CRD and puts it back
            env=helm_environment(context.cluster),
        )
        kube.wait_available(NAMESPACE, "tidegate")
    except (CommandFailed, AssertionError):
        _describe(context.log)
        raise


def _installed_channel() -> str | None:
    """standard or experimental, by the annotation that the API's own tools go by."""
    annotations = kube.get("crd", _ANY_CRD).get("metadata", {}).get("annotations", {})
    return annotations.get(_CHANNEL)


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
