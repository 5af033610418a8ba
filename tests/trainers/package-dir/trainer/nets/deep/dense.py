import json
from pathlib import Path


def layers():
    return json.loads(Path(__file__).with_name("layers.json").read_text())
