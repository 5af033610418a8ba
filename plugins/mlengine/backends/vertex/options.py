"""Options of Vertex AI in addition to the job file.

Common options are typed fields; :attr:`VertexOptions.raw` is for all other fields of the API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Self

from mlengine.core.errors import BackendError


@dataclass(frozen=True)
class VertexOptions:
    """Settings of a custom job, the same for every pool.

    :param image_uri: the container image of every pool for which the job file has none; any image with ``python3`` and
        ``pip``. By default, Docker Hub's plain Python image of the job file's version.
    :param executor_image_uri: one of Google's prebuilt training images: the job is then sent as a Python package spec,
        which Google's own start command runs, instead of a container spec.
    :param machine_type: the machine type of every pool for which the job file has none.
    :param reservation: ``any`` reservation that fits, ``none``, or the full resource name of one.
    :param persistent_resource: the id of a persistent resource to run on.
    :param spot: use cheap machines that may be pre-empted.
    :param flex_start: wait for machines in the Dynamic Workload Scheduler.
    :param max_wait_seconds: how long the job may wait for machines before it is cancelled; 0 for no limit. By default,
        the job file's ``maxWaitTime``. The task or command that waits for the job cancels it; with ``flex_start``, so
        does the service.
    :param timeout_seconds: the longest time that the job may run; by default the job file's ``maxRunningTime``, else 7
        days.
    :param restart_on_worker_restart: restart the whole job when one replica is restarted.
    :param disable_retries: the service does not retry the job; this project's attempts are not affected.
    :param service_account: the account whose rights the trainer has; by default the project's custom code service
        agent.
    :param network: the full name of a peered network.
    :param encryption_key: the resource name of a Cloud KMS key.
    :param reserved_ip_ranges: names of reserved IP ranges of ``network``, from which replicas get their addresses.
    :param psc_interface: the API's ``pscInterfaceConfig``: ``network_attachment`` and ``dns_peering_configs``.
    :param nfs_mounts: the API's ``nfsMounts`` of every pool: ``server``, ``path``, ``mount_point``.
    :param tensorboard: the resource name of a TensorBoard instance; needs ``service_account``.
    :param experiment: the full resource name of the metadata context of an experiment to which the job is added.
    :param experiment_run: the full resource name of the metadata context of a run to which the job is added.
    :param web_access: provide an interactive shell in each replica.
    :param dashboard_access: provide access to a dashboard that the chief's container serves.
    :param fallbacks: the requests to make instead, in this order, if machines are missing: mappings with the fields of
        :mod:`mlengine.backends.vertex.fallbacks`.
    :param labels: labels in addition to those of the job file.
    :param env: environment variables in addition to those of the job file.
    :param raw: fields that are merged into the ``CustomJob`` JSON last, dicts key by key, lists of the same length item
        by item; ``None`` removes a field.
    :param accelerator_checks: refuse a job whose packages or image cannot use its accelerators; if false, only warn.
    :param cost_cap_usd: refuse a job whose estimated cost is higher.
    :param prices: prices in USD per hour by machine type or accelerator, instead of this project's list. The price of
        a machine type that comes with accelerators includes them.
    """

    image_uri: str | None = None
    executor_image_uri: str | None = None
    machine_type: str = "n1-standard-4"
    boot_disk_gb: int | None = None
    boot_disk_type: str | None = None
    reservation: str | None = None
    persistent_resource: str | None = None
    spot: bool = False
    flex_start: bool = False
    max_wait_seconds: int | None = None
    timeout_seconds: int | None = None
    restart_on_worker_restart: bool = False
    disable_retries: bool = False
    service_account: str | None = None
    network: str | None = None
    reserved_ip_ranges: Sequence[str] = ()
    psc_interface: Mapping[str, Any] = field(default_factory=dict)
    nfs_mounts: Sequence[Mapping[str, Any]] = ()
    encryption_key: str | None = None
    tensorboard: str | None = None
    experiment: str | None = None
    experiment_run: str | None = None
    web_access: bool = False
    dashboard_access: bool = False
    fallbacks: Sequence[Mapping[str, Any]] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)
    accelerator_checks: bool = True
    cost_cap_usd: float | None = None
    prices: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.spot and self.flex_start:
            raise BackendError(
                "spot and flex_start are two ways to get machines; a job takes one",
                hint="set spot for cheap machines now, or flex_start to wait for scarce ones",
            )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(item.name for item in fields(cls))

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """The options from keyword arguments, or from command line text (``spot=true``, ``labels={team: vision}``).

        :raises BackendError: there is no setting of a given name, or a value has the wrong type.
        """
        unknown = sorted(set(settings) - set(cls.names()))
        if unknown:
            raise BackendError(
                f"the vertex backend has no setting {unknown[0]!r}",
                hint=f"use one of {', '.join(cls.names())}; what the API has beyond these goes into 'raw'",
            )
        return cls(**cls.typed(settings))

    @classmethod
    def typed(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The values, converted to the types of their settings.

        :raises BackendError: a value has the wrong type; the message names the setting.
        """
        return {item.name: _value(item, settings[item.name]) for item in fields(cls) if item.name in settings}


_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "Mapping": (Mapping,),
    "Sequence": (list, tuple),
}


def _value(item: Field[Any], given: Any) -> Any:
    kind = str(item.type).partition("[")[0].partition(" ")[0]
    value = given
    if isinstance(given, str) and kind != "str":
        import yaml

        value = yaml.safe_load(given)
    if value is None:
        return item.default if item.default_factory is MISSING else item.default_factory()
    wrong = isinstance(value, bool) and kind in {"int", "float"}
    if isinstance(value, Mapping) and "float" in str(item.type):
        wrong = not all(isinstance(one, int | float) and not isinstance(one, bool) for one in value.values())
    if wrong or not isinstance(value, _TYPES[kind]) or not _names_are_text(value):
        raise BackendError(
            f"the vertex setting {item.name} must be {item.type}, not {given!r}", hint=f"correct {item.name}"
        )
    return value


def _names_are_text(value: Any) -> bool:
    """Whether all names of mappings are strings: in YAML, numbers and booleans can be names, too."""
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _names_are_text(item) for name, item in value.items())
    return not isinstance(value, list | tuple) or all(map(_names_are_text, value))
