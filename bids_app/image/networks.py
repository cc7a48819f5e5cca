"""Trained networks at work: ONNX weights in, arrays through; one thread, no arena, equal bits on every run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import resources

import numpy as np
import onnxruntime

Network = Callable[[np.ndarray], np.ndarray]


def network(weights: bytes) -> Network:
    """Return a network as a function of one image.

    Parameters
    ----------
    weights : bytes
        An ONNX model with one input and one output, both float32, whose first axes have length 1: input
        (1, 1, X, Y, Z) and output of that shape for the brain; (1, C, X, Y) and (1, 1, X, Y) for lesions.

    Returns
    -------
    callable
        From an image without the leading axes of length 1, (X, Y, Z) or (C, X, Y), to the answer (X, Y, Z) or (X, Y).
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = False  # it would keep the largest answer's memory for the rest of the run
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]

    def answer(image: np.ndarray) -> np.ndarray:
        whole = np.ascontiguousarray(image, np.float32)[(None,) * (len(entry.shape) - image.ndim)]
        result: np.ndarray = session.run(None, {entry.name: whole})[0][0, 0]
        return result

    return answer


@cache
def brain_network() -> Network:
    """Return the network that finds the brain, made from the weights in the package, once a process."""
    return network(_weights("brain.onnx"))


@cache
def lesion_network() -> Network:
    """Return the network that finds lesions on slices, made from the weights in the package, once a process."""
    return network(_weights("lesions.onnx"))


def _weights(name: str) -> bytes:
    return resources.files("bids_app").joinpath("weights", name).read_bytes()
