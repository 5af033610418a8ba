import os

print(open(os.path.join(os.path.dirname(__file__), "model.json")).read())
