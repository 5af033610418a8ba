from importlib.metadata import version

print("ready-made", version("ready-made"))
