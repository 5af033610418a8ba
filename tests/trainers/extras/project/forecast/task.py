from importlib.util import find_spec

words = [f"with{'' if find_spec(name) else 'out'} {name}" for name in ("iniconfig", "click")]
print("forecast", ", ".join(words))
