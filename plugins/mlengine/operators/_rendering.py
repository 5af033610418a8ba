"""How the operators' templates are rendered: scalars as text, whatever the DAG does.

With ``render_template_as_native_obj=True``, Airflow turns the version ``20261101`` into an integer and ``1.10`` into
the number 1.1. An operator that expects a name gets the text in any case. Lists and mappings stay what they are, and
so does None.

An integer of a trigger form may arrive as ``400.0``: for JSON Schema, with which Airflow validates it, that is an
integer. It is rendered as ``400`` if the DAG declares its parameter as an integer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow.sdk import BaseOperator, XComArg
from airflow.sdk.definitions.param import ParamsDict


class TextRendering(BaseOperator):
    """Renders the template fields of an operator, and remembers which XComs were missing.

    It overrides two methods that Airflow 3.3 keeps private. Airflow calls the first one on the unmapped task of a
    mapped one too; the second one renders a single string.
    """

    # Field → the tasks whose XCom it should be, where none of them returned a value.
    _missing_xcoms: Mapping[str, tuple[str, ...]] = {}

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Any, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        fields = tuple(template_fields)
        sources = {name: _sources(getattr(parent, name, None)) for name in fields}
        super()._do_render_template_fields(parent, fields, with_integers(context, self.params), jinja_env, seen_oids)
        if parent is not self:
            return
        for name in fields:
            value = getattr(self, name, None)
            # Values that were no templates: XComs of other tasks, and those that a task is mapped over.
            if isinstance(value, int | float) and not isinstance(value, bool):
                setattr(self, name, str(value))
        self._missing_xcoms = {
            name: tasks for name, tasks in sources.items() if tasks and getattr(self, name, None) is None
        }
        self.after_rendering()

    def after_rendering(self) -> None:
        """Called when the template fields of this task have their values."""

    def _render(self, template: Any, context: Any, dag: Any = None) -> Any:  # noqa: ARG002 Airflow's signature
        try:
            parts = list(template.root_render_func(template.new_context(dict(context))))
        except Exception:
            template.environment.handle_exception()  # raises it again, with the template's line in the traceback
            raise
        # An environment with native rendering yields values, another one yields text.
        if len(parts) == 1 and (parts[0] is None or isinstance(parts[0], Mapping | list | tuple)):
            return parts[0]
        return "".join(map(str, parts))


def with_integers(context: Any, params: Any) -> Any:
    """The context, with integers for the values of parameters that the DAG declares as integers.

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
    """``value`` with integers where its JSON schema says so, at any depth."""
    if not isinstance(schema, Mapping):
        return value
    if isinstance(value, Mapping):
        properties = schema.get("properties") or {}
        return {name: _by_schema(one, properties.get(name)) for name, one in value.items()}
    if isinstance(value, list):
        return [_by_schema(one, schema.get("items")) for one in value]
    kinds = schema.get("type") or ()
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    if isinstance(value, float) and value.is_integer() and "integer" in kinds and "number" not in kinds:
        return int(value)
    return value


def _sources(value: Any) -> tuple[str, ...]:
    """The tasks to whose XComs a field refers."""
    return tuple(sorted({operator.task_id for operator, _ in XComArg.iter_xcom_references(value)}))
