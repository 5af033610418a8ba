"""The devices that TensorFlow sees, compared with the accelerators that this replica was given.

TensorFlow silently trains on the CPU if it does not find the GPU, because of a CPU-only build, missing CUDA libraries
or a missing driver. That is slow, and the GPU is billed all the same.

The type in which training computes depends on the device, and is chosen here too.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import tensorflow as tf

from trainer.errors import AcceleratorMissingError, UsageError

log = logging.getLogger(__name__)

_CPUINFO = Path("/proc/cpuinfo")
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


def compute_type(precision: str) -> tf.DType:
    """The type in which training computes convolutions and the dense layer. Weights and their updates are float32.

    :param precision: ``float32`` or ``bfloat16``; ``auto`` is bfloat16 on a CPU with AMX, where a step takes half the
        time. On CPUs that have only AVX-512's instructions for bfloat16, it takes as long as in float32.
    :raises UsageError: this machine does not compute in bfloat16.
    """
    gpu, features = has_gpu(), _cpu_features()
    if precision == "auto":
        precision = "bfloat16" if "amx_bf16" in features and not gpu else "float32"
    elif precision == "bfloat16" and not (gpu or features & {"amx_bf16", "avx512_bf16"}):
        raise UsageError(
            "--precision bfloat16 needs a GPU, or a CPU with instructions for this type (amx_bf16 or avx512_bf16 in "
            f"{_CPUINFO}); use --precision auto or float32"
        )
    return tf.dtypes.as_dtype(precision)


def _cpu_features() -> frozenset[str]:
    """The words of ``/proc/cpuinfo``, which name the CPU's instruction sets.

    Empty if there is no such file, or if TensorFlow does not use oneDNN, whose operations use them.
    """
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        return frozenset()
    try:
        return frozenset(_CPUINFO.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return frozenset()


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
