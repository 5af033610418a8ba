from importlib.metadata import version

print("credit", version("credit"))
