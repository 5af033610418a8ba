"""Finds the GPUs of this machine, and assigns them to replicas.

Only NVIDIA GPUs are found, as ``nvidia-smi -L`` lists them; a card that is divided into MIG devices counts as these
devices. The variable ``CUDA_VISIBLE_DEVICES`` of the process that submits, and the setting ``local_gpus``, restrict
them. Whether other programs use a GPU is not considered.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from mlengine.core.errors import BackendError
from mlengine.core.plural import number_of
from mlengine.core.spec import Pool, Role, TrainingSpec
from mlengine.runtime.extras import ACCELERATOR_COUNT, ACCELERATOR_TYPE

VISIBLE = "CUDA_VISIBLE_DEVICES"
ReplicaId = tuple[Role, int]

# With several GPUs and without persistence mode, the driver takes seconds for each.
_SMI_SECONDS = 60.0
_NO_DEVICES = 6  # nvidia-smi's exit code
_CARD = re.compile(r"GPU (\d+): (.+) \(UUID: (GPU-[^)\s]+)\)")
_MIG = re.compile(r"\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: (MIG-[^)\s]+)\)")
HIDE_ALL = "-1"
_NAME = re.compile(r"\d+|(GPU|MIG)-\S+")  # the name of a GPU in local_gpus


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a MIG device.

    :param id: its name in ``CUDA_VISIBLE_DEVICES``: the UUID, or an index if only that is known.
    :param name: for messages, such as ``GPU 0`` or ``GPU 0 MIG 2``.
    :param card: the index and the UUID of the card.
    """

    id: str
    name: str
    model: str = ""
    card: tuple[str, str] = ("", "")
    mig: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.model})" if self.model else self.name


def find(setting: str, env: Mapping[str, str]) -> list[Gpu]:
    """The GPUs that jobs may use.

    :param setting: ``local_gpus``.
    :param env: the environment of the process that submits.
    :raises BackendError: the driver does not respond, the setting is invalid, or it names GPUs that are not visible.
    """
    if setting and not all(map(_NAME.fullmatch, _names(setting))):
        raise BackendError(
            f"local_gpus is {setting!r}",
            hint="write a number, indices such as 0,2, or UUIDs such as GPU-…; 0 for none; nothing for all",
        )
    if setting == "0":
        return []
    listed, visible = _listed(env), env.get(VISIBLE)
    if listed is None:
        return _unlisted(setting, visible)
    if visible is not None:
        listed = _named(listed, visible)
    if not setting:
        return listed
    chosen = listed[: int(setting)] if setting.isdecimal() else _named(listed, setting)
    wanted = int(setting) if setting.isdecimal() else len(_names(setting))
    if len(chosen) < wanted:
        shown = f"; {VISIBLE}={visible}" if visible is not None else ""
        raise BackendError(
            f"local_gpus is {setting!r}, and this machine has {describe(listed)}{shown}",
            hint="correct the setting local_gpus, or remove it to use all visible GPUs",
        )
    return chosen


def describe(gpus: Sequence[Gpu]) -> str:
    """The GPUs for a message, such as ``2 GPUs: GPU 0 (NVIDIA L4), GPU 1 (NVIDIA L4)``."""
    return f"{number(len(gpus))}: {', '.join(map(str, gpus))}" if gpus else "no GPU"


def number(count: int) -> str:
    """A number of GPUs for a message, such as ``1 GPU`` or ``2 GPUs``."""
    return number_of(count, "GPU")


def accelerator(pool: Pool) -> str:
    """The type of the GPUs that the pool requests; "" if it requests none."""
    kind = pool.accelerator_type or ""
    return kind if pool.accelerator_count and kind.startswith("NVIDIA_") else ""


def needed(spec: TrainingSpec) -> dict[ReplicaId, int]:
    """The number of GPUs of each replica that requests some."""
    counts = {pool.role: pool.accelerator_count for pool in spec.pools if accelerator(pool)}
    return {(role, index): counts[role] for role, index in spec.replicas if role in counts}


def assign(needs: Mapping[ReplicaId, int], gpus: Iterable[Gpu]) -> dict[ReplicaId, list[Gpu]] | None:
    """GPUs for each replica; ``None`` if there are too few.

    CUDA enumerates one MIG device per process, so a replica that requests several gets whole cards.
    """
    found = list(gpus)
    slices, cards = [gpu for gpu in found if gpu.mig], [gpu for gpu in found if not gpu.mig]
    assigned: dict[ReplicaId, list[Gpu]] = {}
    for replica, count in sorted(needs.items(), key=lambda need: -need[1]):
        source = slices if count == 1 and slices else cards
        if len(source) < count:
            return None
        assigned[replica], source[:count] = source[:count], []
    return assigned


