from setuptools import setup

setup(name="My.Old_Trainer", version="1.0-beta2", packages=["MyTrainer"])
