"""Fault scripts: the calls that trigger a fault, the remaining faults, and invalid scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlengine.core.errors import EmulatorApiError
from mlengine.emulator.engine import Engine
from mlengine.emulator.faults import METHODS, Fault, FaultScript, read_faults
from mlengine.emulator.routes import Routes
from mlengine.testing.backend import MemoryBackend

GET, LIST, CREATE = "GetCustomJob", "ListCustomJobs", "CreateCustomJob"


def test_faults_apply_in_order_and_as_often_as_scripted() -> None:
    script = FaultScript([Fault(GET, "status", times=2, skip=1), Fault(GET, "delay"), Fault("*", "reset", skip=3)])
    triggered = [[fault.action for fault in script.match(GET)] for _ in range(5)]
    assert triggered == [["delay"], ["status"], ["status"], ["reset"], []]
    assert script.calls == [GET] * 5
    assert script.unused() == []


def test_faults_that_were_not_triggered_are_reported() -> None:
    script = FaultScript()
    script.add(Fault(LIST, "lag", times=2))
    script.match(GET)
    assert [(fault.method, fault.times) for fault in script.unused()] == [(LIST, 2)]
    script.match(LIST)
    assert [(fault.method, fault.times) for fault in script.unused()] == [(LIST, 1)]
    script.clear()
    assert script.match(LIST) == []


def test_one_call_triggers_an_action_once() -> None:
    script = FaultScript([Fault(GET, "status"), Fault(GET, "status")])
    assert len(script.match(GET)) == 1
    assert len(script.match(GET)) == 1


def test_an_action_waits_for_a_method_that_it_can_apply_to() -> None:
    script = FaultScript([Fault("*", "stick"), Fault("*", "lag")])
    assert script.match(GET) == []
    assert [fault.action for fault in script.match(CREATE)] == ["stick"]
    assert [fault.action for fault in script.match(LIST)] == ["lag"]


def test_a_quota_is_of_each_project_and_need_not_be_exceeded() -> None:
    script = FaultScript([Fault("ListLogEntries", "quota", per_minute=2)])
    triggered = [bool(script.match("ListLogEntries", project)) for project in ("p", "p", "q", "p", "q", "q")]
    assert triggered == [False, False, False, True, False, True]
    assert script.match(GET, "p") == []
    assert script.unused() == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("x", "not a mapping"),
        ({"method": GET}, "no action"),
        ({"action": "reset"}, "no method"),
        ({"method": "GetCustomJobs", "action": "reset"}, "did you mean GetCustomJob"),
        ({"method": GET, "action": "explode"}, "one of status, reset"),
        ({"method": GET, "action": []}, "action is"),
        ({"method": GET, "action": "cut", "x": 1}, "unknown field 'x'"),
        ({"method": GET, "action": "reset", "times": 0}, "times is 0"),
        ({"method": GET, "action": "reset", "times": "2"}, "times is '2'"),
        ({"method": GET, "action": "reset", "skip": -1}, "skip is -1"),
        ({"method": GET, "action": "delay", "seconds": float("nan")}, "seconds is nan"),
        ({"method": GET, "action": "status", "status": "UNAVAILABL"}, "did you mean UNAVAILABLE"),
        ({"method": GET, "action": "status", "message": 5}, "message is 5"),
        ({"method": CREATE, "action": "preempt", "replica": "boss-0"}, "replica is 'boss-0'"),
        ({"method": GET, "action": "stick"}, "does not apply to GetCustomJob"),
        ({"method": GET, "action": "lag"}, "does not apply to GetCustomJob"),
        ({"method": "projects.jobs.create", "action": "stockout"}, "does not apply to projects.jobs.create"),
        ({"method": CREATE, "action": "restart", "restarts": -1}, "restarts is -1"),
    ],
)
def test_invalid_faults_are_rejected(data: Any, message: str) -> None:
    with pytest.raises(EmulatorApiError, match="not a fault") as caught:
        Fault.from_json(data)
    assert message in str(caught.value)


def test_a_list_of_faults_is_read() -> None:
    assert read_faults([{"method": GET, "action": "delay", "seconds": 2}], "f")[0].seconds == 2
    with pytest.raises(EmulatorApiError, match=r"f\.yaml: not a list"):
        read_faults({"method": GET}, "f.yaml")


def test_every_method_of_the_emulator_can_have_faults(tmp_path: Path) -> None:
    engine, storage = Engine(MemoryBackend(), tmp_path), None
    routes = Routes(engine, storage, None, FaultScript())  # type: ignore[arg-type]
    assert {route.name for route in routes.all if route.name} == set(METHODS)
