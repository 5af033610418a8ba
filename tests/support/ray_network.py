"""A Ray cluster of several machines for tests: each node has its own network, process and mount namespace.

The nodes have different addresses on one bridge, and no common loopback device. They share the disk, but have separate
homes. When a node is killed, it loses its link first: as in a power failure, its peers are not notified.

The bridge is in a separate namespace without a packet filter, because Docker's rules drop packets that cross a bridge
on the host.

Only root can create such a cluster: see :func:`impossible`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlengine.runtime.env_allowlist import MARK
from mlengine.runtime.processes import Process
from tests.support.local_jobs import until
from tests.support.ray_cluster import HEAD_OPTIONS, NODE_OPTIONS, node_environment

_START_SECONDS = 300.0
_POLL_SECONDS = 1.0  # each poll of the nodes costs CPU time in several processes of Ray's dashboard
_ACTOR_SECONDS = 60.0
_HEAD = 10
_NETWORKS = range(1, 200)
# With these settings a lost node is noticed after about 15 s; with Ray's defaults it can take up to a minute.
_QUICK = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
}
_OPTIONS = (
    *NODE_OPTIONS,
    # Without fixed ports, the raylet waits for the agents to choose theirs and exits after 15 s: too short on a busy
    # machine.
    "--metrics-export-port=20001",
    "--dashboard-agent-listen-port=20002",
    "--dashboard-agent-grpc-port=20003",
    "--runtime-env-agent-port=20004",
)
_NAMESPACES = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def impossible() -> str:
    """The reason why this process cannot create namespaces; empty if it can."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    for program in ("ip", "unshare", "setpriv", "nsenter"):
        if shutil.which(program) is None:
            return f"{program} is not installed, so that there are no network namespaces"
    made = subprocess.run(
        [*_NAMESPACES, "ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1"], check=False
    )
    if made.returncode:
        return "network namespaces are not allowed here"
    return ""


