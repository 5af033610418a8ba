"""``mlengine models publish`` and ``rollback``: change the champion at a terminal."""

from __future__ import annotations

import argparse

from mlengine.cli.documents import PublicationDocument
from mlengine.cli.exit_codes import ExitCode
from mlengine.cli.models.arguments import add_job, add_model, job_dir
from mlengine.cli.options import Commands, add_bucket, add_by, add_command, add_json, bucket_of, reason, user
from mlengine.cli.output import say, say_json
from mlengine.core.errors import MlengineError, UsageError
from mlengine.promotion.outcome import Force
from mlengine.promotion.publish import publish, rollback
from mlengine.storage.client import Storage

_ABOUT = """\
Make the model of a validated job the champion. Exit code 4 if it is not published because of its verdict, dataset
version, run or comparison with the champion; --force publishes it anyway.
"""


def register(commands: Commands) -> None:
    """Add the commands."""
    publication = add_command(commands, "publish", "make the model of a validated job the champion", _ABOUT)
    add_model(publication)
    add_job(publication)
    publication.add_argument(
        "--force", action="store_true", help="publish despite the verdict, dataset version, run or comparison"
    )
    publication.add_argument("--reason", type=reason, help="reason for the history; required with --force")
    add_by(publication)
    add_bucket(publication, "bucket of the model")
    add_json(publication)
    publication.set_defaults(handler=_publish)

    back = add_command(commands, "rollback", "make an earlier champion the champion again")
    add_model(back)
    back.add_argument("--to", type=int, metavar="SERIAL", help="serial in the history (default: the previous champion)")
    back.add_argument("--reason", type=reason, required=True, help="reason for the history")
    add_by(back)
    add_bucket(back, "bucket of the model")
    back.set_defaults(handler=_rollback)


def _publish(args: argparse.Namespace) -> int:
    from mlengine.validation.report import load_report

    who = user(args)
    if args.force and not args.reason:
        raise UsageError("--force requires a reason", hint='add --reason "…", which is recorded in the history')
    storage, bucket = Storage(), bucket_of(args)
    report = load_report(storage, job_dir(bucket, args.model, args.job))
    if report.model != args.model:
        raise MlengineError(
            f"job {report.job_id} trained model {report.model}, not {args.model}",
            hint=f"publish it as {report.model}, or choose another job",
        )
    force = Force(who, args.reason) if args.force else None
    outcome = publish(storage, bucket, report, by=who, why=args.reason or "", force=force)
    detail = outcome.reason
    if args.json:
        document: PublicationDocument = {
            "model": args.model,
            "job_id": report.job_id,
            "outcome": outcome.decision.value,
            "published": outcome.published,
            "detail": detail,
        }
        say_json(document)
    else:
        say(f"{outcome.decision.value}: {detail}")
    return ExitCode.OK if outcome.published else ExitCode.NOT_ACCEPTED


def _rollback(args: argparse.Namespace) -> int:
    back = rollback(Storage(), bucket_of(args), args.model, by=user(args), why=args.reason, to=args.to)
    say(f"{back.job_id} is the champion of {back.model} again: entry {back.origin} is now entry {back.serial}")
    return 0
