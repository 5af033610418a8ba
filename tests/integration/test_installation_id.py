"""Tests that the scheduler creates the id of the Airflow installation once, in Airflow's own table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

# Creates the id twice, while another scheduler creates it between the check and the insertion of the first.
_SCRIPT = """
import json, uuid
from airflow import settings
from airflow.models import import_all_models
from airflow.models.base import Base
from airflow.models.variable import Variable
from airflow.utils.session import create_session
from mlengine.listeners import installation

import_all_models()
Base.metadata.create_all(settings.engine)
made = []


class Rival:
    def uuid4(self):
        installation.uuid = uuid
        installation.create_id()
        made.append(Variable.get("mlengine_installation_id"))
        return uuid.uuid4()


installation.uuid = Rival()
installation.create_id()
installation.create_id()
with create_session(scoped=False) as session:
    found = [[row.key, row.get_val(), row.description] for row in session.query(Variable)]
print(json.dumps([made, found]))
"""


def test_schedulers_that_start_together_create_one_id(tmp_path: Path) -> None:
    env = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "_AIRFLOW_PROCESS_CONTEXT": "server",
    }
    done = subprocess.run([sys.executable, "-c", _SCRIPT], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (rival,), rows = json.loads(done.stdout.splitlines()[-1])
    ((key, value, description),) = rows
    assert (key, value) == ("mlengine_installation_id", rival)
    assert len(value) == 32
    assert "do not change it" in description
