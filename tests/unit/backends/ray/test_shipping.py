"""The package that is uploaded to a cluster."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

from mlengine.backends.ray import shipping


def unpacked(folder: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(shipping.package().data)) as archive:
        archive.extractall(folder)
    return folder


def test_equal_code_gives_the_same_package() -> None:
    first = shipping.package()
    shipping.package.cache_clear()
    assert shipping.package() == first
    assert first.uri.startswith("gcs://_ray_pkg_")
    assert len(first.data) < 1 << 20


def test_the_package_has_all_modules_that_the_driver_imports(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, '.'); import mlengine; "
        "from mlengine.backends.ray import driver, prepare, guard, cluster, replica_host; "
        "assert mlengine.__file__.startswith(sys.argv[1]), mlengine.__file__; "
        "assert not {'airflow', 'ray', 'google.cloud.storage'} & set(sys.modules)"
    )
    folder = unpacked(tmp_path)
    subprocess.run([sys.executable, "-P", "-c", code, str(folder)], cwd=folder, check=True)


def test_the_start_script_reports_missing_software(tmp_path: Path) -> None:
    folder = unpacked(tmp_path)
    done = subprocess.run(
        [sys.executable, "-S", shipping.START], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "mlengine cannot run on this Ray cluster: install these packages on its nodes, or add them to "
        "ray_runtime_env: google-cloud-storage, uv, packaging"
    )


def test_the_start_script_is_valid_in_old_python_versions() -> None:
    import ast

    source = (zipfile.ZipFile(io.BytesIO(shipping.package().data))).read(shipping.START)
    ast.parse(source, feature_version=(3, 7))
