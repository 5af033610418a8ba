#!/usr/bin/env bash
# pytest 9.2.0 with requests 2.34.2: a thread that lives through several tests gets KeyError: 'PYTEST_CURRENT_TEST' from
# a request, now and then.
#
# pytest sets and deletes the environment variable PYTEST_CURRENT_TEST around each phase of each test. For each request,
# requests reads the proxies from os.environ, by way of the standard library. Reading all items of os.environ is not
# atomic: it lists the names, and then gets each value. A module fixture that runs clients in threads while its tests
# run is enough; so are libraries on top of requests, such as Google's clients.
#
# Output seen:   29 of 23817: KeyError('PYTEST_CURRENT_TEST'), while 2000 tests ran
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q pytest==9.2.0 requests==2.34.2
cat > "$work/test_threads.py" <<'PY'
import threading
from pathlib import Path

import pytest
import requests

seen, prepared = [], 0


@pytest.fixture(scope="module", autouse=True)
def client():
    over = threading.Event()

    def work():
        global prepared
        session = requests.Session()
        while not over.is_set():
            prepared += 1
            try:
                # What requests does before it connects to any URL.
                session.merge_environment_settings("http://127.0.0.1:9/", {}, None, None, None)
            except KeyError as error:
                seen.append(repr(error))

    thread = threading.Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()
    Path("seen.txt").write_text(f"{len(seen)} of {prepared}: {', '.join(sorted(set(seen)))}\n")


@pytest.mark.parametrize("number", range(2000))
def test_nothing(number):
    pass
PY
cd "$work"
for _ in 1 2 3; do
    "$work/venv/bin/python" -m pytest -q -p no:cacheprovider test_threads.py | tail -n 1
    cat seen.txt
    if grep -q "KeyError('PYTEST_CURRENT_TEST')" seen.txt; then
        exit 0
    fi
done
echo "changed: no request in another thread failed while pytest changed its variable"
exit 1
