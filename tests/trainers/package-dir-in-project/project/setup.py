from setuptools import find_packages, setup

setup(name="taxi_trainer", version="0.4", packages=find_packages(), install_requires=["iniconfig"])
