"""Whether the module that a job runs is in its packages."""

from __future__ import annotations

import pytest

from mlengine.core.errors import PackageError
from mlengine.packaging.modules import check_module

TRAINER = {
    "trainer/__init__.py",
    "trainer/task.py",
    "trainer/data/vocab.txt",
    "trainer/models/__init__.py",
    "trainer/models/deep/__init__.py",
    "trainer/models/deep/net.py",
}


def test_modules_are_found_and_similar_ones_are_suggested() -> None:
    check_module("trainer.task", TRAINER, "here")
    check_module("trainer.models.deep.net", TRAINER, "here")
    with pytest.raises(PackageError, match=r"no module trainer\.tsk in here") as caught:
        check_module("trainer.tsk", TRAINER, "here")
    assert "trainer.task" in caught.value.hint
    with pytest.raises(PackageError, match="no module task"):
        check_module("task", TRAINER, "here")
    with pytest.raises(PackageError, match="no module") as caught:
        check_module("trainer.task", {"README.md"}, "here")
    assert "no Python module at all" in caught.value.hint


def test_a_package_needs_a_main_module_to_run() -> None:
    with pytest.raises(PackageError, match=r"is a package without a __main__\.py"):
        check_module("trainer.models", TRAINER, "here")
    check_module("trainer.models", {*TRAINER, "trainer/models/__main__.py"}, "here")


def test_source_folders_of_an_sdist_are_searched_but_not_packages() -> None:
    check_module("trainer.task", {"src/trainer/task.py", "pyproject.toml"}, "here")
    inside = {"lib/__init__.py", "lib/trainer/__init__.py", "lib/trainer/task.py"}
    with pytest.raises(PackageError) as caught:
        check_module("trainer.task", inside, "here")
    assert "lib.trainer.task" in caught.value.hint


def test_installed_packages_have_no_source_folders() -> None:
    check_module("trainer.task", {"trainer/task.py"}, "here", installed=True)
    with pytest.raises(PackageError, match=r"no module trainer\.task"):
        check_module("trainer.task", {"src/trainer/task.py"}, "here", installed=True)


def test_a_module_can_come_from_a_requirement() -> None:
    requirements = ["torch>=2; python_version > '3'", "Keras_Tuner"]
    check_module("torch.distributed.run", TRAINER, "here", requirements)
    check_module("keras_tuner", TRAINER, "here", requirements)
    with pytest.raises(PackageError, match=r"no module trainer\.torch"):
        check_module("trainer.torch", TRAINER, "here", requirements)
