"""Create the bucket of the Cloud Storage emulator if it does not exist, and register missing MNIST versions."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import mnist

from mlengine.core.layout import split_uri
from mlengine.storage.client import Storage


def main() -> int:
    bucket, cache = os.environ["AIRFLOW__MLENGINE__BUCKET"], Path(os.environ["HOME"]) / "mnist"
    client, name = Storage().client, split_uri(bucket)[0]
    if client.lookup_bucket(name) is None:
        client.create_bucket(name)
    return mnist.main(["--bucket", bucket, "--cache", str(cache)])


if __name__ == "__main__":
    sys.exit(main())
