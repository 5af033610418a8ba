"""A share of the rows that leaves a split empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlengine.core.errors import DatasetError
from mlengine.datasets.discovery import find
from mlengine.datasets.register import Options, _share
from mlengine.datasets.scan import no_progress
from mlengine.datasets.share import split_share
from mlengine.storage.client import Storage


@pytest.mark.parametrize(
    ("share", "key", "message"),
    [
        (0.001, None, "--heldout 0.001 holds out none of 20 rows\n"),
        (0.9, "shop", "--heldout 0.9 holds out all of 20 rows; the hash of 'shop' decides, .* few different values\n"),
        (0.001, "shop", "holds out none of 20 rows; the hash of 'shop' decides"),
    ],
)
def test_a_share_that_leaves_a_split_empty_is_refused(
    tmp_path: Path, share: float, key: str | None, message: str
) -> None:
    (tmp_path / "x.csv").write_text("shop,x\n" + "".join(f"1,{row}\n" for row in range(20)))
    with pytest.raises(DatasetError, match=message):
        split_share(find(Storage(), str(tmp_path)), share, tmp_path / "share", key=key, dtypes={}, progress=no_progress)


@pytest.mark.parametrize(("text", "fraction"), [("20%", "0.2"), ("2.5 %", "0.025")])
def test_a_share_in_percent_is_refused_with_the_fraction(text: str, fraction: str) -> None:
    with pytest.raises(DatasetError, match="neither a path nor a share") as caught:
        _share(Options(heldout=text))
    assert caught.value.hint == f"write the share as a fraction: --heldout {fraction}"


def test_a_path_with_a_percent_sign_is_no_share(tmp_path: Path) -> None:
    (tmp_path / "20%").mkdir()
    assert _share(Options(heldout=str(tmp_path / "20%"))) is None
