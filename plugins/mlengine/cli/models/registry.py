"""``mlengine models register``: register the champion in a model registry."""

from __future__ import annotations

import argparse

from mlengine.cli.models.arguments import add_model
from mlengine.cli.options import Commands, add_bucket, add_command, add_set, bucket_of, unique
from mlengine.cli.output import say
from mlengine.storage.client import Storage


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "register",
        "register the champion in a model registry",
        "Register the champion in a model registry. Repeating the command does not register it twice.",
    )
    add_model(parser)
    parser.add_argument("--registry", type=_registry, required=True, metavar="NAME", help="vertex or mlflow")
    add_set(parser, "an option of the registry, such as region=europe-west4; repeatable")
    add_bucket(parser, "bucket of the model")
    parser.set_defaults(handler=_register)


def _registry(text: str) -> str:
    from mlengine.promotion.registries import names

    if text not in names():
        raise argparse.ArgumentTypeError(f"no registry named {text!r}; the registries are {', '.join(names())}")
    return text


def _register(args: argparse.Namespace) -> int:
    from mlengine.promotion.registries import connect
    from mlengine.promotion.registries.follow import follow

    registry = connect({**unique("--set", args.set), "kind": args.registry})
    followed = follow(Storage(), bucket_of(args), args.model, [registry])
    for one in followed.registered:
        how = "registered" if one.created else "already registered"
        say(f"{followed.champion.job_id}: {how} as version {one.version} of {one.name} in {one.registry}")
    return 0
