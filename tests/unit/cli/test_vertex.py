"""``mlengine vertex machines`` prints the table that jobs are checked against."""

from __future__ import annotations

import json

import pytest

from mlengine import cli
from mlengine.cli import documents
from mlengine.cli.exit_codes import ExitCode
from mlengine.core import vertex_machines
from mlengine.core.job_file import tiers


def test_the_table_lists_all_machines_with_date_and_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["vertex", "machines"]) == ExitCode.OK
    out = capsys.readouterr().out
    for name in vertex_machines.machines():
        assert f"\n{name} " in out
    source = vertex_machines.source()
    assert f"Table: read {source.read} in a copy of {source.copy}. https://docs.cloud.google.com/" in out
    assert f"us-central1, read {vertex_machines.price_source().read}" in out
    assert "no prices are known for the other types" in out
    assert "NVIDIA_TESLA_P100 has not been available since 2026-09-15" in out


def test_machines_are_filtered_by_name_and_accelerator(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["vertex", "machines", "--accelerator", "l4"]) == ExitCode.OK
    rows = [line.split()[0] for line in capsys.readouterr().out.partition("\n\n")[0].splitlines()[1:]]
    assert rows == [f"g2-standard-{size}" for size in (4, 8, 12, 16, 24, 32, 48, 96)]
    assert cli.main(["vertex", "machines", "n1-highmem-16", "--accelerator", "V100"]) == ExitCode.OK
    assert "NVIDIA_TESLA_V100 x 2, 4, 8" in capsys.readouterr().out
    assert cli.main(["vertex", "machines", "--accelerator", "tpu v6e"]) == ExitCode.OK
    assert "ct6e-standard-4t  TPU v6e: 2x2, 2x4" in capsys.readouterr().out


def test_a_filter_without_matches_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["vertex", "machines", "x1-", "--accelerator", "K80"]) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "no machine type matches x1- K80" in err


def test_machines_are_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["vertex", "machines", "g2-standard-24", "--json"]) == ExitCode.OK
    found = json.loads(capsys.readouterr().out)
    assert set(found) == set(documents.VertexMachinesDocument.__annotations__)
    assert found["machines"] == [
        {
            "name": "g2-standard-24",
            "accelerators": {"NVIDIA_L4": [2]},
            "accelerator_required": True,
            "tpu": None,
            "topologies": [],
            "usd_per_hour": None,
        }
    ]
    accelerators = {one["name"]: one for one in found["accelerators"]}
    assert set(accelerators["NVIDIA_L4"]) == set(documents.AcceleratorDocument.__annotations__)
    assert accelerators["NVIDIA_TESLA_K80"]["instead"] == "NVIDIA_TESLA_T4"
    assert accelerators["NVIDIA_TESLA_T4"]["cuda"] == "12.2"


def test_ml_engines_machine_names_are_shown_with_their_successors(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["vertex", "machines", "--ml-engine"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "standard_gpu          1 chief n1-standard-8 with 1 NVIDIA_TESLA_T4" in out
    assert "PREMIUM_1             1 chief n1-highcpu-16, 19 workers n1-highcpu-16, 11 ps n1-highmem-8" in out
    assert cli.main(["vertex", "machines", "--ml-engine", "--json"]) == ExitCode.OK
    found = {one["name"]: one["pools"] for one in json.loads(capsys.readouterr().out)}
    assert set(found) == {*tiers.MACHINES, *tiers.TIERS}
    assert set(found["BASIC"][0]) == set(documents.PoolDocument.__annotations__)
    assert cli.main(["vertex", "machines", "--ml-engine", "n1"]) == ExitCode.USAGE
    assert "takes no filter" in capsys.readouterr().err
