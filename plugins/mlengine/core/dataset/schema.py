"""The columns of a dataset version and their roles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from mlengine.core.dataset.fields import Fields

DTYPES = (
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "string",
    "binary",
    "timestamp",
    "date",
)
VARIABLE = -1

# A value of a target or of a category.
Value: TypeAlias = str | int | float | bool


@dataclass(frozen=True)
class Column:
    """One column of a dataset version.

    :param shape: the shape of one value: ``()`` for a scalar, ``(28, 28)`` for an image, ``(-1,)`` for a list of any
        length.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    nullable: bool = False

    @property
    def numeric(self) -> bool:
        """Whether the column's values are integers, floats or booleans."""
        return self.dtype.startswith(("int", "uint", "float", "bool"))

    def __str__(self) -> str:
        shape = "" if not self.shape else f"[{'x'.join('?' if n == VARIABLE else str(n) for n in self.shape)}]"
        return f"{self.dtype}{shape}"

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {"name": self.name, "dtype": self.dtype}
        if self.shape:
            data["shape"] = list(self.shape)
        if self.nullable:
            data["nullable"] = True
        return data

    @classmethod
    def from_json(cls, data: Any, where: str) -> Self:
        fields = Fields(data, where)
        shape: tuple[int, ...] = ()
        if not fields.absent("shape"):
            shape = (VARIABLE,) if fields.value("shape") == [VARIABLE] else fields.counts("shape", at_least=1)
        nullable = not fields.absent("nullable") and fields.flag("nullable")
        return cls(fields.text("name"), fields.choice("dtype", DTYPES), shape, nullable)


@dataclass(frozen=True)
class Schema:
    """The columns in order, and the roles that some of them have.

    :param target: the column that a model predicts.
    :param key: the column that identifies a row; not a feature.
    :param time: the column with the time at which a row was observed.
    :param weight: the column with the weight of a row in metrics.
    :param classes: the target's values in order, for ``binary`` and ``multiclass``. The second of two is the positive
        class. ``None`` for other tasks.
    """

    columns: tuple[Column, ...]
    target: str | None = None
    key: str | None = None
    time: str | None = None
    weight: str | None = None
    classes: tuple[Value, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def features(self) -> tuple[Column, ...]:
        """The columns that a model may read: all but target, key and weight."""
        return tuple(column for column in self.columns if column.name not in (self.target, self.key, self.weight))

    def column(self, name: str) -> Column:
        """The column named ``name``.

        :raises KeyError: there is no such column.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {"columns": [column.to_json() for column in self.columns]}
        roles = {"target": self.target, "key": self.key, "time": self.time, "weight": self.weight}
        data |= {role: name for role, name in roles.items() if name is not None}
        if self.classes is not None:
            data["classes"] = list(self.classes)
        return data

    @classmethod
    def from_json(cls, data: Any, where: str) -> Self:
        fields = Fields(data, where)
        columns = tuple(
            Column.from_json(item, f"{where}.columns[{index}]") for index, item in enumerate(fields.items("columns"))
        )
        names = [column.name for column in columns]
        if len(set(names)) != len(names):
            raise fields.wrong("columns", "two columns have the same name")
        roles = {role: fields.optional(role, fields.text) for role in ("target", "key", "time", "weight")}
        for role, name in roles.items():
            if name is not None and name not in names:
                raise fields.wrong(role, f"there is no column {name!r}")
        classes = fields.optional("classes", fields.items)
        if classes is not None and not all(isinstance(value, str | int | float | bool) for value in classes):
            raise fields.wrong("classes", "not a list of strings and numbers")
        return cls(columns, **roles, classes=None if classes is None else tuple(classes))
