"""``python -m bench.plot FILE.png``: plot accuracy against steps and against seconds, from curves as JSON on stdin."""

from __future__ import annotations

import json
import sys


def main(target: str) -> None:
    """Plot the curves. Needs ``trainer[draw]``.

    :param target: the PNG file to write.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6), sharey=True)
    for name, rows in json.load(sys.stdin).items():
        accuracy = [100 * row["test_accuracy"] for row in rows]
        axes[0].plot([row["step"] for row in rows], accuracy, "o-", markersize=4, label=name)
        axes[1].plot([row["seconds"] for row in rows], accuracy, "o-", markersize=4, label=name)
    axes[0].set(xlabel="steps of 100 examples, of all trainers together", ylabel="held-out accuracy, %")
    axes[1].set(xlabel="seconds since the first step, evaluations included")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1])
