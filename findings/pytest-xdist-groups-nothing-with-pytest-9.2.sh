#!/usr/bin/env bash
# pytest 9.2.0 with pytest-xdist 3.8.0: --dist loadgroup spreads the tests of one group over all workers.
#
# The worker marks a test's group by assigning `item._nodeid`. pytest 9.2 keeps the identity in another attribute, so the
# assignment has no effect, each test is a group of its own, and tests that must not run at the same time (one port, one
# database) do. Nothing warns: the mark is registered, and the option is accepted.
#
# Output seen:   pytest 9.1.0: 8 tests of one group ran in 1 worker
#                pytest 9.2.0: 8 tests of one group ran in 2 workers
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/tests"
cat > "$work/tests/test_group.py" <<'PY'
import os
import pathlib

import pytest


@pytest.mark.xdist_group("database")
@pytest.mark.parametrize("number", range(8))
def test_in_the_group(number):
    pathlib.Path(os.environ["SEEN"], f"{number}-{os.environ['PYTEST_XDIST_WORKER']}").touch()
PY
workers() {
    python3 -m venv "$work/$1"
    "$work/$1/bin/pip" install -q "pytest==$1" pytest-xdist==3.8.0
    mkdir "$work/seen-$1"
    (cd "$work/tests" && SEEN="$work/seen-$1" "$work/$1/bin/python" -m pytest -q -p no:cacheprovider -n 2 --dist loadgroup) >/dev/null
    find "$work/seen-$1" -type f | sed 's/.*-//' | sort -u | wc -l | tr -d ' '
}
before=$(workers 9.1.0)
after=$(workers 9.2.0)
echo "pytest 9.1.0: 8 tests of one group ran in $before worker"
echo "pytest 9.2.0: 8 tests of one group ran in $after workers"
[ "$before" = 1 ] && [ "$after" = 2 ] || { echo "changed: both run the group in one worker"; exit 1; }
