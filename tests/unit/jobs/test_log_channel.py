"""LogChannel: what was read of the lines that were sent over a real socket."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog

from mlengine.jobs.log_channel import LogChannel, PacedLog, log_channel

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the unread bytes of a socket")


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The ends of the triggers and of the process that writes the logs."""
    sender, receiver = socket.socketpair()
    with sender, receiver:
        yield sender, receiver


def test_lines_count_as_read_once_all_of_them_are(sockets: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = sockets
    channel = LogChannel(sender.fileno())
    assert channel.read_since(time.monotonic())
    sender.sendall(b"one\n")
    sender.sendall(b"two\n")
    logged_at = time.monotonic()
    assert not channel.read_since(logged_at)
    receiver.recv(4)
    assert not channel.read_since(logged_at)
    receiver.recv(4)
    assert channel.read_since(logged_at)
    sender.sendall(b"three\n")
    assert channel.read_since(logged_at), "later lines do not matter"
    assert not channel.read_since(time.monotonic())


def test_lines_that_the_other_process_never_read_do_not_count_as_read(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    sender, receiver = sockets
    channel = LogChannel(sender.fileno())
    sender.sendall(b"one\n")
    logged_at = time.monotonic()
    receiver.close()
    assert not channel.read_since(logged_at)
    assert not asyncio.run(PacedLog(None, channel).drained(30.0))


def test_the_channel_is_full_before_sending_blocks(sockets: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = sockets
    sender.setblocking(False)
    channel = LogChannel(sender.fileno())
    sent = 0
    while not channel.full:
        sent += sender.send(b"a line of the usual length, with its timestamp and its names\n")
    assert sent > 0
    receiver.recv(sent)
    assert not channel.full


def test_draining_ends_when_the_lines_are_read_or_at_its_limit(sockets: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = sockets
    paced = PacedLog(None, LogChannel(sender.fileno()))
    sender.sendall(b"one\n")

    async def main() -> tuple[bool, bool]:
        late = await paced.drained(0.1)
        asyncio.get_running_loop().call_later(0.1, receiver.recv, 4)
        return late, await paced.drained(30.0)

    assert asyncio.run(main()) == (False, True)


def test_the_channel_of_a_triggerer_is_found_and_a_file_is_not_one(
    sockets: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sender, _ = sockets
    file = (tmp_path / "log").open("wb")
    descriptor = os.dup(sender.fileno())
    with file, os.fdopen(descriptor, "wb", buffering=0) as channel_file:
        factory = SimpleNamespace(io=channel_file)
        monkeypatch.setattr(structlog, "get_config", lambda: {"logger_factory": factory})
        channel_file.write(b"one\n")
        assert log_channel() is log_channel()
        assert not log_channel().read_since(time.monotonic())
        for other in (SimpleNamespace(io=file), SimpleNamespace(), None):
            monkeypatch.setattr(structlog, "get_config", lambda other=other: {"logger_factory": other})
            assert log_channel().read_since(time.monotonic())
            assert not log_channel().full
