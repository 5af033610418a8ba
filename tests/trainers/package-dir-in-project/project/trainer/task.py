from importlib.metadata import version

import iniconfig

print("taxi", version("taxi-trainer"), "with", iniconfig.__name__)
