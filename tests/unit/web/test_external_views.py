"""Tests the entries of the page in Airflow's navigation."""

from __future__ import annotations

import importlib

import pytest

from mlengine import plugin
from mlengine.core.layout import JobDir
from mlengine.links.page import job_page


@pytest.mark.parametrize(
    ("base_url", "root"),
    [
        ("", ""),
        ("http://localhost:8080/", ""),
        ("https://example.com/airflow", "/airflow"),
        ("https://example.com/team/airflow/", "/team/airflow"),
    ],
)
def test_links_to_the_page_have_the_path_of_the_base_url(
    monkeypatch: pytest.MonkeyPatch, base_url: str, root: str
) -> None:
    """Airflow puts the address of a view unchanged into an ``iframe``, so a proxy must be able to route it."""
    try:
        with monkeypatch.context() as patch:
            patch.setenv("AIRFLOW__API__BASE_URL", base_url)
            views = importlib.reload(plugin).MlenginePlugin.external_views
            assert [view["href"].partition("?")[0] for view in views] == [f"{root}/mlengine/page"] * 2
            assert job_page(JobDir("gs://bkt/m/m_1")) == f"{root}/mlengine/page?job=m/m_1"
    finally:
        importlib.reload(plugin)
