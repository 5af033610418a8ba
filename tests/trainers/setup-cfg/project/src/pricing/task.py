import json
from pathlib import Path

import iniconfig

import pricing

rates = json.loads((Path(__file__).parent / "data" / "rates.json").read_text())
assert iniconfig.IniConfig
print("pricing", pricing.__version__, "rate", rates["rate"])
