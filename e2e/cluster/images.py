"""The images of the local cluster: made from built programs, imported by `ctr`."""

import hashlib
import re
import shutil
from pathlib import Path

from e2e.cluster import constants as c, tools
from e2e.driver.paths import BIN, IMAGES, TOOLS
from e2e.driver.shell import CommandFailed, Log, output, run
from e2e.image import oci, tidegate

CTR = [f"{BIN}/ctr", "--address", c.CONTAINERD_SOCKET, "--namespace", "k8s.io"]


def ctr(*arguments) -> str:
    return output(*CTR, *arguments)


def build_all(log: Log, node: bool = True) -> None:
    """Archives for what runs in pods besides Tidegate; a changed program makes a new one."""
    if node:
        _build(log, c.PAUSE_IMAGE, ["pause"])
        _build(log, c.COREDNS_IMAGE, ["coredns"], user="0:0")  # it binds port 53
    for name in [c.ECHO_IMAGE, *suite_images()]:
        _build(log, name, ["echo-basic"])
    _build(log, c.PEER_IMAGE, ["peer", "grpc-server"])
    _redis(log)


def suite_images() -> list[str]:
    """The names under which the conformance suite's manifests ask for the echo server."""
    module = tools.suite_module()
    texts = [path.read_text() for path in module.glob("base/*.yaml")]
    texts += [path.read_text() for path in module.glob("tests/*.yaml")]
    names = re.findall(r"image:\s*(\S+/echo-basic:\S+)", "\n".join(texts))
    return sorted(set(names))


def import_all(log: Log) -> None:
    """Imports every archive that the running containerd does not have yet."""
    present = ctr("images", "ls")
    for archive in sorted(IMAGES.glob("*.tar")):
        if oci.manifest_digest(archive) not in present:
            run(log, *CTR, "images", "import", archive)


def container_pid(namespace: str, pod: str, container: str) -> int:
    """The pid, on the host, of a container's first process."""
    labels = {"pod.namespace": namespace, "pod.name": pod, "container.name": container}
    wanted = ",".join(f'labels."io.kubernetes.{key}"=={value}' for key, value in labels.items())
    known = set(ctr("containers", "ls", "-q", wanted).split())
    for line in ctr("task", "ls").splitlines()[1:]:
        name, pid, state = line.split()[:3]
        if name in known and state == "RUNNING":
            return int(pid)
    raise CommandFailed(f"no running container {container} in {namespace}/{pod}")


def _build(log: Log, name: str, programs: list[str], user: str = "65532:65532") -> None:
    """An image of the programs; the first is what it runs by default."""
    sources = {f"/{program}": tools.path(program).resolve() for program in programs}
    version = "-".join(source.parent.name.rpartition("-")[2] if source.is_relative_to(TOOLS)
                       else "0" for source in sources.values())
    _write(log, oci.Image(name, [f"/{programs[0]}"], sources, user), version)


def _redis(log: Log) -> None:
    """The machine's own redis-server, with the libraries that it wants."""
    program = shutil.which("redis-server")
    if not program:
        raise CommandFailed("redis-server is missing: run the step `install` first")
    binary = Path(program).resolve()
    # By its own name it is redis-check-rdb: what it does depends on how it is called.
    files = {"/redis-server": binary, **tidegate.shared_libraries(binary)}
    version = hashlib.sha256(binary.read_bytes()).hexdigest()[:16]
    _write(log, oci.Image(c.REDIS_IMAGE, ["/redis-server"], files), version)


def _write(log: Log, image: oci.Image, version: str) -> None:
    """Its archive, unless there is one of this version; those of others go."""
    stem = re.sub(r"[^a-z0-9.]+", "-", image.name)
    archive = IMAGES / f"{stem}-{version}.tar"
    if archive.exists():
        return
    for old in IMAGES.glob(f"{stem}-*.tar"):
        old.unlink()
    size = oci.write(image, archive)
    log.say(f"image {image.name}: {size / 1e6:.1f} MB")
