import subprocess

from setuptools import setup

version = subprocess.check_output(["git", "describe", "--tags"], text=True).strip()

setup(name="search", version=version, packages=["search"])
