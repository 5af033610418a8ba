"""The part of Ray that a driver uses, with actors whose replicas follow a script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mlengine.backends.ray.cluster import LostError

RUNS, LOST = "runs", "lost"  # what a start of a replica can lead to, in addition to an exit code
NODES = {"chief-0": "10.0.0.1", "ps-0": "10.0.0.1"}  # each of the others has its own node


@dataclass
class Call:
    """A call of an actor, in place of ``ray.ObjectRef``."""

    result: Any

    __hash__ = object.__hash__


@dataclass
class Actor:
    """A replica's actor. ``script`` has the outcome of each start; the last one is repeated."""

    name: str
    world: ScriptedCluster
    life: Any = None
    ended: bool = False

    def __getattr__(self, method: str) -> Any:
        @dataclass
        class Method:
            @staticmethod
            def remote(*arguments: Any) -> Call:
                self.world.calls.append((self.name, method, *arguments))
                try:
                    return Call(getattr(self, f"do_{method}")(*arguments))
                except LostError as error:
                    return Call(error)

        return Method

    def do_where(self) -> str:
        return self.world.node(self.name)

    def do_prepare(self) -> None:
        self.life = 0

    def do_prepared(self) -> dict[str, Any]:
        return self.world.environments.get(self.do_where(), {"digest": "d", "packages": ["a==1"], "python": "3.11"})

    def do_take(self, digest: str) -> str:
        assert digest == "d"
        return f"{self.do_where()}:1" if "evaluator" not in self.name else ""

    def do_chief_ports(self) -> list[int]:
        assert self.name == "chief-0"
        return [11, 12, 13]

    def do_start(self, addresses: dict[str, list[str]], chief_ports: list[int]) -> None:
        assert chief_ports == [11, 12, 13]
        self.world.addresses = addresses
        script = self.world.scripts.get(self.name, [RUNS])
        self.life, self.ended = (script.pop(0) if len(script) > 1 else script[0]), False

    def do_poll(self) -> dict[str, Any]:
        if self.life == LOST:
            raise LostError("the actor died")
        code = 143 if self.life == RUNS and self.ended else None if self.life == RUNS else self.life
        output = b"" if code is None else f"{self.name} says {code}".encode()
        return {"output": output, "exit_code": code, "port_taken": False}

    def do_end(self) -> None:
        self.ended = True

    def do_clean(self) -> None:
        """Nothing to remove."""


@dataclass
class ScriptedCluster:
    """A cluster with scripted actors.

    :param free: how often the placement group is polled before it is complete.
    :param moves: whether recreated replicas are on other nodes.
    """

    scripts: dict[str, list[Any]]
    free: int = 0
    environments: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[Any] = field(default_factory=list)
    created: list[str] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)
    addresses: dict[str, list[str]] = field(default_factory=dict)
    released: bool = False
    moves: bool = False

    def node(self, name: str) -> str:
        if self.moves and self.created.count(name) > 1:
            return f"new-node-of-{name}"
        return NODES.get(name, f"node-of-{name}")

    def connect(self) -> None:
        """Nothing to do."""

    def reserve(self) -> None:
        """Nothing to do."""

    def reserved(self) -> bool:
        self.free -= 1
        return self.free < 0

    def reason(self) -> str:
        return "no node is free"

    def create(self, _: int, _record: bytes, role: str, index: int) -> Actor:
        self.created.append(f"{role}-{index}")
        return Actor(self.created[-1], self)

    def ready(self, references: Sequence[Call], _: float) -> list[Call]:
        return list(references)

    def result(self, reference: Call) -> Any:
        if isinstance(reference.result, LostError):
            raise reference.result
        return reference.result

    def kill(self, actors: Sequence[Actor]) -> None:
        self.killed += [actor.name for actor in actors]

    def release(self) -> None:
        self.released = True
