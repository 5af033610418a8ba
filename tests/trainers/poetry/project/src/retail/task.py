from importlib.metadata import version
from pathlib import Path

shops = Path(__file__).parent.joinpath("data", "shops.csv").read_text().split()
print("retail", version("retail"), "shops", len(shops), "iniconfig", version("iniconfig")[0])
