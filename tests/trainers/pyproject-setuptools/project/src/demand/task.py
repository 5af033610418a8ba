from importlib.metadata import version
from importlib.resources import files

print("demand-forecast", version("demand-forecast"), files("demand").joinpath("static/holidays.txt").read_text().strip())
