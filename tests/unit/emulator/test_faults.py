"""Scripts of faults: which call they strike, and what is left of them."""

from __future__ import annotations

import pytest

from mlengine.core.errors import MlengineError
from mlengine.emulator.faults import Fault, Script


def test_faults_strike_in_turn_and_so_often() -> None:
    script = Script([Fault("Get", "status", times=2, skip=1), Fault("Get", "delay"), Fault("*", "reset", skip=3)])
    struck = [[fault.action for fault in script.strike("Get")] for _ in range(5)]
    assert struck == [["delay"], ["status"], ["status"], ["reset"], []]
    assert script.calls == ["Get"] * 5
    assert script.unused() == []


def test_what_never_struck_is_known() -> None:
    script = Script()
    script.add(Fault("List", "lag", times=2))
    script.strike("Get")
    assert [(fault.method, fault.times) for fault in script.unused()] == [("List", 2)]
    script.strike("List")
    assert [(fault.method, fault.times) for fault in script.unused()] == [("List", 1)]
    script.clear()
    assert script.strike("List") == []


def test_one_call_meets_an_action_once() -> None:
    script = Script([Fault("Get", "status"), Fault("Get", "status")])
    assert len(script.strike("Get")) == 1
    assert len(script.strike("Get")) == 1


def test_what_is_no_fault_is_refused() -> None:
    assert Fault.from_json({"method": "Get", "action": "delay", "seconds": 2}).seconds == 2
    for wrong in ({"method": "Get"}, {"method": "Get", "action": "explode"}, {"method": "G", "action": "cut", "x": 1}):
        with pytest.raises(MlengineError, match="not a fault"):
            Fault.from_json(wrong)
