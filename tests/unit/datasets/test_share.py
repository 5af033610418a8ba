"""A share of the rows that leaves a split empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlengine.core.errors import DatasetError
from mlengine.datasets.discovery import find
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
