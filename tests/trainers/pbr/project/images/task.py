from importlib.metadata import version
from pathlib import Path

print("images", version("images"), Path(__file__).with_name("palette.txt").read_text().strip())
