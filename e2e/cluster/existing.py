"""The cluster of the user's kubeconfig, with a load balancer and registry of its own.

The images of Tidegate, the echo server, the peer and Redis must be pullable there: their names
are taken from TIDEGATE_E2E_IMAGE, TIDEGATE_E2E_ECHO_IMAGE, TIDEGATE_E2E_PEER_IMAGE and
TIDEGATE_E2E_REDIS_IMAGE. An address that the load balancer gives to those who ask for it, and to
nobody else, is TIDEGATE_E2E_USABLE_ADDRESS.
"""

import os

from e2e.cluster import constants as c
from e2e.cluster.remote import RemoteCluster
from e2e.driver.shell import CommandFailed, Log


class ExistingCluster(RemoteCluster):
    name = "existing"
    kubeconfig = os.environ.get("KUBECONFIG", "")

    def use(self) -> None:
        for variable, constant in (("TIDEGATE_E2E_IMAGE", "TIDEGATE_IMAGE"),
                                   ("TIDEGATE_E2E_ECHO_IMAGE", "ECHO_IMAGE"),
                                   ("TIDEGATE_E2E_PEER_IMAGE", "PEER_IMAGE"),
                                   ("TIDEGATE_E2E_REDIS_IMAGE", "REDIS_IMAGE")):
            if variable not in os.environ:
                raise CommandFailed(f"{variable} must name an image that the cluster can pull")
            setattr(c, constant, os.environ[variable])
        c.USABLE_ADDRESS = os.environ.get("TIDEGATE_E2E_USABLE_ADDRESS", c.USABLE_ADDRESS)
        super().use()

    def image(self, log: Log) -> None:
        """Made and pushed by whoever owns the cluster."""

    def up(self, log: Log) -> None:
        """It is up already."""

    def load_images(self, log: Log) -> None:
        """Nothing to load: the cluster pulls them."""

    def image_digest(self) -> str:
        return c.TIDEGATE_IMAGE

    def down(self, log: Log) -> None:
        """The cluster is not ours; only the connection to it ends."""
        self.stop_proxy()
