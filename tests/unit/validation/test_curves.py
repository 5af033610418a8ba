"""Learning curves: all measurements that a trainer writes, and nothing else."""

from __future__ import annotations

import json

from mlengine.validation.curves import MAX_SERIES, parse_curves


def test_numbers_become_curves_and_other_lines_are_skipped() -> None:
    text = "\n".join(
        [
            '{"step": 1, "train_loss": 2.0, "test_accuracy": 0.5, "wall_time": 1.7e9}',
            "not json",
            '{"step": 2, "train_loss": NaN, "test_accuracy": "high"}',
            '{"step": true, "train_loss": 1.0}',
            "[1, 2]",
            '{"step": 3, "train_loss": 1.0, "per_class": [1, 2], "val_auc": 0.8}',
        ]
    )
    assert parse_curves(text).series == {
        "train_loss": ((1.0, 2.0), (3.0, 1.0)),
        "test_accuracy": ((1.0, 0.5),),
        "val_auc": ((3.0, 0.8),),
    }
    assert not parse_curves("")


def test_values_and_names_that_cannot_be_shown_are_skipped() -> None:
    lines = [f'{{"step": 1, "loss": {"9" * digits}}}' for digits in (400, 302)]
    lines += [r'{"step": 1, "lo\ud800ss": 1}', '{"step": 1, "loss": NaN}', '{"step": 1, "\u00e9 \U0001f600": 1e300}']
    assert parse_curves("\n".join(lines)).series == {"\u00e9 \U0001f600": ((1.0, 1e300),)}


def test_long_series_are_thinned_and_many_are_cut() -> None:
    many = "\n".join(f'{{"step": {step}, "train_loss": 1}}' for step in range(9999))
    thinned = parse_curves(many).series["train_loss"]
    assert len(thinned) <= 2001
    assert thinned[-1][0] == 9998
    assert len(parse_curves(json.dumps({"step": 1} | {f"metric_{at}": 1 for at in range(99)})).series) == MAX_SERIES


def test_series_of_one_measurement_share_a_plot() -> None:
    curves = parse_curves('{"step": 1, "train_loss": 2.0, "loss": 1, "val_loss": 3, "val_auc": 0.5, "val_": 1}')
    assert {title: sorted(series) for title, series in curves.plots.items()} == {
        "loss": ["loss", "train_loss", "val_loss"],
        "auc": ["val_auc"],
        "val_": ["val_"],
    }
