"""Replicas that give up: others never start, never respond or have exited, or the dataset is invalid.

The clusters spend most of their time waiting, so all of them run in parallel, and each test checks one of them.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.cluster import ClusterOfProcesses

PATIENCE = ("--patience", "8", "--step_timeout", "2")
# Kinds of invalid dataset versions, with the expected error.
BAD = {"missing": "not there", "corrupt": "SHA-256", "shape": r"\[28, 29\]"}


@pytest.fixture(scope="module")
def clusters(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, ClusterOfProcesses]]:
    """The clusters of all tests, after their replicas have exited."""
    with contextlib.ExitStack() as stack:

        def cluster(
            name: str, data: Path = dataset, args: Sequence[str] = PATIENCE, **roles: int
        ) -> ClusterOfProcesses:
            return stack.enter_context(ClusterOfProcesses(tmp_path_factory.mktemp(name), data, *args, **roles))

        # This cluster trains before it loses its chief. The step timeout is long, as steps are slow on a busy machine.
        found = {"gone": cluster("gone", args=(*PATIENCE, "--step_timeout", "60"), ps=1).start()}
        found["gone"].chief.wait_log("training from step")
        found["gone"].chief.kill()
        found["never"] = cluster("never", worker=1, ps=2).start("chief/0", "worker/0", "ps/0")  # ps/1 never starts
        found["silent"] = cluster("silent", ps=1)
        host, _, port = found["silent"].addresses["ps"][0].partition(":")
        silent = stack.enter_context(socket.socket())
        silent.bind((host, int(port)))
        silent.listen()
        found["silent"].start("chief/0")
        found["alone"] = cluster("alone", evaluator=1)
        train = Path(found["alone"].job_dir) / "train"
        train.mkdir(parents=True)
        (train / "progress.json").write_text('{"step": 7}')
        found["alone"].start("evaluator/0")
        for kind in BAD:
            found[kind] = cluster(kind, _spoilt(dataset, tmp_path_factory.mktemp("data") / kind, kind)).start()
        for one in found.values():
            for replica in one.replicas.values():
                if replica.starts:
                    replica.wait()
        yield found


def _spoilt(dataset: Path, target: Path, kind: str) -> Path:
    target.mkdir()
    for path in dataset.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    images = target / "train-images-idx3-ubyte.gz"
    if kind == "missing":
        images.unlink()
    elif kind == "corrupt":
        data = bytearray(images.read_bytes())
        data[len(data) // 2] ^= 1
        images.write_bytes(bytes(data))
    else:
        manifest = json.loads((target / "manifest.json").read_text())
        (target / "manifest.json").write_text(json.dumps({**manifest, "shape": [28, 29]}))
    return target


def test_waiting_for_a_replica_that_never_starts_ends_and_names_it(clusters: Mapping[str, ClusterOfProcesses]) -> None:
    cluster = clusters["never"]
    assert [cluster[name].wait() for name in ("chief/0", "worker/0", "ps/0")] == [75, 75, 75]
    missing = f"ps/1 at {cluster.addresses['ps'][1]}"
    assert f"waiting for {missing}" in cluster.chief.log
    assert re.search(rf"gave up after \d+ s of waiting for {missing}", cluster.chief.log)
    assert f"without the chief at {cluster.addresses['chief'][0]}" in cluster["ps/0"].log


def test_waiting_for_an_unresponsive_parameter_server_ends(
    clusters: Mapping[str, ClusterOfProcesses],
) -> None:
    """TensorFlow alone would wait forever, whatever timeout it is given."""
    cluster = clusters["silent"]
    assert cluster.chief.wait() == 75
    assert f"no answer within 2 s from ps/0 at {cluster.addresses['ps'][0]}" in cluster.chief.log
    assert re.search(r"gave up after \d+ s of waiting for parameter servers that answer", cluster.chief.log)


def test_parameter_servers_end_if_the_chief_does_not_return(
    clusters: Mapping[str, ClusterOfProcesses],
) -> None:
    cluster = clusters["gone"]
    assert cluster["ps/0"].wait() == 75
    assert re.search(r"gave up after \d+ s without the chief", cluster["ps/0"].log)
    assert cluster.listening() == []


def test_an_evaluator_waits_for_checkpoints_while_there_is_progress(clusters: Mapping[str, ClusterOfProcesses]) -> None:
    evaluator = clusters["alone"]["evaluator/0"]
    assert evaluator.wait() == 75
    assert len(re.findall("no new checkpoint for 8 s, but the chief is at step 7", evaluator.log)) == 1
    assert "gave up after 8 s without a new checkpoint from the chief" in evaluator.log


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_dataset_is_refused_before_the_first_step(clusters: Mapping[str, ClusterOfProcesses], kind: str) -> None:
    chief = clusters[kind].chief
    assert chief.wait() == 1
    assert re.search(rf"data\d+/{kind}/(train-images-idx3-ubyte.gz|manifest.json): .*{BAD[kind]}", chief.log)
    assert "step 1 of" not in chief.log
