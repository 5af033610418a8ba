"""Whether bundles fit on nodes at the same time, compared with trying all placements."""

from __future__ import annotations

import random
from itertools import permutations, product

import pytest

from mlengine.backends.ray.packing import Amounts, without_own_node, without_room


def fits(wanted: list[Amounts], nodes: list[Amounts]) -> bool:
    """Whether the bundles fit, determined by trying all placements."""
    for placement in product(range(len(nodes)), repeat=len(wanted)):
        free = [dict(node) for node in nodes]
        for bundle, place in zip(wanted, placement, strict=True):
            for name, amount in bundle.items():
                free[place][name] = free[place].get(name, 0.0) - amount
        if all(amount >= 0 for node in free for amount in node.values()):
            return True
    return False


def fits_one(bundle: Amounts, node: Amounts) -> bool:
    return all(node.get(name, 0.0) >= amount for name, amount in bundle.items())


def fit_apart(wanted: list[Amounts], nodes: list[Amounts]) -> bool:
    """Whether the bundles fit with each on a separate node, determined by trying all placements."""
    return any(all(map(fits_one, wanted, chosen)) for chosen in permutations(nodes, len(wanted)))


def amounts(chance: random.Random, most: int) -> Amounts:
    return {"CPU": float(chance.randint(1, most)), "GPU": float(chance.choice([0, 0, 1, 2]))}


@pytest.mark.parametrize("seed", range(150))
def test_the_search_agrees_with_an_exhaustive_one(seed: int) -> None:
    chance = random.Random(seed)
    wanted = [amounts(chance, 4) for _ in range(chance.randint(1, 5))]
    nodes = [amounts(chance, 6) for _ in range(chance.randint(1, 4))]
    found = without_room(wanted, nodes)
    assert (found is None) == fits(wanted, nodes)
    if len(wanted) <= len(nodes):
        assert (without_own_node(wanted, nodes) is None) == fit_apart(wanted, nodes)


def test_a_placement_that_needs_backtracking_is_found() -> None:
    """Placing the largest bundle first, each on the fullest node, fails: 6+4 and 5+5 is the only placement."""
    wanted: list[Amounts] = [{"CPU": 5.0, "x": 1.0}, {"CPU": 4.0}, {"CPU": 6.0}, {"CPU": 5.0}]
    assert without_room(wanted, [{"CPU": 10.0}, {"CPU": 10.0, "x": 1.0}]) is None


def test_the_bundle_without_room_is_named() -> None:
    assert without_room([{"CPU": 1.0}, {"CPU": 3.0}, {"CPU": 3.0}], [{"CPU": 4.0}, {"CPU": 2.0}]) == 2
    assert without_own_node([{"CPU": 1.0}, {"CPU": 3.0}, {"CPU": 3.0}], [{"CPU": 4.0}, {"CPU": 2.0}, {"CPU": 2.0}]) == 2


def test_an_empty_job_fits_anywhere() -> None:
    assert without_room([], []) is None
    assert without_own_node([], [{"CPU": 1.0}]) is None


def test_a_job_is_accepted_if_the_search_exceeds_its_limit() -> None:
    """A node has room for two bundles, so 47 do not fit on 23 nodes, but an exhaustive search would take forever."""
    wanted: list[Amounts] = [{"CPU": 13.6 + number / 100} for number in range(47)]
    assert without_room(wanted, [{"CPU": 40.5}] * 23, steps=500) is None


def test_a_large_job_on_a_large_cluster_is_decided_quickly() -> None:
    nodes: list[Amounts] = [{"CPU": 8.0, "memory": 2.0**35 + number} for number in range(300)]
    wanted: list[Amounts] = [{"CPU": 4.0, "memory": 2.0**33}] * 600
    assert without_room(wanted, nodes) is None
    assert without_room([*wanted, {"CPU": 4.0}], nodes, steps=1000) is None, "the search must stop at its limit"
    assert without_own_node(wanted[:300], nodes) is None
    assert without_own_node([*wanted[:300], {"CPU": 1.0}], nodes) == 300
