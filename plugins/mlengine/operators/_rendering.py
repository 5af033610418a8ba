"""Rendering of the operators' templates: scalars become strings, also in DAGs with native rendering.

With ``render_template_as_native_obj=True``, Airflow turns the version ``20261101`` into an integer and ``1.10`` into
the number 1.1. The operators keep such values as strings. Lists, mappings and ``None`` are not converted.

A trigger form may return the integer 400 as ``400.0``, which JSON Schema considers an integer. It is rendered as
``400`` if the DAG declares the parameter as an integer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow.sdk import BaseOperator, XComArg
from airflow.sdk.definitions.param import ParamsDict


class TextRendering(BaseOperator):
    """Renders the template fields of an operator, and records which XComs were missing.

    It overrides two private methods of Airflow 3.3. Airflow calls the first one for mapped tasks too; the second one
    renders a single string.
    """

    # For each field with a missing XCom, the tasks that should have returned it.
    _missing_xcoms: Mapping[str, tuple[str, ...]] = {}

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Any, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        fields = tuple(template_fields)
        templates = {name: getattr(parent, name, None) for name in fields}
        super()._do_render_template_fields(parent, fields, with_integers(context, self.params), jinja_env, seen_oids)
        if parent is not self:
            return
        for name in fields:
            value = getattr(self, name, None)
            # XComs of other tasks, and values that a task is mapped over, are not templates.
            if isinstance(value, int | float) and not isinstance(value, bool):
                setattr(self, name, str(value))
        missing = {name: _missing(template, getattr(self, name, None)) for name, template in templates.items()}
        self._missing_xcoms = {name: tuple(sorted(tasks)) for name, tasks in missing.items() if tasks}
        self.after_rendering()

    def after_rendering(self) -> None:
        """Called when the template fields of this task have their values."""

    def _render(self, template: Any, context: Any, dag: Any = None) -> Any:  # noqa: ARG002 Airflow's signature
        try:
            parts = list(template.root_render_func(template.new_context(dict(context))))
        except Exception:
            template.environment.handle_exception()  # re-raises, with the template's line in the traceback
            raise
        # An environment with native rendering yields values; other environments yield strings.
        if len(parts) == 1 and (parts[0] is None or isinstance(parts[0], Mapping | list | tuple)):
            return parts[0]
        return "".join(map(str, parts))


def is_template(value: Any) -> bool:
    """Whether rendering may change ``value``: a template, another task's output, or a container of one."""
    if isinstance(value, str):
        return any(start in value for start in ("{{", "{%", "{#"))
    if isinstance(value, Mapping):
        return any(map(is_template, value.values()))
    if isinstance(value, list | tuple):
        return any(map(is_template, value))
    return hasattr(value, "resolve") or hasattr(value, "template_fields")  # as in Airflow's renderer


def with_integers(context: Any, params: Any) -> Any:
    """The context, in which parameters that the DAG declares as integers are converted to integers.

    :param params: the task's parameters, with their schemas.
    """
    values = context.get("params")
    if not isinstance(params, ParamsDict) or not isinstance(values, Mapping):
        return context
    converted = {
        name: _by_schema(value, params.get_param(name).schema if name in params else {})
        for name, value in values.items()
    }
    return {**context, "params": converted}


def _by_schema(value: Any, schema: Any) -> Any:
    """``value``, with numbers converted to integers where its JSON schema requires integers, at any depth."""
    if not isinstance(schema, Mapping):
        return value
    if isinstance(value, Mapping):
        properties, others = schema.get("properties") or {}, schema.get("additionalProperties")
        return {name: _by_schema(one, properties.get(name, others)) for name, one in value.items()}
    if isinstance(value, list):
        first = schema.get("prefixItems") or ()
        schemas = [*first, *[schema.get("items")] * max(0, len(value) - len(first))]
        return [_by_schema(one, kind) for one, kind in zip(value, schemas, strict=False)]
    choices = [one for name in ("anyOf", "oneOf") for one in schema.get(name) or ()]
    if choices and not any(isinstance(one, Mapping) and one.get("type") == "number" for one in choices):
        for choice in choices:
            value = _by_schema(value, choice)
    kinds = schema.get("type") or ()
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    if isinstance(value, float) and value.is_integer() and "integer" in kinds and "number" not in kinds:
        return int(value)
    return value


def _missing(template: Any, value: Any) -> set[str]:
    """The tasks whose XComs are missing in a rendered field, at any depth.

    :param template: the field before it was rendered. A task that is mapped over may have returned ``None`` as a value.
    """
    if isinstance(template, XComArg):
        return set() if value is not None else {operator.task_id for operator, _ in template.iter_references()}
    if isinstance(template, Mapping) and isinstance(value, Mapping):
        return {task for name, one in template.items() for task in _missing(one, value.get(name))}
    if isinstance(template, list | tuple) and isinstance(value, list | tuple):
        return {task for pair in zip(template, value, strict=False) for task in _missing(*pair)}
    return set()
