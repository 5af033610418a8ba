from importlib.resources import files

import anomaly

print("anomaly", anomaly.__version__, files("anomaly").joinpath("thresholds.toml").read_text().strip())
