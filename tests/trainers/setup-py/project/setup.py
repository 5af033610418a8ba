import os

from setuptools import find_packages, setup

here = os.path.dirname(os.path.abspath(__file__))

with open(os.path.join(here, "README.md")) as f:
    long_description = f.read()

setup(
    name="churn",
    version="0.3",
    description="Who leaves?",
    long_description=long_description,
    packages=find_packages(exclude=["tests"]),
    package_data={"churn.models": ["*.csv"]},
    install_requires=["six>=1.10"],
    zip_safe=False,
)
