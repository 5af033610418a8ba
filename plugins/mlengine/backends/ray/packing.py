"""Determines whether the bundles of a placement group can be placed on the nodes of a cluster at the same time.

The search is exact, but ends after a number of steps. A job for which it has no result by then is accepted, because a
job that fits must never be refused.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

Amounts = Mapping[str, float]  # amounts by name of the resource
_Vector = tuple[int, ...]
_Groups = tuple[tuple[_Vector, int], ...]  # free amounts, and the number of nodes that have them; sorted

_UNITS = 10_000  # Ray's smallest unit of a resource is 1 / 10,000
_STEPS = 5_000


def without_room(wanted: Sequence[Amounts], nodes: Sequence[Amounts], *, steps: int = _STEPS) -> int | None:
    """The index of a bundle that has no room once the larger ones are placed; ``None`` if all have room.

    :param wanted: the bundles, each of which fits on an empty node.
    :param nodes: the total resources of each node.
    :param steps: the limit of the search.
    """
    vectors, free = _vectors(wanted, nodes)
    order = _largest_first(vectors, free)
    start = _grouped(free)
    seen = {(0, start)}
    stack = [_placements(start, vectors[order[0]])] if order else []
    deepest = 0
    while stack:
        following = next(stack[-1], None)
        if following is None:
            stack.pop()
            continue
        placed = len(stack)
        if placed == len(order) or len(seen) > steps:
            return None
        # Equal nodes and equal bundles lead to states that were searched before.
        if (placed, following) not in seen:
            seen.add((placed, following))
            deepest = max(deepest, placed)
            stack.append(_placements(following, vectors[order[placed]]))
    return order[deepest] if order else None


def without_own_node(wanted: Sequence[Amounts], nodes: Sequence[Amounts]) -> int | None:
    """The index of a bundle for which no node is left if no two bundles share a node; ``None`` if there is none."""
    vectors, free = _vectors(wanted, nodes)
    owner: dict[int, int] = {}
    for bundle in _largest_first(vectors, free):
        path = _augmenting_path(bundle, vectors, free, owner)
        if path is None:
            return bundle
        owner.update({node: moved for moved, node in path})
    return None


def _augmenting_path(
    bundle: int, vectors: Sequence[_Vector], free: Sequence[_Vector], owner: Mapping[int, int]
) -> list[tuple[int, int]] | None:
    """The moves of bundles to other nodes by which ``bundle`` gets a node, too; ``None`` if it cannot get one."""
    came: dict[int, int] = {}  # by node: the bundle that would take it
    left_by = {owned: node for node, owned in owner.items()}
    queue = deque([bundle])
    while queue:
        current = queue.popleft()
        for node, amounts in enumerate(free):
            if node in came or not _fits(vectors[current], amounts):
                continue
            came[node] = current
            if node in owner:
                queue.append(owner[node])
                continue
            path = [(current, node)]
            while path[-1][0] != bundle:
                left = left_by[path[-1][0]]
                path.append((came[left], left))
            return path
    return None


def _vectors(wanted: Sequence[Amounts], nodes: Sequence[Amounts]) -> tuple[list[_Vector], list[_Vector]]:
    """Bundles and nodes in Ray's units, reduced to the resources that bundles need."""
    names = sorted({name for bundle in wanted for name in bundle})
    wanted_units, free_units = (
        [tuple(round(one.get(name, 0.0) * _UNITS) for name in names) for one in some] for some in (wanted, nodes)
    )
    return wanted_units, free_units


def _largest_first(vectors: Sequence[_Vector], free: Sequence[_Vector]) -> list[int]:
    """The order of bundles by their share of the cluster, the largest first. Equal bundles follow each other."""
    totals = [sum(amounts) or 1 for amounts in zip(*free, strict=True)] or [1] * len(vectors[0] if vectors else ())

    def key(index: int) -> tuple[float, _Vector, int]:
        share = sum(amount / total for amount, total in zip(vectors[index], totals, strict=True))
        return -share, vectors[index], index

    return sorted(range(len(vectors)), key=key)


def _grouped(free: Sequence[_Vector]) -> _Groups:
    return tuple(sorted((amounts, free.count(amounts)) for amounts in set(free)))


def _placements(groups: _Groups, bundle: _Vector) -> Iterator[_Groups]:
    """The free amounts after the bundle was placed: one result for each kind of node with room, the fullest first."""
    for index, (amounts, count) in enumerate(groups):
        if not _fits(bundle, amounts):
            continue
        rest = list(groups[:index] + groups[index + 1 :])
        if count > 1:
            insort(rest, (amounts, count - 1))
        left = tuple(have - need for have, need in zip(amounts, bundle, strict=True))
        same = next((place for place, group in enumerate(rest) if group[0] == left), None)
        insort(rest, (left, 1 if same is None else rest.pop(same)[1] + 1))
        yield tuple(rest)


def _fits(bundle: _Vector, node: _Vector) -> bool:
    return all(need <= have for need, have in zip(bundle, node, strict=True))
