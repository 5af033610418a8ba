"""The registry of backends: import paths, classes and functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from mlengine import backends
from mlengine.backends import TrainingBackend, connected_backend, get_backend
from mlengine.core.errors import BackendError


class Recorder:
    """A backend that stores the settings it was created with. Only its creation is tested here."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings


class Connected(Recorder):
    @classmethod
    def from_connection(cls, gcp_conn_id: str | None, **settings: Any) -> Connected:
        return cls(gcp_conn_id=gcp_conn_id, **settings)


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Restore the registry after each test."""
    before = dict(backends._BACKENDS)
    yield
    backends._BACKENDS.clear()
    backends._BACKENDS.update(before)


def settings_of(backend: TrainingBackend) -> dict[str, Any]:
    return cast(Recorder, backend).settings


def test_a_path_a_class_and_a_function_can_be_registered() -> None:
    one = cast(TrainingBackend, Recorder())
    backends.register("by_path", f"{__name__}:Recorder")
    backends.register("by_class", cast(Any, Recorder))
    backends.register("by_function", lambda **_: one)
    assert settings_of(get_backend("by_path", capacity=3)) == {"capacity": 3}
    assert settings_of(get_backend("by_class", capacity=3)) == {"capacity": 3}
    assert get_backend("by_function", capacity=3) is one
    assert {"by_path", "by_class", "by_function"} <= set(backends.names())


def test_a_class_can_take_a_connection() -> None:
    backends.register("connected", cast(Any, Connected))
    backends.register("plain", cast(Any, Recorder))
    where = {"project": "p", "region": "r", "impersonation_chain": None}
    found = settings_of(connected_backend("connected", "gcp", **where, capacity=3))
    assert found == {"gcp_conn_id": "gcp", "project": "p", "region": "r", "capacity": 3}
    found = settings_of(connected_backend("plain", "gcp", **where, capacity=3))
    assert found == {"capacity": 3}


def test_a_later_registration_replaces_an_earlier_one() -> None:
    backends.register("again", lambda **_: cast(TrainingBackend, Recorder(number=1)))
    backends.register("again", lambda **_: cast(TrainingBackend, Recorder(number=2)))
    assert settings_of(get_backend("again")) == {"number": 2}


def test_an_unknown_name_is_an_error_that_lists_the_names() -> None:
    with pytest.raises(BackendError, match="no backend named 'moon'") as refused:
        get_backend("moon")
    assert "local, ray, vertex" in refused.value.hint
