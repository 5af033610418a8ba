"""``mlengine emulator``: options that it cannot start with are errors with a message, before it accepts requests."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlengine.cli import main


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with files that options below name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRFLOW__MLENGINE__LOCAL_STATE_DIR", str(tmp_path / "local"))
    monkeypatch.delenv("AIRFLOW__MLENGINE__BUCKET", raising=False)
    (tmp_path / "file").write_text("")
    (tmp_path / "mapping.yaml").write_text("method: GetCustomJob")
    (tmp_path / "typo.yaml").write_text("- {method: GetCustomJobs, action: reset}")
    (tmp_path / "broken.yaml").write_text("{")
    (tmp_path / "latin1.yaml").write_bytes(b"\xe9")
    return tmp_path


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", ""], "the host is empty"),
        (["--host", "no.such.host.invalid"], "cannot resolve the host 'no.such.host.invalid'"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
        (["--port", "9000", "--grpc-port", "9000"], "the same port 9000"),
        (["--state-dir", "file"], "cannot use the state directory file"),
        (["--bucket", "https://storage.googleapis.com/b"], "not a bucket: 'https://storage.googleapis.com/b'"),
        (["--bucket", "my-bucket"], "not a bucket: 'my-bucket'"),
        (["--bucket", "gs://my-bucket/path"], "has a path"),
        (["--set", "nope=1"], "nope"),
        (["--set", "max_concurrent_jobs=-1"], "max_concurrent_jobs"),
        (["--faults", "missing.yaml"], "cannot read faults from missing.yaml"),
        (["--faults", "broken.yaml"], "cannot read faults from broken.yaml"),
        (["--faults", "latin1.yaml"], "cannot read faults from latin1.yaml"),
        (["--faults", "mapping.yaml"], "mapping.yaml: not a list of faults"),
        (["--faults", "typo.yaml"], "did you mean GetCustomJob?"),
    ],
)
def test_an_invalid_option_is_an_error(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emulator", "--port", "0", *options]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_an_invalid_bucket_in_the_environment_is_an_error(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW__MLENGINE__BUCKET", "https://b")
    assert main(["emulator", "--port", "0"]) == 1
    assert "not a bucket: 'https://b'" in capsys.readouterr().err


@pytest.fixture
def port() -> Iterator[int]:
    """A port that another program uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


def test_a_port_in_use_is_an_error(files: Path, port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emulator", "--port", str(port)]) == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in capsys.readouterr().err
