"""Project ids and numbers."""

from __future__ import annotations

import pytest

from mlengine.emulator.projects import Projects, location_name, project_number


@pytest.mark.parametrize("project", ["p", "my-project", "example.com:old"])
def test_the_number_of_a_project_is_stable_and_has_twelve_digits(project: str) -> None:
    number = project_number(project)
    assert number == project_number(project)
    assert number.isdecimal()
    assert len(number) == 12
    assert project_number(number) == number
    assert number != project_number(project + "x")


def test_a_location_is_named_with_the_number() -> None:
    assert location_name("p", "r") == f"projects/{project_number('p')}/locations/r"


def test_a_project_is_found_by_its_number() -> None:
    projects = Projects(["known"])
    assert projects.id_of(project_number("known")) == "known"
    assert projects.id_of(project_number("other")) == project_number("other")
    assert projects.id_of("other") == "other"
    assert projects.id_of(project_number("other")) == "other"


def test_resource_names_of_cloud_logging_get_ids() -> None:
    projects = Projects(["p"])
    names = [f"projects/{project_number('p')}", "projects/q", f"projects/{project_number('p')}/locations/r", 5]
    changed = projects.with_ids({"resourceNames": names, "filter": "x"})
    assert changed == {"resourceNames": ["projects/p", "projects/q", "projects/p/locations/r", 5], "filter": "x"}
    assert projects.with_ids({"filter": "x"}) == {"filter": "x"}