def check(job_id: str, spec: TrainingSpec, gpus: Sequence[Gpu]) -> None:
    """Check that this machine has the GPUs that the job requests.

    :raises BackendError: the job requests more GPUs than this machine has.
    """
    needs = needed(spec)
    if assign(needs, gpus) is not None:
        return
    wanted = ", ".join(
        f"{pool.role.value}: {f'{pool.count} x ' if pool.count > 1 else ''}{pool.accelerator_count} {accelerator(pool)}"
        for pool in spec.pools
        if accelerator(pool)
    )
    slices = " (a replica can use one MIG device, not several)" if any(gpu.mig for gpu in gpus) else ""
    raise BackendError(
        f"{job_id} requests {number(sum(needs.values()))} ({wanted}), and this machine has {describe(gpus)}{slices}",
        hint="request fewer accelerators or replicas, or set local_gpus = 0 to train on the CPU",
    )


def variables(pool: Pool | None, gpus: Sequence[Gpu]) -> dict[str, str]:
    """The environment variables with which a replica sees these GPUs and no others."""
    visible = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", VISIBLE: ",".join(gpu.id for gpu in gpus) or HIDE_ALL}
    if pool is None or not gpus:
        return visible
    return {**visible, ACCELERATOR_TYPE: accelerator(pool), ACCELERATOR_COUNT: str(len(gpus))}


def _listed(env: Mapping[str, str]) -> list[Gpu] | None:
    """The GPUs that the driver lists; ``None`` if there is no ``nvidia-smi``.

    :raises BackendError: ``nvidia-smi`` fails.
    """
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"],
            env={**env, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SMI_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        return None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(str(error)) from error
    found = _parse(done.stdout)
    # nvidia-smi also fails, after printing its list, for a card with a damaged InfoROM. Such a card still computes.
    if done.returncode not in {0, _NO_DEVICES} and not found:
        raise _failed(f"exit code {done.returncode}: {(done.stdout + done.stderr).strip()}")
    return found


def _failed(why: str) -> BackendError:
    return BackendError(
        f"the GPUs of this machine are unknown: nvidia-smi -L failed: {why}",
        hint="repair the NVIDIA driver, or set local_gpus = 0 to train on the CPU",
    )


def _parse(text: str) -> list[Gpu]:
    found: list[Gpu] = []
    for line in text.splitlines():
        if match := _CARD.match(line):
            found.append(Gpu(match[3], f"GPU {match[1]}", match[2], (match[1], match[3])))
        elif found and (match := _MIG.match(line)):
            card = found[-1].card
            if not found[-1].mig:
                found.pop()
            found.append(Gpu(match[3], f"GPU {card[0]} MIG {match[2]}", match[1], card, mig=True))
    return found


def _named(gpus: Sequence[Gpu], names: str) -> list[Gpu]:
    """The GPUs that ``names`` selects, written as in ``CUDA_VISIBLE_DEVICES``.

    As in CUDA, an invalid name hides all GPUs whose names follow it.
    """
    found: dict[str, Gpu] = {}
    groups = ([gpu for gpu in gpus if _is(gpu, name)] for name in _names(names))
    for group in takewhile(bool, groups):
        found |= {gpu.id: gpu for gpu in group}
    return list(found.values())


def _is(gpu: Gpu, name: str) -> bool:
    """Whether ``name`` is the card's index, or the start of the UUID of the device or of its card."""
    if name.isdecimal():
        return gpu.card[0] == name
    return name.startswith(("GPU-", "MIG-")) and (gpu.id.startswith(name) or gpu.card[1].startswith(name))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _unlisted(setting: str, visible: str | None) -> list[Gpu]:
    """The GPUs that the setting names on a machine without ``nvidia-smi``."""
    names = _names(setting) if setting else []
    if setting.isdecimal():
        names = [str(index) for index in range(int(setting))]
        if visible is not None:
            names = _names(visible)[: int(setting)]
    return [Gpu(name, f"GPU {name}" if name.isdecimal() else name, mig=name.startswith("MIG-")) for name in names]
