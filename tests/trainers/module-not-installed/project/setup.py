from setuptools import setup

setup(name="sales", version="1.0", packages=["sales"])
