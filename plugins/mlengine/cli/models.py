"""``mlengine models``: who is champion, who was, and a change of champion by hand."""

from __future__ import annotations

import argparse
import getpass
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlengine.champions import history
from mlengine.champions.history import Champion
from mlengine.cli import say
from mlengine.cli.options import Commands, add_bucket, bucket_of
from mlengine.core.errors import MlengineError
from mlengine.core.layout import JobDir
from mlengine.core.verdict import Thresholds, table
from mlengine.promotion.outcome import Force
from mlengine.promotion.publish import publish, rollback
from mlengine.storage.client import Storage

if TYPE_CHECKING:
    from mlengine.validation.report import Report
    from mlengine.validation.rules import Rules


def register(commands: Commands) -> None:
    parser = commands.add_parser("models", help="champions: list, show, validate, publish, register, roll back")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    listing = verbs.add_parser("list", help="every model that has a champion")
    add_bucket(listing)
    listing.set_defaults(handler=_list)

    show = verbs.add_parser("show", help="one model's champion and its history")
    show.add_argument("model", help="the model's name")
    show.add_argument("--limit", type=int, default=20, help="entries of the history to show (default: 20)")
    show.add_argument("--json", action="store_true", help="the whole history as JSON")
    add_bucket(show)
    show.set_defaults(handler=_show)

    validate = verbs.add_parser(
        "validate",
        help="run the gate on a job's model; exit code 1 if it is not accepted",
        description="Run the gate on a job's model. What is not given here is as in the job's last report.",
    )
    validate.add_argument("model", help="the model's name")
    validate.add_argument("job", help="the job's id, or its dir as gs://…")
    validate.add_argument(
        "--validation-level", help="all, signature or files (default: as in the last report, else all)"
    )
    validate.add_argument(
        "--threshold", action="append", default=[], metavar="NAME=VALUE", help="accuracy=0.97, tolerance=0.005, …"
    )
    validate.add_argument(
        "--serving-signature",
        metavar="JSON",
        help="how the model is called: JSON, or @FILE with it (docs/validation.md)",
    )
    validate.add_argument(
        "--require-comparison",
        action=argparse.BooleanOptionalAction,
        help="accept it only if it was compared with the champion (default: as in the last report, else yes)",
    )
    validate.add_argument(
        "--replace-report", action="store_true", help="even if the last report answers more questions than are asked"
    )
    validate.add_argument("--dataset", help="the dataset version's URI (default: what the job recorded)")
    validate.add_argument("--package", action="append", default=[], help="a package of the model's environment")
    add_bucket(validate)
    validate.set_defaults(handler=_validate)

    publish = verbs.add_parser("publish", help="make a validated job's model the champion")
    publish.add_argument("model", help="the model's name")
    publish.add_argument("job", help="the job's id, or its dir as gs://…")
    publish.add_argument("--force", action="store_true", help="despite its verdict, dataset version, run or comparison")
    publish.add_argument("--reason", default="", help="kept in the history; needed with --force")
    add_who(publish)
    add_bucket(publish)
    publish.set_defaults(handler=_publish)

    registries = verbs.add_parser("register", help="tell a registry elsewhere who is champion; safe to repeat")
    registries.add_argument("model", help="the model's name")
    registries.add_argument("--registry", required=True, help="vertex or mlflow")
    registries.add_argument(
        "-o",
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the registry: region=…, image_uri=…",
    )
    add_bucket(registries)
    registries.set_defaults(handler=_register)

    rollback = verbs.add_parser("rollback", help="make the champion before this one the champion again")
    rollback.add_argument("model", help="the model's name")
    rollback.add_argument("--to", type=int, metavar="SERIAL", help="that entry of the history instead")
    rollback.add_argument("--reason", required=True, help="kept in the history")
    add_who(rollback)
    add_bucket(rollback)
    rollback.set_defaults(handler=_rollback)


