from distutils.core import setup

import setuptools

setup(name="ancient", version="0.1", packages=["ancient"], use_2to3=True)
