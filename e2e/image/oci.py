"""Makes OCI image archives without a container engine: one layer, one manifest."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Image:
    """What goes into an image: `files` maps the path inside to the file outside."""

    name: str
    entrypoint: list[str]
    files: dict[str, Path]
    user: str = "65532:65532"
    env: list[str] = field(default_factory=lambda: ["PATH=/"])


def write(image: Image, archive: Path) -> int:
    """Writes the archive and returns the layer's compressed size in bytes.

    The same input gives the same bytes: names are sorted and times are zero.
    """
    layer = _layer(image.files)
    packed = gzip.compress(layer, compresslevel=6, mtime=0)
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"User": image.user, "Entrypoint": image.entrypoint, "Env": image.env},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar+gzip", packed)],
        }
    )
    entry = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
    entry["annotations"] = {
        "io.containerd.image.name": image.name,
        "org.opencontainers.image.ref.name": image.name.rpartition(":")[2],
    }
    _archive(archive, _json({"schemaVersion": 2, "manifests": [entry]}), [packed, config, manifest])
    return len(packed)


def manifest_digest(archive: Path) -> str:
    """The digest by which a container engine knows the image after its import."""
    with tarfile.open(archive) as tar:
        index = json.load(tar.extractfile("index.json"))
    return index["manifests"][0]["digest"]


def _layer(files: dict[str, Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _folder(tar, "tmp", 0o1777)
        made = {"tmp"}
        for inside in sorted(files):
            path = inside.lstrip("/")
            for parent in reversed(Path(path).parents[:-1] if "/" in path else []):
                if str(parent) not in made:
                    made.add(str(parent))
                    _folder(tar, str(parent), 0o755)
            source = Path(os.path.realpath(files[inside]))
            info = tarfile.TarInfo(path)
            info.size = source.stat().st_size
            info.mode = 0o755 if os.access(source, os.X_OK) else 0o644
            with open(source, "rb") as content:
                tar.addfile(info, content)
    return buffer.getvalue()


def _folder(tar: tarfile.TarFile, path: str, mode: int) -> None:
    info = tarfile.TarInfo(path)
    info.type = tarfile.DIRTYPE
    info.mode = mode
    tar.addfile(info)


def _archive(path: Path, index: bytes, blobs: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with tarfile.open(partial, "w") as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", index)
        for blob in blobs:
            _add(tar, f"blobs/sha256/{_digest(blob)[7:]}", blob)
    partial.rename(path)


def _add(tar: tarfile.TarFile, path: str, content: bytes) -> None:
    info = tarfile.TarInfo(path)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _descriptor(kind: str, blob: bytes) -> dict:
    return {"mediaType": kind, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def _json(value: dict) -> bytes:
    return json.dumps(value).encode()