@dataclass
class Node:
    """One machine of the cluster.

    :param home: its home directory, which survives when the node is killed.
    :param command: the command that it runs at start.
    :param switch: PID of a process in the bridge's network namespace.
    :param space: its process namespace.
    """

    name: str
    address: str
    home: Path
    command: str
    env: Mapping[str, str]
    switch: int
    process: subprocess.Popen[bytes] | None = None
    space: str = ""

    @property
    def state_dir(self) -> Path:
        """The directory of environments and jobs, as :mod:`mlengine.backends.ray.replica_host` chooses it."""
        return self.home / ".local" / "state" / "mlengine"

    def start(self) -> None:
        """Start the node and connect it to the others."""
        self.home.mkdir(parents=True, exist_ok=True)
        boot = "until ip -4 address show eth0 2>/dev/null | grep -q inet; do sleep 0.1; done"
        # The node's first process, bash, reaps orphan processes.
        rest = "while :; do sleep 3600 & wait; done"
        with (self.home / "node.log").open("ab") as log:
            self.process = subprocess.Popen(
                # If the tests are killed, the node ends with them.
                ["setpriv", "--pdeathsig", "KILL", *_NAMESPACES, "bash", "-c", f"{boot}; {self.command}; {rest}"],
                env={**self.env, "HOME": str(self.home)},
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        pid = self.process.pid
        _wait_for_namespace(pid)
        self.space = until(lambda: _process_namespace(pid), f"the first process of {self.name}")
        _try(f"link delete {self.name}", self.switch)
        _ip(f"link add {self.name} type veth peer name eth0 netns {pid}", self.switch)
        _ip(f"link set {self.name} master bridge up", self.switch)
        _ip("link set lo up", pid)
        _ip("link set eth0 up", pid)
        _ip(f"address add {self.address}/24 dev eth0", pid)
        _ip(f"route add default via {self.address.rpartition('.')[0]}.1", pid)  # Ray requires a default route

    def kill(self) -> None:
        """Simulate a power failure: cut the link, then kill all processes at once."""
        if self.process is not None:
            self.cut()
            self.process.kill()
            self.process.wait()
            until(lambda: not self.processes(), f"the end of {self.name}")

    def cut(self) -> None:
        """Cut the node's network."""
        _try(f"link set {self.name} down", self.switch)

    def reconnect(self) -> None:
        """Reconnect the node's network."""
        _ip(f"link set {self.name} up", self.switch)

    def repair(self) -> None:
        """Start the node if it was killed; reconnect it if its network was cut."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        else:
            self.reconnect()

    def processes(self, words: str = "") -> list[Process]:
        """All processes of the node whose command line contains ``words``."""
        return _processes({self.space}, words)

    def replicas(self) -> list[tuple[Process, str]]:
        """The processes of trainers, their guards, and all that these have started, with their command lines."""
        return [(process, command_of(process.pid)) for process in self.processes() if _of_job(process.pid)]

    def actors(self) -> list[Process]:
        """The processes of the replicas' Ray actors."""
        return self.processes("ReplicaHost")


@dataclass
class RayNetwork:
    """A cluster whose first node is the head.

    :param number: the network's number on this machine.
    :param switch: PID of a process in the bridge's network namespace.
    """

    number: int
    folder: Path
    switch: int
    nodes: list[Node] = field(default_factory=list)

    @property
    def host(self) -> str:
        """The address of this machine on the bridge."""
        return _address(self.number, 1)

    @property
    def head(self) -> Node:
        return self.nodes[0]

    @property
    def address(self) -> str:
        return f"http://{_address(self.number, _HEAD)}:8265"

    def start(self, env: Mapping[str, str], cpus: tuple[int, ...]) -> None:
        """Start a node for each number of CPUs, and wait until Ray lists all nodes.

        The head has Ray's custom resource ``head``, each other node has ``node``, with a quantity of one. The nodes
        cannot reach a package index: the packages that they install must be in uv's cache.
        """
        cache = {"UV_CACHE_DIR": str(Path("~/.cache/uv").expanduser())}  # for nodes too, which have other homes
        own = {**cache, **node_environment(env), **_QUICK, "UV_OFFLINE": "1"}
        for number, count in enumerate(cpus):
            name = f"n{number}" if number else "head"
            address, home = _address(self.number, _HEAD + number), self.folder / name
            named = shlex.quote(json.dumps({"node" if number else "head": 1}))
            ray = f"ray start --node-ip-address={address} --num-cpus={count} --temp-dir={home}/ray"
            ray += f" {' '.join(_OPTIONS)} --resources={named}"
            if number == 0:
                # On a busy machine Ray may give up, because it waits only 30 s for its own processes.
                ray += f" --head --dashboard-host=0.0.0.0 {' '.join(HEAD_OPTIONS)}"
                command = f"until timeout 150 {ray}; do ray stop --force; done"
            else:
                # Restart Ray when it exits, as an init system would.
                command = (
                    f"while :; do timeout 150 {ray} --address={_address(self.number, _HEAD)}:6379 && "
                    "while pgrep -x raylet > /dev/null; do sleep 1; done; ray stop --force; done"
                )
            self.nodes.append(Node(name, address, home, command, own, self.switch))
            self.nodes[-1].start()
            self.wait()  # start them one at a time: on a busy machine, several would exceed Ray's own time limits

    def wait(self) -> None:
        """Wait until all nodes are listed as alive."""
        wanted = {node.address for node in self.nodes}
        what = f"{sorted(wanted)} are nodes; see {self.folder}"
        until(lambda: self.alive() == wanted, what, _START_SECONDS, pause=_POLL_SECONDS)

    def alive(self) -> set[str]:
        """The addresses of the nodes that Ray reports as alive; empty if the dashboard does not answer."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            with opener.open(f"{self.address}/api/v0/nodes?detail=1", timeout=5) as answer:
                found = json.load(answer)["data"]["result"]["result"]
            return {node["node_ip"] for node in found if node["state"] == "ALIVE"}
        return set()

    def processes(self, words: str = "") -> list[Process]:
        """All processes of the nodes whose command line contains ``words``."""
        return _processes({node.space for node in self.nodes}, words)

    def replicas(self) -> list[tuple[Process, str]]:
        """The processes of all jobs on all nodes, with their command lines."""
        return [found for node in self.nodes for found in node.replicas()]

    def left(self) -> list[str]:
        """What finished jobs have left behind: their processes and files, and actors.

        Ray ends an actor some time after the request has returned, so actors have :data:`_ACTOR_SECONDS` to end.
        """
        found = [f"{node.name}: {command}" for node in self.nodes for _, command in node.replicas()]
        found += [str(path) for node in self.nodes for path in (node.state_dir / "ray").glob("*")]
        deadline = time.monotonic() + _ACTOR_SECONDS
        while self.processes("ReplicaHost") and time.monotonic() < deadline:
            time.sleep(0.2)
        return found + [f"{node.name}: actor {actor.pid}" for node in self.nodes for actor in node.actors()]


@contextlib.contextmanager
def network() -> Iterator[RayNetwork]:
    """A bridge without nodes. At the end, neither nodes nor bridge are left."""
    # When this process ends for any reason, the namespace and all its links end too.
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"]
    switch = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        _wait_for_namespace(switch.pid)
        _ip("link add bridge type bridge", switch.pid)
        _ip("link set bridge up", switch.pid)
        uplink = f"type veth peer name uplink netns {switch.pid}"
        number = next(number for number in _NETWORKS if _try(f"link add ml{number} {uplink}"))
        # The names of Ray's sockets are long, and the path of a socket has at most 107 characters.
        made = RayNetwork(number, Path(tempfile.mkdtemp(prefix="rn-", dir="/tmp")), switch.pid)
        _ip("link set uplink master bridge up", switch.pid)
        _ip(f"address add {made.host}/24 dev ml{number}")
        _ip(f"link set ml{number} up")
        try:
            yield made
        finally:
            for node in reversed(made.nodes):
                node.kill()
            shutil.rmtree(made.folder, ignore_errors=True)
    finally:
        switch.kill()
        switch.wait()


def _address(network: int, host: int) -> str:
    return f"10.213.{network}.{host}"


def _processes(spaces: set[str], words: str) -> list[Process]:
    """The processes in these process namespaces whose command line contains ``words``."""
    found = []
    for path in Path("/proc").glob("[1-9]*"):
        with contextlib.suppress(OSError):
            if words and words not in command_of(int(path.name)):
                continue
            if str((path / "ns" / "pid").readlink()) not in spaces:
                continue
            if (one := Process.of(int(path.name))) is not None:
                found.append(one)
    return found


def _process_namespace(pid: int) -> str:
    """The process namespace of the process's children; empty while it has none."""
    with contextlib.suppress(OSError):
        return str(Path(f"/proc/{pid}/ns/pid_for_children").readlink())
    return ""


def _of_job(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return f"{MARK}=".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    return False


def command_of(pid: int) -> str:
    """The command line of a process; empty if it has ended."""
    with contextlib.suppress(OSError):
        return shlex.join(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0"))
    return ""


def _wait_for_namespace(pid: int) -> None:
    own = Path("/proc/self/ns/net").readlink()
    until(lambda: Path(f"/proc/{pid}/ns/net").readlink() != own, f"the network namespace of process {pid}")


def _ip(command: str, pid: int | None = None) -> None:
    """Run ``ip`` in the network namespace of a process, or in this one."""
    inside = ["nsenter", f"--target={pid}", "--net"] if pid else []
    subprocess.run([*inside, "ip", *command.split()], check=True)


def _try(command: str, pid: int | None = None) -> bool:
    """Run ``ip`` and return whether it succeeded."""
    inside = ["nsenter", f"--target={pid}", "--net"] if pid else []
    return subprocess.run([*inside, "ip", *command.split()], check=False, capture_output=True).returncode == 0
