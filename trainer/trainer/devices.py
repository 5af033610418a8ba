"""The devices that TensorFlow sees, compared with the accelerators that this replica was given.

TensorFlow silently trains on the CPU if it does not find the GPU, because of a CPU-only build, missing CUDA libraries
or a missing driver. That is slow, and the GPU is billed all the same.
"""

from __future__ import annotations

import logging
import os

import tensorflow as tf

from trainer.errors import AcceleratorMissingError

log = logging.getLogger(__name__)

# mlengine sets these for replicas whose machine has accelerators: a name such as NVIDIA_L4, and a number.
TYPE, COUNT = "MLENGINE_ACCELERATOR_TYPE", "MLENGINE_ACCELERATOR_COUNT"


def check(*, allow_cpu: bool = False) -> None:
    """Log the devices, and fail if accelerators are missing.

    :param allow_cpu: log a warning instead of failing.
    :raises AcceleratorMissingError: fewer accelerators are visible than this replica was given, or they are TPUs, which
        this trainer does not use.
    """
    log.info("TensorFlow %s, a build for %s, sees %s", tf.__version__, _build(), _seen())
    problem = _problem(os.environ.get(TYPE, ""), int(os.environ.get(COUNT) or 1))
    if problem and not allow_cpu:
        raise AcceleratorMissingError(f"{problem}; --allow_cpu trains all the same")
    if problem:
        log.warning("%s; training goes on without", problem)
    gpus = tf.config.list_physical_devices("GPU")
    if len(gpus) > 1:
        log.warning("this trainer uses one GPU per replica, and this machine has %d", len(gpus))
        tf.config.set_visible_devices(gpus[:1], "GPU")


def has_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(tf.config.list_physical_devices("GPU"))


def _problem(given: str, count: int) -> str:
    if not given:
        return ""
    if given.startswith("TPU"):
        return f"this replica was given {count} {given}, and this trainer does not use TPUs"
    found = len(tf.config.list_physical_devices("GPU"))
    if found >= count:
        return ""
    if not tf.sysconfig.get_build_info()["is_cuda_build"]:
        hint = "install tensorflow[and-cuda] instead: pip install 'trainer[gpu]'"
    else:
        hint = (
            "install CUDA's libraries (pip install 'trainer[gpu]'), and have the driver's, /usr/local/nvidia/lib64, in "
            "LD_LIBRARY_PATH; with TF_CPP_MIN_LOG_LEVEL=0, TensorFlow logs its reason"
        )
    return f"this replica was given {count} {given}, and TensorFlow sees {found}: {hint}"


def _build() -> str:
    info = tf.sysconfig.get_build_info()
    return f"CUDA {info.get('cuda_version', '')}".strip() if info["is_cuda_build"] else "CPUs only"


def _seen() -> str:
    names = []
    for device in tf.config.list_physical_devices():
        kind = device.name.removeprefix("/physical_device:")
        model = tf.config.experimental.get_device_details(device).get("device_name") if "GPU" in kind else None
        names.append(f"{kind} ({model})" if model else kind)
    return ", ".join(names)
