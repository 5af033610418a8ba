"""Determines the columns that each input of a model takes.

An input takes the column of its own name, or the one that ``columns`` names for it; a list of columns becomes a matrix,
in the order of the list. If there is no such column, the only input of a model takes all columns together: the only
column of the dataset, or all numeric columns as a matrix, in the order of the dataset's schema. All other cases are
refused, with an error that says what was found and what to write.

This module uses the standard library only, as it is used in the trainer's environment and in Airflow's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

# The dtype of a column or an input, and the shape of one value; None for an unknown shape.
Description = tuple[str, Sequence[int] | None]
_NUMBERS = ("int", "uint", "float", "bool")


class MatchError(ValueError):
    """An input has no column. ``hint`` says what to change."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def match(
    inputs: Sequence[str],
    columns: Mapping[str, Description],
    *,
    given: Mapping[str, str | Sequence[str]] = {},
    features: str | None = None,
) -> dict[str, list[str]]:
    """The columns of each input.

    :param inputs: names of the model's inputs, without its key.
    :param columns: the dataset's columns, in order, without target, weight and key.
    :param given: the column by input, if their names differ; or a list of columns, which become a matrix.
    :param features: the input that takes all columns together.
    :raises MatchError: an input has no column.
    """
    lists = {name: [one] if isinstance(one, str) else list(one) for name, one in given.items()}
    unknown = sorted({column for names in lists.values() for column in names} - set(columns))
    if unknown:
        raise MatchError(
            "columns names {}; the dataset has {}".format(", ".join(unknown), listed(columns)), "correct the names"
        )
    found = {}
    for name in inputs:
        if (name in lists or name in columns) and name != features:
            found[name] = lists.get(name, [name])
        elif name == features or len(inputs) == 1:
            found[name] = _together(name, columns)
    missing = [name for name in inputs if name not in found]
    if missing:
        raise MatchError(
            "no column for input {}: the dataset has the columns {}".format(
                ", ".join(repr(name) for name in missing), listed(columns)
            ),
            'name the inputs as the columns, or map them: serving_signature={"columns": {"' + missing[0] + '": "…"}};'
            ' an input that takes several columns as a matrix needs a list of them: ["…", "…"]',
        )
    return found


def match_features(
    names: Sequence[str] | None, columns: Mapping[str, Description], given: Mapping[str, str | Sequence[str]]
) -> list[str]:
    """The columns of a model of tables, in the order of its features.

    :param names: the names of the features. ``None`` if they have none: then they are all numeric columns, or those
        that ``given`` lists for the input ``features``.
    :raises MatchError: a feature has no column, or several.
    """
    if not names:
        return match(["features"], columns, given=given, features=None if "features" in given else "features")[
            "features"
        ]
    feeds = match(names, columns, given=given)
    for name, found in feeds.items():
        if len(found) > 1:
            raise MatchError(f"feature {name!r} takes one column, not {listed(found)}", "name one column for it")
    return [feeds[name][0] for name in names]


def _together(name: str, columns: Mapping[str, Description]) -> list[str]:
    """The columns for an input that takes all together: the only column, or all numeric columns."""
    if len(columns) == 1:
        return list(columns)
    numbers = [column for column, description in columns.items() if is_number(description)]
    if not numbers:
        raise MatchError(
            f"input {name!r} takes all numeric columns as one matrix, and none of {listed(columns)} is numeric",
            'export one input per column, or give a scorer: scorer="package.module:function"',
        )
    return numbers


def is_number(column: Description) -> bool:
    """Whether a column has one number per row."""
    dtype, shape = column
    return dtype.startswith(_NUMBERS) and not shape


def listed(columns: Iterable[str]) -> str:
    """The first names, for a message."""
    names = list(columns)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
