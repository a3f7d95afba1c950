"""What colcon builds and installs of this package."""

from setuptools import setup

NAME = "tatvpr_edge_ros"

setup(
    name=NAME,
    version="0.0.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", ["launch/place_node.launch.py"]),
        (f"share/{NAME}/config", ["config/place_node.yaml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="tatvpr-edge",
    maintainer_email="maintainers@example.com",
    description="Place recognition as a ROS 2 lifecycle node",
    license="Apache-2.0",
    entry_points={"console_scripts": [f"place_node = {NAME}.place_node:main"]},
)
