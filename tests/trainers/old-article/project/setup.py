from setuptools import find_packages, setup

REQUIRED_PACKAGES = ["tensorflow==1.15.0", "pandas==0.25.3", "sklearn"]

setup(
    name="trainer",
    version="0.1",
    install_requires=REQUIRED_PACKAGES,
    packages=find_packages(),
    include_package_data=True,
    description="My training application.",
)
