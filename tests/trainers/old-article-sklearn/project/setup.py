from setuptools import find_packages, setup

setup(name="trainer", version="0.1", install_requires=["sklearn"], packages=find_packages())
