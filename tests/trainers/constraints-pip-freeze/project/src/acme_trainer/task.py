from importlib.metadata import version

print(", ".join(f"{name} {version(name)}" for name in ("click", "iniconfig", "python-dotenv")))
