"""pip of a container that Ferroflow runs: gives the container an environment with the packages and leaves shared ones alone."""

__version__ = "@VERSION@"


def main(args=None):
    import os
    import subprocess
    import sys

    arguments = sys.argv[1:] if args is None else args
    pip = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bin", "pip")
    return subprocess.call([pip, "--ferroflow-venv", sys.prefix, *arguments])
