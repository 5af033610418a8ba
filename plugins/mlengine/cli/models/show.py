"""``mlengine models list``, ``show`` and ``history``: the champions."""

from __future__ import annotations

import argparse

from mlengine.champions import history
from mlengine.champions.history import Champion
from mlengine.cli.documents import ChampionDocument
from mlengine.cli.models.arguments import add_model
from mlengine.cli.options import Commands, add_bucket, add_command, add_json, bucket_of, count
from mlengine.cli.output import say, say_json, say_table
from mlengine.cli.partial_lists import read_each
from mlengine.core.errors import ModelError
from mlengine.core.layout import JobDir
from mlengine.core.metrics import format_value
from mlengine.storage.client import Storage


def register(commands: Commands) -> None:
    """Add the commands."""
    listing = add_command(commands, "list", "list the champions of all models")
    add_bucket(listing, "bucket of the models")
    add_json(listing)
    listing.set_defaults(handler=_list)

    show = add_command(commands, "show", "show the champion of a model")
    add_model(show)
    add_bucket(show, "bucket of the model")
    add_json(show)
    show.set_defaults(handler=_show)

    past = add_command(commands, "history", "list the present and past champions of a model, newest first")
    add_model(past)
    past.add_argument("--limit", type=count, default=20, metavar="N", help="at most N entries (default: 20)")
    add_bucket(past, "bucket of the model")
    add_json(past)
    past.set_defaults(handler=_history)


def _list(args: argparse.Namespace) -> int:
    storage, bucket = Storage(), bucket_of(args)
    names = history.models(storage, bucket)
    champions, code = read_each(names, lambda name: history.current(storage, bucket, name))
    found = [one for one in champions if one is not None]
    if args.json:
        say_json([_document(one) for one in found])
    elif found:
        head = ("MODEL", "NO.", "PUBLISHED", "METRIC", "DATASET", "JOB")
        say_table(head, [(one.model, str(one.serial), _time(one), *_result(one)) for one in found])
    else:
        say(f"no model in {bucket} has a champion")
    return code


def _show(args: argparse.Namespace) -> int:
    bucket = bucket_of(args)
    champion = history.current(Storage(), bucket, args.model)
    if champion is None:
        raise ModelError(
            f"model {args.model} has no champion in {bucket}", hint="publish one: mlengine models publish MODEL JOB"
        )
    if args.json:
        say_json(_document(champion))
        return 0
    fields = {
        "model": champion.model,
        "job": champion.job_id,
        "number": str(champion.serial),
        "published": f"{_time(champion)} by {champion.by} ({champion.action.value})",
        "reason": champion.why,
        champion.metric or "metric": _measured(champion),
        "dataset": str(champion.dataset.get("uri") or champion.version or ""),
        "files": champion.model_uri,
        "report": JobDir(champion.job_dir).page,
        "packages": ", ".join(champion.lineage.get("package_uris", [])),
    }
    for name, value in fields.items():
        say(f"{name + ':':<21}{value or '-'}")
    return 0


def _history(args: argparse.Namespace) -> int:
    bucket = bucket_of(args)
    found = history.history(Storage(), bucket, args.model, limit=args.limit)
    if args.json:
        say_json([_document(one) for one in found])
    elif found:
        head = ("NO.", "TIME", "ACTION", "METRIC", "DATASET", "JOB", "BY", "REASON")
        rows = [(str(one.serial), _time(one), one.action.value, *_result(one), one.by, one.why) for one in found]
        say_table(head, rows)
    else:
        say(f"model {args.model} has no champion in {bucket}")
    return 0


def _time(champion: Champion) -> str:
    return champion.at[:16].replace("T", " ")


def _result(champion: Champion) -> tuple[str, str, str]:
    measured = f"{champion.metric} {_measured(champion)}" if champion.metric_value is not None else "-"
    return measured, champion.version or "-", champion.job_id


def _measured(champion: Champion) -> str:
    return "" if champion.metric_value is None else format_value(champion.metric_value)


def _document(champion: Champion) -> ChampionDocument:
    return {
        "model": champion.model,
        "serial": champion.serial,
        "action": champion.action.value,
        "job_id": champion.job_id,
        "job_dir": champion.job_dir,
        "model_uri": champion.model_uri,
        "verdict": champion.verdict,
        "metric": champion.metric,
        "metric_value": champion.metric_value,
        "dataset": dict(champion.dataset),
        "package_uris": list(champion.lineage.get("package_uris", [])),
        "report_uri": JobDir(champion.job_dir).page,
        "by": champion.by,
        "reason": champion.why,
        "time": champion.at,
    }
