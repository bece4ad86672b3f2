"""The Tidegate image out of the release binary, as the Dockerfile would make it."""

import re
from pathlib import Path

from e2e.cluster import constants as c
from e2e.driver.paths import IMAGES, TARGET
from e2e.driver.shell import CommandFailed, Log, output
from e2e.image import oci

LIMIT_MB = 60
ARCHIVE = IMAGES / "tidegate.tar"
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def build(log: Log) -> None:
    binary = TARGET / "release" / "tidegate"
    if not binary.exists():
        raise CommandFailed(f"{binary} is missing: run the step `build` first")
    files = {"/tidegate": binary, **shared_libraries(binary)}
    if _AUTHORITIES.exists():
        files[str(_AUTHORITIES)] = _AUTHORITIES
    image = oci.Image(c.TIDEGATE_IMAGE, ["/tidegate"], files)
    size = oci.write(image, ARCHIVE) / 1e6
    log.say(f"image {c.TIDEGATE_IMAGE}: {size:.1f} MB compressed (limit {LIMIT_MB} MB)")
    if size > LIMIT_MB:
        raise CommandFailed(f"the image is {size:.1f} MB: more than {LIMIT_MB} MB")


def shared_libraries(binary: Path) -> dict[str, Path]:
    """The loader and libraries of a dynamic binary, under the names it looks for."""
    listed = output("ldd", binary, check=False)  # fails for a static binary: no libraries
    names = re.findall(r"(?:=>\s+)?(/\S+)\s+\(0x", listed)
    return {name: Path(name) for name in names}
