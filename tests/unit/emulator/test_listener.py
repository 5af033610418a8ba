"""Ports: a free one, one in use, and values that are not ports."""

from __future__ import annotations

import pytest

from mlengine.core.errors import EmulatorError
from mlengine.emulator.listener import address_of, listen


def test_port_0_selects_a_free_port() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockname()[1] > 0


def test_a_port_in_use_is_an_error() -> None:
    with listen("127.0.0.1", 0) as first, pytest.raises(EmulatorError, match="Address already in use") as caught:
        listen("127.0.0.1", first.getsockname()[1])
    assert "choose another port" in caught.value.hint


@pytest.mark.parametrize("port", [99999, -1, 65536])
def test_a_number_that_is_not_a_port_is_an_error(port: int) -> None:
    with pytest.raises(EmulatorError, match=f"port {port} is out of range"):
        listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["", "no.such.host.invalid", "192.0.2.1", "a" * 300, "bad host"])
def test_a_host_that_is_not_this_machine_is_an_error(host: str) -> None:
    with pytest.raises(EmulatorError, match=r"host|cannot listen"):
        listen(host, 0)


def test_ipv6_addresses_have_brackets() -> None:
    assert address_of("::1", 9000) == "[::1]:9000"
    assert address_of("127.0.0.1", 9000) == "127.0.0.1:9000"
