from importlib.metadata import version

from trainer.nets.deep import dense

print("layers", dense.layers(), "iniconfig", version("iniconfig")[0])
