from importlib.metadata import version

import acme_shared_library

pins = [f"{name} {version(name)}" for name in ("iniconfig", "six")]
print(", ".join([*pins, f"library {acme_shared_library.VERSION}"]))
