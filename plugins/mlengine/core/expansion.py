"""Expansion of ``$(VAR)`` in arguments and environment variables, by the rules of Kubernetes and Vertex AI.

``$(VAR)`` becomes the value of ``VAR``; it is unchanged if there is no such variable. ``$$`` becomes ``$``, so that
``$$(VAR)`` gives ``$(VAR)``. ML Engine expanded nothing, so its arguments are escaped before they are sent to Vertex
AI.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\$|\$\(([^)]*)\)")
_SPECIAL = re.compile(r"\$(?=[$(])")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """``text`` with each ``$(VAR)`` replaced by its value in ``variables``."""
    return _REFERENCE.sub(lambda match: "$" if match[0] == "$$" else variables.get(match[1], match[0]), text)


def escape(text: str) -> str:
    """``text`` escaped so that :func:`expand` returns it unchanged, whatever the variables are."""
    return _SPECIAL.sub("$$", text)


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """Replace references to ``variables`` only. A later :func:`expand` replaces the other references."""

    def replace(match: re.Match[str]) -> str:
        value = variables.get(match[1]) if match[1] is not None else None
        return match[0] if value is None else escape(value)

    return _REFERENCE.sub(replace, text)


def expand_environment(own: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The expanded values of ``own``. Each may refer to ``given`` and to earlier values of ``own``."""
    expanded: dict[str, str] = {}
    for name, value in own.items():
        expanded[name] = expand(value, {**given, **expanded})
    return expanded
