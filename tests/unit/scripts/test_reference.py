"""The pages that are written from the code are what the code says now."""

from __future__ import annotations

import pytest
from scripts import reference


@pytest.mark.parametrize(
    ("page", "made"), [(reference.REFERENCE, reference.reference), (reference.ERRORS, reference.errors)]
)
def test_the_page_is_up_to_date(page: object, made: object) -> None:
    assert callable(made)
    assert page.read_text(encoding="utf-8") == made(), "run `make reference`"  # type: ignore[attr-defined]


def test_every_error_of_the_tree_has_its_section() -> None:
    text = reference.errors()
    for name in ("JobFileError", "StorageForbiddenError", "JobLostError", "AirflowError"):
        assert f"## {name}\n" in text
    assert text.count("\n| ") > 150


def test_every_command_and_every_operator_is_there() -> None:
    text = reference.reference()
    for name in ("mlengine datasets add", "mlengine models rollback", "mlengine reap", "SubmitTrainingJobOperator"):
        assert f"### {name}\n" in text
    assert "| `backend_options` | `None` | the backend's own settings. |" in text
