import pkg_resources
from setuptools import setup

setup(name="legacy", version="1.0", packages=["legacy"], install_requires=[str(pkg_resources.Requirement.parse("six"))])
