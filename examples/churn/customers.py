"""Synthetic customers of a telephone company: ``python customers.py MONTHS FILE.csv`` writes the first months."""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path

PLANS = {"basic": 20.0, "family": 45.0, "business": 80.0}


def customers(months: int) -> list[dict[str, object]]:
    """A thousand customers per month. The customers of a month are always the same."""
    found = []
    for month in range(months):
        source = random.Random(month)  # noqa: S311 - not a secret
        for number in range(1000):
            plan, tenure, calls = source.choice(list(PLANS)), round(source.uniform(0, 72), 1), source.randrange(9)
            charge = round(PLANS[plan] * source.uniform(0.8, 1.4), 2)
            # New customers with an expensive plan and many calls leave.
            risk = 0.9 - tenure / 60 + (charge / PLANS[plan] - 1.1) + (calls - 4) / 8
            found.append(
                {
                    "customer": f"c{month:02}{number:04}",
                    "plan": plan,
                    "tenure": tenure,
                    "charge": charge,
                    "calls": calls,
                    "churned": int(source.gauss(risk, 0.3) > 0.5),
                }
            )
    return found


if __name__ == "__main__":
    rows = customers(int(sys.argv[1]))
    with Path(sys.argv[2]).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
