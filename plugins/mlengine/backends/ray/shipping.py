"""Builds the zip file with the code that runs in the cluster: the modules of this project that the driver uses.

Equal code gives equal bytes. The file's name contains a digest of them, so that a cluster stores each version once.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import mlengine

START = "mlengine_ray_driver.py"
_PACKAGES = ("core", "settings", "storage", "runtime", "backends")
_SUFFIXES = (".py", ".toml")
_LEFT_OUT = frozenset({"vertex"})  # backends that the driver does not use
_EPOCH = (1980, 1, 1, 0, 0, 0)
OLDEST_PYTHON = (3, 11)

# The syntax is one that old versions of Python accept, so that an old interpreter can report what is missing.
_START_SOURCE = """\
import sys

ERROR = "mlengine cannot run on this Ray cluster: "
if sys.version_info[:2] < {oldest}:
    sys.exit(ERROR + "Python {words} or newer is needed, and the head node has " + sys.version.split()[0])
missing = []
for module, package in (("google.cloud.storage", "google-cloud-storage"), ("uv", "uv"), ("packaging", "packaging")):
    try:
        __import__(module)
    except ImportError:
        missing.append(package)
if missing:
    sys.exit(ERROR + "install these packages on its nodes, or add them to ray_runtime_env: " + ", ".join(missing))

from mlengine.backends.ray.driver import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


class Package(NamedTuple):
    """A file for Ray's package store."""

    name: str
    data: bytes

    @property
    def uri(self) -> str:
        return f"gcs://{self.name}"


@cache
def package() -> Package:
    """The package with the code of this version of the project."""
    root = Path(mlengine.__file__).parent
    files = {"mlengine/__init__.py": (root / "__init__.py").read_bytes()}
    for name in _PACKAGES:
        for path in sorted(one for suffix in _SUFFIXES for one in (root / name).rglob(f"*{suffix}")):
            relative = path.relative_to(root)
            if relative.parts[:1] == ("backends",) and relative.parts[1] in _LEFT_OUT:
                continue
            files[f"mlengine/{relative.as_posix()}"] = path.read_bytes()
    words = ".".join(map(str, OLDEST_PYTHON))
    files[START] = _START_SOURCE.format(oldest=OLDEST_PYTHON, words=words).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, files[name])
    data = buffer.getvalue()
    return Package(f"_ray_pkg_{hashlib.sha256(data).hexdigest()[:32]}.zip", data)
