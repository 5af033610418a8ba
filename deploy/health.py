"""Health check of a service: ``health.py URL [COMPONENT]``. Exit code 0 or 1, and a line that ``docker inspect`` shows.

With a component, the URL is that of Airflow's health endpoint, which must report this component as healthy. It takes
50 ms; ``airflow jobs check`` imports all of Airflow every time.
"""

import json
import sys
import urllib.error
import urllib.request

SECONDS = 6


def main(url: str, component: str = "") -> int:
    try:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(url, timeout=SECONDS) as answer:
            body = answer.read()
        state = json.loads(body)[component]["status"] if component else "healthy"
    except (OSError, ValueError, KeyError, urllib.error.URLError) as error:
        state = f"{type(error).__name__}: {error}"
    sys.stdout.write(f"{component or url}: {state}\n")
    return 0 if state == "healthy" else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
