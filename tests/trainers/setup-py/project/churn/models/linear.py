import os


def weights():
    with open(os.path.join(os.path.dirname(__file__), "weights.csv")) as f:
        return f.read().strip()
