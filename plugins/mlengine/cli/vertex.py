"""``mlengine vertex machines``: the machines of Vertex AI training, from the table that the checks use."""

from __future__ import annotations

import argparse

from mlengine.cli.documents import (
    AcceleratorDocument,
    MachineDocument,
    OldMachineDocument,
    PoolDocument,
    VertexMachinesDocument,
)
from mlengine.cli.options import Commands, add_command, add_json, add_noun
from mlengine.cli.output import say, say_json, say_table
from mlengine.core import vertex_machines
from mlengine.core.errors import UsageError
from mlengine.core.job_file import tiers, tpus
from mlengine.core.spec import Pool, Role, counted
from mlengine.core.vertex_machines import Machine

_ABOUT = """\
Print the machine types that Vertex AI offers for training, with their accelerators and the known prices. Jobs are
checked against this table. The table is part of mlengine and has a date; the command sends no requests.
"""


def register(commands: Commands) -> None:
    """Add the noun and its command."""
    verbs = add_noun(commands, "vertex", "show what Vertex AI offers for training")
    machines = add_command(verbs, "machines", "list machine types and their accelerators", _ABOUT)
    machines.add_argument(
        "name", nargs="?", metavar="NAME", help="only machine types that start with NAME, such as a2-highgpu"
    )
    machines.add_argument(
        "--accelerator", metavar="NAME", help="only machine types with this accelerator, such as L4 or TPU"
    )
    machines.add_argument(
        "--ml-engine",
        action="store_true",
        help="ML Engine's machine types and scale tiers, with their Vertex AI equivalents",
    )
    add_json(machines)
    machines.set_defaults(handler=_machines)


def _machines(args: argparse.Namespace) -> int:
    if args.ml_engine:
        return _ml_engine(args)
    found = [
        _document(machine)
        for machine in vertex_machines.machines().values()
        if machine.name.startswith(args.name or "") and _has(machine, args.accelerator)
    ]
    if not found:
        raise UsageError(
            f"no machine type matches {' '.join(filter(None, (args.name, args.accelerator)))}",
            hint="run `mlengine vertex machines` without a filter to list all machine types",
        )
    if args.json:
        say_json(_all(found))
        return 0
    say_table(("MACHINE TYPE", "ACCELERATORS", "USD/H"), [(one["name"], _shown(one), _price(one)) for one in found])
    say()
    _say_notes()
    return 0


def _ml_engine(args: argparse.Namespace) -> int:
    """Print ML Engine's old names, and the pools that Vertex AI gets for them."""
    if args.name or args.accelerator:
        raise UsageError("--ml-engine takes no filter", hint="omit NAME and --accelerator")
    names = {name: [Pool(Role.CHIEF, 1, name)] for name in tiers.MACHINES}
    found: list[OldMachineDocument] = [
        {"name": name, "pools": [_pool(pool) for pool in pools]} for name, pools in (names | tiers.TIERS).items()
    ]
    if args.json:
        say_json(found)
        return 0
    rows = [(one["name"], ", ".join(map(_shown_pool, one["pools"]))) for one in found]
    say_table(("ML ENGINE", "VERTEX AI"), rows)
    return 0


def _pool(pool: Pool) -> PoolDocument:
    found, _ = tiers.for_vertex(pool)
    return {
        "role": pool.role.value,
        "replicas": pool.count,
        "machine_type": found.machine_type or "",
        "accelerator": found.accelerator_type,
        "accelerators": found.accelerator_count,
    }


def _shown_pool(pool: PoolDocument) -> str:
    more = f" with {pool['accelerators']} {pool['accelerator']}" if pool["accelerator"] else ""
    return f"{counted(pool['replicas'], pool['role'])} {pool['machine_type']}{more}"


def _has(machine: Machine, accelerator: str | None) -> bool:
    """Whether a machine can have an accelerator whose name contains ``accelerator``, ignoring case."""
    names = [*machine.accelerators, *([f"TPU {tpus.kind(machine.name)}"] if machine.topologies else ())]
    return accelerator is None or any(accelerator.lower() in name.lower() for name in names)


def _document(machine: Machine) -> MachineDocument:
    prices = vertex_machines.usd_per_hour()
    return {
        "name": machine.name,
        "accelerators": {name: list(counts) for name, counts in machine.accelerators.items()},
        "accelerator_required": machine.required,
        "tpu": tpus.kind(machine.name) if machine.topologies else None,
        "topologies": list(machine.topologies),
        "usd_per_hour": prices.get(machine.name),
    }


def _all(machines: list[MachineDocument]) -> VertexMachinesDocument:
    source, prices = vertex_machines.source(), vertex_machines.price_source()
    data = vertex_machines.table()
    return {
        "source": source.page,
        "read": source.read,
        "copy": source.copy,
        "machines": machines,
        "accelerators": [_accelerator(name) for name in vertex_machines.accelerators()],
        "not_offered": [*data["not_offered"]["families"], *data["not_offered"]["tpu_families"]],
        "boot_disk": {
            "types": list(vertex_machines.disk_types()),
            "least_gb": data["disk"]["least_gb"],
            "most_gb": data["disk"]["most_gb"],
        },
        "flex_start": sorted(vertex_machines.flex_start()),
        "needs_reservation": sorted(vertex_machines.needs_reservation()),
        "prices": {"source": prices.page, "read": prices.read, "region": prices.region},
    }


def _accelerator(name: str) -> AcceleratorDocument:
    withdrawn = vertex_machines.withdrawn(name)
    return {
        "name": name,
        "ended": withdrawn.on if withdrawn else None,
        "instead": withdrawn.instead if withdrawn else None,
        "cuda": vertex_machines.driver_cuda(name),
        "usd_per_hour": vertex_machines.usd_per_hour().get(name),
    }


def _shown(machine: MachineDocument) -> str:
    """A machine's accelerators for display, such as ``NVIDIA_TESLA_T4 x 1, 2, 4``."""
    if machine["topologies"]:
        return f"TPU {machine['tpu']}: {', '.join(machine['topologies'])}"
    cells = [f"{name} x {', '.join(map(str, counts))}" for name, counts in machine["accelerators"].items()]
    return "; ".join(cells) or "-"


def _price(machine: MachineDocument) -> str:
    return "-" if machine["usd_per_hour"] is None else f"{machine['usd_per_hour']:.4f}"


def _say_notes() -> None:
    data, source, prices = vertex_machines.table(), vertex_machines.source(), vertex_machines.price_source()
    disk = data["disk"]
    say(f"Boot disks: {', '.join(disk['types'])}; {disk['least_gb']} to {disk['most_gb']} GB.")
    for name, ended in data["ended"].items():
        say(f"{name} has not been available since {ended['on']}: use {ended['instead']} instead.")
    say(f"Flex-start: {', '.join(sorted(vertex_machines.flex_start()))}.")
    say(f"Only with a reservation: {', '.join(sorted(vertex_machines.needs_reservation()))}.")
    say(f"Not offered for training: {', '.join(data['not_offered']['families'])}.")
    each = ", ".join(
        f"{name} {price:.4f} each"
        for name, price in vertex_machines.usd_per_hour().items()
        if name not in vertex_machines.machines()
    )
    say(f"Prices: {prices.region}, read {prices.read} ({each}); no prices are known for the other types. {prices.page}")
    say(f"Table: read {source.read} in a copy of {source.copy}. {source.page}")
