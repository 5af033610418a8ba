"""The dependencies of a package, and the extras that are installed on a machine."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from mlengine.runtime import dependencies, extras
from mlengine.runtime.requires_python import UnreadableArchiveError

METADATA = """\
Metadata-Version: 2.4
Name: t
Version: 1.0
Provides-Extra: cpu
Provides-Extra: gpu
Requires-Dist: numpy>=2
Requires-Dist: pywin32; sys_platform == "win32"
Requires-Dist: tomli; python_version < "3.11"
Requires-Dist: tensorflow-cpu==2.21.0; extra == "cpu"
Requires-Dist: tensorflow[and-cuda]==2.21.0; extra == "gpu"
Requires-Dist: not a requirement!

Requires-Dist: in-the-description
"""
PYPROJECT = """\
[project]
name = "t"
dependencies = ["numpy>=2"]
[project.optional-dependencies]
cpu = ["tensorflow-cpu==2.21.0"]
gpu = ["tensorflow[and-cuda]==2.21.0; sys_platform == 'linux'"]
"""


def sdist(files: dict[str, str]) -> io.BytesIO:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"t-1.0/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    sink.seek(0)
    return sink


def wheel(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("t-1.0.dist-info/METADATA", METADATA)
    return path


@pytest.mark.parametrize(
    "files",
    [{"PKG-INFO": METADATA, "t.egg-info/PKG-INFO": "Requires-Dist: other"}, {"pyproject.toml": PYPROJECT}],
)
def test_an_extra_adds_its_own_requirements(files: dict[str, str]) -> None:
    found = dependencies.declared("t-1.0.tar.gz", sdist(files))
    assert found.extras == {"cpu", "gpu"}
    assert [str(one.name) for one in found.with_extra(None, "3.11")] == ["numpy"]
    assert [str(one.name) for one in found.with_extra("cpu", "3.11")] == ["numpy", "tensorflow-cpu"]
    (_, tensorflow) = found.with_extra("gpu", "3.11")
    assert tensorflow.extras == {"and-cuda"}
    assert [one.name for one in found.with_extra("tpu", "3.11")] == ["numpy"], "the package has no such extra"


def test_markers_are_evaluated_for_the_image(tmp_path: Path) -> None:
    found = dependencies.of_path(wheel(tmp_path / "t-1.0-py3-none-any.whl"))
    assert [one.name for one in found.with_extra(None, "3.10")] == ["numpy", "tomli"]


def test_a_package_gets_the_extra_of_its_machine(tmp_path: Path) -> None:
    path = wheel(tmp_path / "t-1.0-py3-none-any.whl")
    for accelerator, suffix in (("", "[cpu]"), ("NVIDIA_L4", "[gpu]"), ("TPU_V6E", "")):
        extra = extras.extra_for(accelerator)
        assert extras.wheel_with_extra(path, extra) == f"{path}{suffix}"
        assert dependencies.path_with_extra(path, extra) == f"{path}{suffix}"


def test_a_package_without_dependencies_has_an_empty_list() -> None:
    for files in ({"setup.py": ""}, {"pyproject.toml": "nonsense ["}, {"pyproject.toml": "project = 1"}):
        assert dependencies.declared("t-1.0.tar.gz", sdist(files)) == dependencies.Dependencies()
    with pytest.raises(UnreadableArchiveError):
        dependencies.declared("t-1.0.tar.gz", io.BytesIO(b"no archive"))
