from importlib.metadata import version

print("retail", version("retail"))
