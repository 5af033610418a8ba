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
def test_modules_imported_by_the_job_are_checked(tmp_path: Path, task: str, file: str) -> None:
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
def test_files_that_are_imported_conditionally_are_not_checked(tmp_path: Path, task: str) -> None:
    given = files(tmp_path, t__task=task, t__model=WRONG, t__templates__page="{{ x }} }", tests__test=WRONG)
    assert check_syntax("t.task", given, ">=3.8") == ()


@pytest.mark.parametrize("required", [None, ">=3.99", "<3"])
def test_syntax_unknown_to_this_python_is_a_note_for_another_python(tmp_path: Path, required: str | None) -> None:
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


@pytest.mark.parametrize("module", ["a", "py", "main"])
def test_a_module_whose_name_is_a_part_of_its_files_name(tmp_path: Path, module: str) -> None:
    given = {f"{module}/{name}.py": tmp_path / f"{name}.py" for name in ("__init__", "__main__", "model")}
    for path, text in zip(given.values(), ("", "from . import model", WRONG), strict=True):
        path.write_text(text)
    with pytest.raises(PackageError, match=r"model\.py, line 2"):
        check_syntax(module, given, ">=3.8")


def test_a_file_of_the_same_name_elsewhere_is_not_read(tmp_path: Path) -> None:
    """Such as an earlier version of the package, for Python 2."""
    (tmp_path / "task.py").write_text("import json")
    (tmp_path / "old.py").write_text(WRONG)
    given = {
        "py/t/task.py": tmp_path / "old.py",
        "src/t/task.py": tmp_path / "task.py",
        "src/json.py": tmp_path / "old.py",
    }
    assert check_syntax("t.task", given, ">=3.8") == ()
    assert check_syntax("t.task", {**given, "src/t/task.py": tmp_path / "old.py"}, None) != ()
    given["a/t/task.py"] = given.pop("src/t/task.py")
    assert check_syntax("t.task", given, ">=3.8") == ()


@pytest.mark.parametrize("error", [RecursionError, MemoryError])
def test_code_that_is_too_deeply_nested_is_not_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def parse(*_: object) -> None:
        raise error

    monkeypatch.setattr("ast.parse", parse)
    assert check_syntax("t.task", files(tmp_path, t__task="x = 1"), ">=3.8") == ()


def test_code_in_another_encoding(tmp_path: Path) -> None:
    given = files(tmp_path, t__task="")
    given["src/t/task.py"].write_bytes(b"# -*- coding: latin-1 -*-\nx = '\xe9'\n")
    assert check_syntax("t.task", given, ">=3.8") == ()
