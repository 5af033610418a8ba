"""Checks of a request's networks: peering, PSC interface, reserved IP ranges and NFS mounts."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from mlengine.backends.vertex.accelerators import Problems

_NETWORK = re.compile(r"projects/[^/]+/global/networks/[^/]+")
_ATTACHMENT = re.compile(r"(projects/[^/]+/regions/[^/]+/networkAttachments/)?[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_DNS_FIELDS = ("domain", "targetProject", "targetNetwork")
_MOUNT_FIELDS = ("server", "path", "mountPoint")


def problems(spec: Mapping[str, Any], pools: list[Mapping[str, Any]]) -> Problems:
    """The network settings that cannot work, each with a hint.

    :param spec: the ``jobSpec``.
    :param pools: its worker pools that are not empty.
    """
    found = _network(spec)
    attached = spec.get("network") or spec.get("pscInterfaceConfig")
    for pool in pools:
        mounts = pool.get("nfsMounts") or ()
        found += [problem for mount in mounts for problem in _mount(mount)]
        points = [mount.get("mountPoint") for mount in mounts]
        if len(set(points)) < len(points):
            found.append((f"nfsMounts: a mount point is used twice: {points}", "give each its own mount_point"))
        if mounts and not attached:
            found.append(("NFS shares are reached through a network of yours", "set network, or psc_interface"))
    return found


def notes(body: Mapping[str, Any]) -> list[str]:
    """Notes about servers that a job in a private network is likely not to reach."""
    spec = body["jobSpec"]
    images = [pool.get("containerSpec", {}).get("imageUri", "") for pool in spec["workerPoolSpecs"]]
    hub = next((image for image in images if image and "/" not in image), None)
    if hub is None or not (spec.get("network") or spec.get("pscInterfaceConfig")):
        return []
    note = (
        f"the image {hub} is on Docker Hub, and the trainer's dependencies are on PyPI; in a network without access "
        "to them, set image_uri to an image in Artifact Registry, and PIP_INDEX_URL in env to a mirror"
    )
    return [note]


def _network(spec: Mapping[str, Any]) -> Problems:
    network, interface = spec.get("network"), spec.get("pscInterfaceConfig")
    if network and interface:
        # Both are documented as ways to connect to a VPC network. Whether they exclude each other is not documented;
        # this is the cautious interpretation.
        return [("network and psc_interface are two ways to reach a network; a job takes one", "drop one of them")]
    if network and not _NETWORK.fullmatch(network):
        hint = "use projects/PROJECT_NUMBER/global/networks/NAME"
        return [(f"network: is not the full name of a network: {network!r}", hint)]
    if spec.get("reservedIpRanges") and not network:
        return [("reserved_ip_ranges are ranges of a peered network", "set network too")]
    return _interface(interface) if interface else []


def _interface(interface: Mapping[str, Any]) -> Problems:
    attachment = str(interface.get("networkAttachment") or "")
    if not _ATTACHMENT.fullmatch(attachment):
        hint = "set network_attachment to projects/PROJECT/regions/REGION/networkAttachments/NAME, or to NAME"
        return [(f"psc_interface: is not a network attachment: {attachment!r}", hint)]
    unknown = sorted(set(interface) - {"networkAttachment", "dnsPeeringConfigs"})
    if unknown:
        return [(f"psc_interface: has no field {unknown[0]!r}", "use network_attachment and dns_peering_configs")]
    for peering in interface.get("dnsPeeringConfigs", ()):
        if sorted(peering) != sorted(_DNS_FIELDS) or not str(peering["domain"]).endswith("."):
            hint = "use domain (with a dot at its end), target_project and target_network"
            return [(f"psc_interface: is not a DNS peering: {dict(peering)!r}", hint)]
    return []


def _mount(mount: Mapping[str, Any]) -> Problems:
    if sorted(mount) != sorted(_MOUNT_FIELDS):
        return [(f"nfsMounts: is not a mount: {dict(mount)!r}", "use server, path and mount_point")]
    try:
        ipaddress.ip_address(mount["server"])
    except ValueError:
        return [(f"nfsMounts: server is not an IP address: {mount['server']!r}", "use the address of the NFS server")]
    if not str(mount["path"]).startswith("/"):
        return [(f"nfsMounts: path does not begin with a slash: {mount['path']!r}", f"use /{mount['path']}")]
    if not str(mount["mountPoint"]).strip("/"):
        return [("nfsMounts: mount_point is empty", "use a name; the share is mounted at /mnt/nfs/NAME")]
    return []
