from pathlib import Path

import iniconfig

assert iniconfig.IniConfig
print("vision", Path(__file__).with_name("labels.txt").read_text().strip())
