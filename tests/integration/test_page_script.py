"""Tests the page's script in a real browser: responses that are late or out of order, and rare contents."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from scripts.chromium import drive, find_browser

from mlengine import web
from mlengine.core.errors import StackError

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the browser saw in each scenario."""
    try:
        browser = find_browser()
    except StackError as error:
        pytest.skip(str(error))
    static = Path(web.__file__).parent / "static"
    scratch = tmp_path_factory.mktemp("page-script")
    return drive("tests.support.page_races", {"browser": browser, "static": str(static)}, scratch, 500.0)


def test_a_page_number_beyond_the_end_shows_the_last_page(seen: dict[str, Any]) -> None:
    assert seen["last_page"]["rows"] == 45


def test_a_late_response_to_an_earlier_query_is_ignored(seen: dict[str, Any]) -> None:
    assert seen["late_response"] == {"text": "ab", "shown": "found-for-[ab]"}


def test_the_log_shows_only_the_selected_attempt(seen: dict[str, Any]) -> None:
    lines = seen["other_attempt"]["lines"]
    assert "a line of attempt 1" in lines
    assert "attempt 2" not in lines
    assert seen["other_attempt"]["cursors"][0] == "", "the log must be read from its beginning"


def test_a_job_that_waits_for_its_next_attempt_has_a_cancel_button(seen: dict[str, Any]) -> None:
    assert "there will be no further attempt" in seen["cancel_in_pause"]["text"]
    assert seen["cancel_in_pause"]["reasons"] == ["wrong data"]


def test_a_champion_that_was_validated_again_is_not_shown_as_its_own_challenger(seen: dict[str, Any]) -> None:
    shown = seen["champion_again"]
    assert "Challenger" not in shown["text"]
    assert "The champion itself was validated again." in shown["text"]
    assert shown["columns"] == ["", "Champion: m_a"]


def test_the_skip_link_leads_to_the_content_of_the_open_view(seen: dict[str, Any]) -> None:
    shown = seen["skip_link"]
    assert (shown["focused"], shown["titles"]) == ("main", ["j"])
    assert shown["address"].endswith("#/job/m/j")


def test_a_screen_reader_announces_failed_refreshes_only(seen: dict[str, Any]) -> None:
    assert seen["announcements"]["announced"] == ["", "", "Could not refresh: no network"]


def test_a_bucket_that_was_not_read_is_not_shown_as_empty(seen: dict[str, Any]) -> None:
    assert seen["unread_bucket"]["shown"] == [
        "The jobs could not be read from the bucket.",
        "The models could not be read from the bucket.",
    ]


def test_a_view_that_could_not_be_loaded_is_loaded_again(seen: dict[str, Any]) -> None:
    a_job, a_model = seen["busy_server"]["shown"]
    assert "Lineage" in a_job
    assert "Champion history" in a_model


def test_the_last_lines_of_a_log_are_read_after_the_end_of_the_job(seen: dict[str, Any]) -> None:
    assert "the last line" in seen["last_lines"]["lines"]


def test_labels_of_an_axis_differ(seen: dict[str, Any]) -> None:
    assert seen["axis_labels"]["near"] == ["0.9876", "0.987625", "0.98765", "0.987675", "0.9877"]
    assert len(set(seen["axis_labels"]["equal"])) == 5


def test_the_key_of_a_plot_is_inside_it_and_does_not_overlap_the_title(seen: dict[str, Any]) -> None:
    plot, texts = seen["long_keys"]["plot"], seen["long_keys"]["texts"]
    assert len(texts) == 3  # the title and two series
    assert all(plot["x"] <= text["x"] and text["x"] + text["width"] <= plot["x"] + plot["width"] for text in texts)
    tops = sorted(text["y"] for text in texts)
    assert all(low - high >= texts[0]["height"] - 2 for high, low in itertools.pairwise(tops))


def test_small_and_large_numbers_are_shown_in_full(seen: dict[str, Any]) -> None:
    assert seen["numbers"] == {
        "slow": ["step 3 of 9", "0.34 examples/s", "< 0.01 USD"],
        "fast": ["step 1000 of 1000", "17,703 examples/s", "≈ 12,345.68 USD"],
    }


def test_a_dialog_stays_open_until_its_change_is_made_or_fails(seen: dict[str, Any]) -> None:
    error = "The backend does not respond. Try again."
    assert seen["slow_cancellation"] == {"open": True, "disabled": True, "error": error, "free": True}


def test_a_response_that_is_not_from_airflow_is_named(seen: dict[str, Any]) -> None:
    assert "Reload the page and log in again." in seen["login_of_a_proxy"]["shown"]


def test_an_address_with_a_plain_percent_sign_is_understood(seen: dict[str, Any]) -> None:
    assert seen["plain_percent"]["asked"].endswith("grown-50%25")
