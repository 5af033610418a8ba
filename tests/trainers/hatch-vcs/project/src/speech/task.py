from speech._version import __version__

print("speech", __version__)
