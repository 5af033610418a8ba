from importlib.metadata import version

import acme_internal_features

print("trainer", version("acme-trainer"), "with features", acme_internal_features.VERSION)
