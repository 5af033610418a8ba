from importlib.metadata import version
from pathlib import Path

print("ranking", version("ranking"), Path(__file__).with_name("features.yaml").read_text().strip())
