"""Versions of what computes, at each level."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable
from functools import cache
from importlib import resources

from bids_app import __version__

# what the images of a scan depend on: with another version of one of these they are made anew
SCAN = ("antspyx", "h5py", "nibabel", "nilearn", "numpy", "onnxruntime", "scipy")
LEVELS = {  # what a level's report names: also what selects scans and reads tables
    "participant": (*SCAN, "pybids"),
    "group": (*SCAN, "llvmlite", "numba", "pandas", "scikit-learn", "statsmodels"),
}


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each package.

    Examples
    --------
    >>> list(versions(["scipy", "numpy"]))
    ['scipy', 'numpy']
    """
    return {name: _installed(name) for name in packages}


@cache  # asked for at every scan, and each answer reads files
def _installed(package: str) -> str:
    return importlib.metadata.version(package)


@cache
def weights() -> dict[str, str]:
    """Return the SHA-256 of all that was trained in the package, networks and norm, by file name."""
    there = resources.files("bids_app").joinpath("weights").iterdir()
    files = [each for each in there if each.name.endswith((".onnx", ".npz"))]
    return {
        each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in sorted(files, key=lambda each: each.name)
    }


def of_a_scan() -> dict[str, str]:
    """Return what a scan's images depend on beside scan and parameters: versions of app and libraries, and weights."""
    return {"bids_app": __version__, **versions(SCAN), **weights()}


def software(level: str, further: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions of the app, of Python, and of what computes at a level (``participant`` or ``group``).

    ``further`` names packages of an extra that computed too.
    """
    return {"bids_app": __version__, "python": platform.python_version(), **versions((*LEVELS[level], *further))}
