from importlib.resources import files

print("traffic in", files("traffic").joinpath("maps/town.txt").read_text().strip())
