"""Sources that are rejected before anything is uploaded."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from mlengine.core.errors import PackageError
from mlengine.packaging.publish import package_trainer
from mlengine.storage.client import Storage
from tests.support.memory_storage import MemoryStorage


def test_an_archive_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    sdist = tmp_path / "trainer-1.0.tar.gz"
    sdist.symlink_to("/proc/self/mem")  # a regular file with an unreadable first byte, also for root
    with pytest.raises(PackageError) as caught:
        package_trainer(sdist, storage=cast("Storage", MemoryStorage()), staging="gs://bkt")
    assert caught.value.message == f"{sdist} cannot be read: Input/output error"
    assert caught.value.hint


@pytest.mark.parametrize("folder", [".", "energy"])
def test_a_requirements_file_of_a_package_dir_is_reported(folder: str, tmp_path: Path) -> None:
    (tmp_path / "energy").mkdir()
    (tmp_path / "energy" / "__init__.py").touch()
    file = tmp_path / folder / "requirements.txt"
    file.write_text("numpy")
    packaged, declared = (
        package_trainer(
            tmp_path / "energy",
            storage=cast("Storage", MemoryStorage()),
            staging="gs://bkt",
            requirements=requirements,
            dry_run=True,
        )
        for requirements in ((), ("numpy",))
    )
    assert [note for note in packaged.notes if f"{file.resolve()} is not read" in note]
    assert declared.notes == ()
