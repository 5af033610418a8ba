"""Prints, as JSON, what an Airflow knows about mlengine. test_wheel.py runs it with the Python of another environment.

Calls the command line's own parser and functions in one process, because each ``airflow …`` would take five seconds.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.resources
import io
import json
import sys
from typing import Any

WORDS = {
    "providers": ["providers", "list", "-o", "json"],
    "plugins": ["plugins", "-o", "json"],
    "links": ["providers", "links", "-o", "json"],
    "config": ["config", "list", "--section", "mlengine", "--include-descriptions", "--defaults"],
}


def airflow(*words: str) -> str:
    from airflow.cli.cli_parser import get_parser

    args = get_parser().parse_args(list(words))
    with contextlib.redirect_stdout(io.StringIO()) as output:
        args.func(args)
    return output.getvalue()


def plugins() -> dict[str, Any]:
    from airflow import plugins_manager

    found, _ = plugins_manager._get_plugins()
    errors = plugins_manager.get_import_errors()
    apps = plugins_manager.get_fastapi_plugins()[0]
    return {
        "names": [plugin.name for plugin in found],
        "errors": errors,
        "apps": [app["url_prefix"] for app in apps],
        "timetables": sorted(plugins_manager.get_timetables_plugins()),
    }


def form() -> dict[str, Any]:
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    hook = manager.hooks["mlengine"]
    prefix = "extra__mlengine__"
    fields = {
        name.removeprefix(prefix): widget.field
        for name, widget in manager.connection_form_widgets.items()
        if name.startswith(prefix)
    }
    return {
        "name": hook.hook_name if hook else None,
        "class": hook.hook_class_name if hook else None,
        "fields": {name: field["schema"]["title"] for name, field in fields.items()},
        "hidden": manager.field_behaviours["mlengine"]["hidden_fields"],
    }


def operators() -> list[str]:
    names = []
    for module in ("package", "dataset", "prepare", "submit", "validate", "publish"):
        found = importlib.import_module(f"mlengine.operators.{module}")
        names += [name for name in vars(found) if name.endswith("Operator") and name != "BaseOperator"]
    return sorted(set(names))


def main(*asked: str) -> None:
    output: dict[str, Any] = {}
    for name in asked:
        if name in WORDS:
            output[name] = airflow(*WORDS[name])
        else:
            output[name] = {"form": form, "operators": operators, "loaded": plugins, "assets": assets}[name]()
    # Must be last: if mlengine is only in the plugins folder, Airflow is what adds that folder to the path.
    output["file"] = importlib.import_module("mlengine").__file__
    sys.stdout.write(json.dumps(output) + "\n")


def assets() -> list[str]:
    folder = importlib.resources.files("mlengine.web") / "static"
    return sorted(item.name for item in folder.iterdir())


if __name__ == "__main__":
    main(*sys.argv[1:])
