from importlib.metadata import version

print("My.Old_Trainer", version("My.Old_Trainer"))
