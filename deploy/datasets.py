"""Make the bucket of the stand-in for Cloud Storage if there is none, and register the MNIST versions it lacks."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import mnist

from mlengine.core.errors import MlengineError
from mlengine.core.layout import split_uri
from mlengine.storage import Storage


def main() -> int:
    bucket, cache = os.environ["MLENGINE_BUCKET"], Path(os.environ["HOME"]) / "mnist"
    storage = Storage()
    name = split_uri(bucket)[0]
    try:
        if storage.client.lookup_bucket(name) is None:
            storage.client.create_bucket(name)
        added = mnist.ensure(storage, bucket, cache)
    except MlengineError as error:
        sys.stderr.write(f"datasets: {error}\n")
        return 1
    sys.stdout.write(f"registered: {', '.join(added) or 'nothing, all versions are there'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
