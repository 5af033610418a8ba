"""The hierarchy of errors: one base class, each error has a hint and can be pickled."""

from __future__ import annotations

import pickle

import pytest

from mlengine.core import errors
from mlengine.core.errors import MlengineError

ALL = [error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, MlengineError)]


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_each_error_has_a_message_and_a_hint(error: type[MlengineError]) -> None:
    raised = error("no object gs://bucket/x", hint="create it")
    assert str(raised) == "no object gs://bucket/x\n  What to do: create it"
    assert str(error("alone")) == "alone"
    assert error.__doc__
    copy = pickle.loads(pickle.dumps(raised))
    assert (type(copy), str(copy), copy.hint, copy.retryable) == (error, str(raised), "create it", error.retryable)


def test_only_transient_errors_are_retryable() -> None:
    assert {error.__name__ for error in ALL if error.retryable} >= {
        "StorageUnavailableError",
        "BackendUnavailableError",
        "JobLostError",
    }
    for error in (errors.JobFileError, errors.PackageError, errors.StorageForbiddenError, errors.ModelError):
        assert not error.retryable


def test_control_sequences_in_an_error_are_removed() -> None:
    error = MlengineError("the build said:\n\x1b[2J\x1b]0;title\x07done\r\n", hint="see \u202eabove")
    assert str(error) == "the build said:\ndone\n\n  What to do: see \\x202eabove"
    assert error.args == (error.message,)