def add_who(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", default="", help="your name, for the history (default: who is logged in)")


def job_dir(bucket: str, model: str, job: str) -> JobDir:
    """A job by its id or by its dir."""
    return JobDir(job.rstrip("/")) if job.startswith("gs://") else JobDir.of(bucket, model, job)


def _list(args: argparse.Namespace) -> int:
    storage, bucket = Storage(), bucket_of(args)
    names = history.models(storage, bucket)
    if not names:
        say(f"no model in {bucket} has a champion")
    for name in names:
        champion = history.current(storage, bucket, name)
        if champion is not None:
            say(f"{name:20} {_line(champion)}")
    return 0


def _show(args: argparse.Namespace) -> int:
    found = history.history(Storage(), bucket_of(args), args.model, limit=args.limit)
    if args.json:
        say(json.dumps([json.loads(entry.to_bytes()) for entry in found], indent=2))
        return 0
    if not found:
        say(f"{args.model} has no champion yet")
        return 0
    champion = found[0]
    say(f"champion of {args.model}: {champion.job_id}")
    for name, value in (
        ("model", champion.model_uri),
        ("accuracy", "-" if champion.accuracy is None else f"{champion.accuracy:.4f}"),
        ("dataset", champion.dataset.get("uri") or champion.version),
        ("report", JobDir(champion.job_dir).page),
        ("packages", ", ".join(champion.lineage.get("package_uris", []))),
    ):
        say(f"  {name:9} {value or '-'}")
    say()
    say("history, the newest first:")
    for entry in found:
        say(f"  {_line(entry)}")
        if entry.why:
            say(f"         {entry.why}")
    return 0


def _validate(args: argparse.Namespace) -> int:
    from mlengine.backends import get_backend
    from mlengine.validation.environment import local_environment
    from mlengine.validation.job import load_job
    from mlengine.validation.report import find_report
    from mlengine.validation.usage import job_usage
    from mlengine.validation.validation import validate

    storage, bucket = Storage(), bucket_of(args)
    folder = job_dir(bucket, args.model, args.job)
    earlier = find_report(storage, folder)
    rules = _rules(args, earlier)
    subject = load_job(
        storage,
        folder.uri,
        model=args.model,
        bucket=bucket,
        package_uris=args.package,
        dataset=args.dataset or (earlier.dataset if earlier else None),
    )
    if subject.record is not None:
        with suppress(MlengineError):  # what the job took is for the report alone
            found = job_usage(get_backend(subject.record.backend), subject.record, subject.job_dir)
            subject = replace(subject, usage=found)
    if earlier:
        say(f"rules of the report of {earlier.created}, and those given here: validation_level={rules.scope.value}")
    report = validate(
        storage,
        subject,
        rules,
        local_environment(storage, subject.package_uris, env=subject.env),
        replace_report=args.replace_report,
    )
    for line in table(report.verdict.checks):
        say(line)
    say(f"report: {folder.page}")
    say(f"verdict: {report.verdict.decision.value}")
    for reason in report.verdict.reasons:
        say(f"  {reason}")
    if not earlier and not args.serving_signature and any(check.name == "signature" for check in report.verdict.failed):
        say("The default serving signature was expected; --serving-signature says how this model is called.")
    return 0 if report.verdict.decision.publishable else 1


def _rules(args: argparse.Namespace, earlier: Report | None) -> Rules:
    """What the command line says, and for the rest what the job's last report was made by."""
    from mlengine.validation.rules import Rules, Scope
    from mlengine.validation.signature import Expectation

    given = {name: value for name, _, value in (text.partition("=") for text in args.threshold)}
    bounds = earlier.thresholds.to_json() if earlier else {}
    known = earlier.serving_signature if earlier else None
    required = earlier.require_comparison if earlier else True
    return Rules(
        scope=Scope.parse(args.validation_level or (earlier.checks if earlier else Scope.ALL)),
        thresholds=Thresholds.from_json({**bounds, **given}),
        expected=Expectation.from_json(_json(args.serving_signature) if args.serving_signature else known),
        require_comparison=required if args.require_comparison is None else args.require_comparison,
    )


def _json(text: str) -> dict[str, Any]:
    """:raises MlengineError: it is no JSON object, or ``@FILE`` cannot be read."""
    try:
        data = json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise MlengineError(f"--serving-signature {text}: {error}", hint="give JSON, or @FILE with it") from error
    if not isinstance(data, dict):
        raise MlengineError(
            f"--serving-signature {text} is not a JSON object", hint="see docs/validation.md for its fields"
        )
    return data


def _publish(args: argparse.Namespace) -> int:
    from mlengine.validation.report import load_report

    storage, bucket = Storage(), bucket_of(args)
    report = load_report(storage, job_dir(bucket, args.model, args.job))
    if report.model != args.model:
        raise MlengineError(f"{report.job_id} is a model of {report.model}, not of {args.model}")
    who = _who(args)
    force = Force(who, args.reason) if args.force else None
    outcome = publish(storage, bucket, report, by=who, why=args.reason, force=force)
    say(f"{outcome.decision.value}: {outcome.reason}")
    return 0 if outcome.published else 1


def _register(args: argparse.Namespace) -> int:
    from mlengine.promotion.registries import connect
    from mlengine.promotion.registries.follow import follow

    options = dict(text.partition("=")[::2] for text in args.option)
    registry = connect({"kind": args.registry, **options})
    followed = follow(Storage(), bucket_of(args), args.model, [registry])
    for one in followed.registered:
        how = "is new there" if one.created else "was there already"
        say(f"{followed.champion.job_id} is version {one.version} of {one.name} in {one.registry}; it {how}")
    return 0


def _rollback(args: argparse.Namespace) -> int:
    back = rollback(Storage(), bucket_of(args), args.model, by=_who(args), why=args.reason, to=args.to)
    say(f"{back.job_id} is the champion of {back.model} again (entry {back.origin} came back as {back.serial})")
    return 0


def _who(args: argparse.Namespace) -> str:
    try:
        return args.by or getpass.getuser()
    except (KeyError, OSError) as error:
        raise MlengineError("nobody knows who you are here", hint="pass --by NAME") from error


def _line(champion: Champion) -> str:
    accuracy = "     -" if champion.accuracy is None else f"{champion.accuracy:.4f}"
    return (
        f"{champion.serial:6d} {champion.at[:19]} {champion.action.value:11} {accuracy} {champion.version or '-':12}"
        f" {champion.job_id} by {champion.by}"
    )
