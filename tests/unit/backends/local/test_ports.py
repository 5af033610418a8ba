"""Ports that are reserved for one job."""

from __future__ import annotations

import socket
from pathlib import Path

from mlengine.backends.local import listening, ports


def test_ports_are_held_until_released_and_reserved_until_returned(tmp_path: Path) -> None:
    first = ports.take(3, tmp_path)
    second = ports.take(3, tmp_path)
    try:
        assert len({port.number for port in [*first, *second]}) == 6
        port = first[0]
        assert port.taken()  # by this process, which holds it
        port.release()
        assert not port.taken()
        with socket.create_server((ports.HOST, port.number)):
            assert port.taken()
            assert port.number in (listening.ports() or set())
        assert not port.taken()
        assert port.address == f"127.0.0.1:{port.number}"
    finally:
        for port in [*first, *second]:
            port.give_back()


def test_taking_no_ports_does_nothing(tmp_path: Path) -> None:
    assert ports.take(0, tmp_path) == []
    assert list(tmp_path.iterdir()) == []
