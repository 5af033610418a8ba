"""The machines, accelerators, disks and prices of Vertex AI training, from ``vertex_machines.toml``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("vertex_machines.toml")
_PREFIX = "NVIDIA_TESLA_"  # of accelerators that are attached to N1 machines
# Family, shape and vCPUs, as in n1-standard-8 and c3-standard-88-lssd.
_SIZED = re.compile(r"(?P<series>(?P<family>[a-z0-9]+)-[a-z]+)-(?P<vcpus>[0-9]+)(-[a-z]+)?")


@dataclass(frozen=True)
class Machine:
    """A machine type that Vertex AI offers for training.

    :param accelerators: the accelerators that the machine type can have, each with the valid counts.
    :param required: whether a request must name one of them.
    :param topologies: the topologies of a TPU that has its own machine type, the single machine's first.
    """

    name: str
    accelerators: Mapping[str, tuple[int, ...]]
    required: bool = False
    topologies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Size:
    """The vCPUs and memory of a machine type.

    :param gib: the memory in GiB; ``None`` if the table does not have it.
    """

    vcpus: int
    gib: float | None = None


@dataclass(frozen=True)
class WithdrawnAccelerator:
    """An accelerator that Google has withdrawn.

    :param on: the day or year of the withdrawal.
    :param instead: the accelerator to use instead.
    :param source: URL of the announcement.
    """

    on: str
    instead: str
    source: str


@dataclass(frozen=True)
class Source:
    """The source of a table.

    :param page: the URL of the page.
    :param read: the day on which the page was read.
    :param copy: the age of the copy that was read, if not the page itself was read.
    :param region: the region that the table is about.
    """

    page: str
    read: str
    copy: str = ""
    region: str = ""


@cache
def table() -> Mapping[str, Any]:
    """The content of ``vertex_machines.toml``."""
    return tomllib.loads(_FILE.read_text("utf-8"))


@cache
def machines() -> Mapping[str, Machine]:
    """Every machine type that is offered, by name, in the file's order."""
    data = table()
    found = [
        Machine(name, _attachable(data["attachable"].get(name, {})))
        for series, sizes in data["series"].items()
        for name in (f"{series}-{size}" for size in sizes)
    ]
    for name, own in data["built_in"].items():
        found.append(Machine(name, {own["accelerator"]: (own["count"],)}, required=True))
    for name, own in data["tpu"].items():
        found.append(Machine(name, {}, topologies=tuple(own["topologies"])))
    tpu = data["cloud_tpu"]
    # Multiples of the pods' cores are valid too; the code for TPUs checks those.
    counts = (int(tpu["cores"]), int(tpu["pod_cores"]))
    found.append(Machine(tpu["machine"], dict.fromkeys(tpu["accelerators"], counts), required=True))
    return {machine.name: machine for machine in found}


def _attachable(counts: Mapping[str, list[int]]) -> Mapping[str, tuple[int, ...]]:
    ended = table()["ended"]
    return {f"{_PREFIX}{name}": tuple(numbers) for name, numbers in counts.items() if f"{_PREFIX}{name}" not in ended}


@cache
def families() -> frozenset[str]:
    """The families whose machine types are listed completely, such as ``n1``."""
    return frozenset(name.partition("-")[0] for name in machines())


def is_offered(name: str) -> bool | None:
    """Whether Vertex AI offers a machine type; ``None`` if the table does not have its family."""
    if name in machines():
        return True
    family, data = name.partition("-")[0], table()["not_offered"]
    known = family in families() or family in data["families"] or family in data["tpu_families"]
    return False if known else None


def built_in(name: str) -> tuple[str, int] | None:
    """The type and number of a machine type's built-in accelerators; ``None`` if it has none."""
    own = table()["built_in"].get(name)
    return (own["accelerator"], own["count"]) if own else None


def size(name: str) -> Size | None:
    """The vCPUs and memory of a machine type; ``None`` if neither the table nor the name has them.

    Compute Engine has more series than Vertex AI offers. Their names contain the vCPUs; their memory is unknown.
    """
    data = table()
    own = data["built_in"].get(name) or data["shared_core"].get(name)
    if own is not None:
        return Size(own["vcpus"], own["gib"])
    match = _SIZED.fullmatch(name)
    if match is None or match["family"] in _with_built_in():
        return None
    vcpus, gib = int(match["vcpus"]), data["gib_per_vcpu"].get(match["series"])
    return Size(vcpus, round(vcpus * gib, 1) if gib else None)


@cache
def _with_built_in() -> frozenset[str]:
    """The families whose machine types have built-in accelerators, such as ``g2``."""
    return frozenset(name.partition("-")[0] for name in table()["built_in"])


def with_accelerator(accelerator: str) -> tuple[str, ...]:
    """The machine types that can have an accelerator, in the file's order."""
    return tuple(name for name, machine in machines().items() if accelerator in machine.accelerators)


def withdrawn(accelerator: str) -> WithdrawnAccelerator | None:
    """The withdrawal of an accelerator by Google; ``None`` if it is still offered."""
    own = table()["ended"].get(accelerator)
    return WithdrawnAccelerator(**own) if own else None


def needs_reservation() -> frozenset[str]:
    """The accelerators that are available only through reservations."""
    return frozenset(table()["reservations"]["required_by"])


def reservation_name() -> str:
    """The form of a reservation's name."""
    return str(table()["reservations"]["name"])


def flex_start() -> frozenset[str]:
    """The accelerators that the Dynamic Workload Scheduler offers."""
    return frozenset(table()["flex_start"]["accelerators"])


def driver_cuda(accelerator: str) -> str | None:
    """The CUDA version that the driver on an accelerator's hosts supports, if the driver is known to be old."""
    own = table()["drivers"].get(accelerator)
    return str(own["cuda"]) if own else None


def disk_types() -> tuple[str, ...]:
    """The types of boot disks."""
    return tuple(table()["disk"]["types"])


def usd_per_hour() -> Mapping[str, float]:
    """Prices in the region of :func:`price_source`, by machine type, or for one accelerator by its name.

    Most machine types have no price: the file has only prices that were read in a dated source.
    """
    return dict(table()["prices"]["usd_per_hour"])


def price_source() -> Source:
    """The source of the prices."""
    own = table()["prices"]
    return Source(own["page"], own["read"], region=own["region"])


@cache
def accelerators() -> tuple[str, ...]:
    """Every accelerator that the file names, including withdrawn ones."""
    data = table()
    named = [*data["ended"], *data["cloud_tpu"]["accelerators"], *data["not_offered"]["tpu_accelerators"]]
    named += [own["accelerator"] for own in data["built_in"].values()]
    named += [f"{_PREFIX}{name}" for counts in data["attachable"].values() for name in counts]
    return tuple(sorted({*named, "TPU_V5_LITEPOD"}))


def source() -> Source:
    """The source of the machine tables."""
    own = table()["source"]
    return Source(own["page"], own["read"], own["copy"])


def size_source() -> Source:
    """The source of the machine sizes."""
    own = table()["sizes"]
    return Source(own["page"], own["read"], own["copy"])
