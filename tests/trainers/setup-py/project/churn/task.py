import argparse
import os
from importlib.metadata import version

import six

from churn.models import linear

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int)
parser.add_argument("--job-dir")
args = parser.parse_args()
print("churn", version("churn"), "epochs", args.epochs, "weights", linear.weights(), "six", six.__version__[0])
