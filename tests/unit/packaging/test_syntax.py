"""The files whose syntax is checked, and the errors that are reported."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from mlengine.core.errors import PackageError
from mlengine.packaging.syntax import check_syntax

WRONG = "import os\nprint 'hello'\n"


def files(folder: Path, **contents: str) -> dict[str, Path]:
    """Write a package ``t`` below ``src``. A keyword is the name of a module, with ``__`` for a dot."""
    found = {}
    for name, text in {"t____init__": "", **contents}.items():
        path = f"src/{name.replace('__init__', 'INIT').replace('__', '/').replace('INIT', '__init__')}.py"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
        found[path] = folder / path
    return found


@pytest.mark.parametrize(
    ("task", "file"),
    [
        (WRONG, "t/task.py"),
        ("from . import model", "t/model.py"),
        ("from t.model import build", "t/model.py"),
        ("import t.model", "t/model.py"),
        ("from .model import *", "t/model.py"),
        ("from .deep import a", "t/deep/a.py"),
    ],
)
def test_what_the_job_imports_is_checked(tmp_path: Path, task: str, file: str) -> None:
    given = files(tmp_path, t__task=task, t__model=WRONG, t__deep____init__="", t__deep__a=WRONG)
    with pytest.raises(PackageError) as caught:
        check_syntax("t.task", given, ">=3.8")
    assert f"{file}, line 2: not valid for Python" in caught.value.message
    assert "correct that line" in caught.value.hint


@pytest.mark.parametrize(
    "task",
    [
        "",
        "def f():\n    from . import model",
        "try:\n    from . import model\nexcept ImportError:\n    pass",
        "import other",
    ],
)
def test_a_file_that_is_not_always_imported_is_not_read(tmp_path: Path, task: str) -> None:
    given = files(tmp_path, t__task=task, t__model=WRONG, t__templates__page="{{ x }} }", tests__test=WRONG)
    assert check_syntax("t.task", given, ">=3.8") == ()


@pytest.mark.parametrize("required", [None, ">=3.99", "<3"])
def test_the_trainers_python_may_know_what_this_one_does_not(tmp_path: Path, required: str | None) -> None:
    (note,) = check_syntax("t.task", files(tmp_path, t__task=WRONG), required)
    assert "t/task.py, line 2" in note
    assert "unless the trainer's Python accepts it" in note


def test_a_missing_module_is_left_to_the_other_check(tmp_path: Path) -> None:
    assert check_syntax("t.other", files(tmp_path, t__task=WRONG), ">=3.8") == ()


@pytest.mark.parametrize("python", ["3.8", platform.python_version(), "3.99"])
def test_a_known_python_that_is_not_newer_does_not_know_it_either(tmp_path: Path, python: str) -> None:
    given = files(tmp_path, t__task=WRONG)
    if python == "3.99":
        assert check_syntax("t.task", given, None, python) != ()
        return
    with pytest.raises(PackageError, match=r"t/task\.py, line 2") as caught:
        check_syntax("t.task", given, None, python)
    assert f"the trainer runs on Python {python}" in caught.value.hint
