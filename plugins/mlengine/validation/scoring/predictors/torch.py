"""The predictor for a ``.pt2`` file of ``torch.export``. Inputs have the names of the exported module's arguments."""

from __future__ import annotations

from typing import Any

from ..arrays import gather
from ..matching import match


class TorchProgram:
    def __init__(self, path: str, options: dict[str, Any], columns: dict[str, Any]) -> None:
        import numpy as np
        import torch  # type: ignore[import-not-found,unused-ignore]

        self.np, self.torch, self.options = np, torch, options
        program = torch.export.load(path)
        self.module = program.module()
        wanted = set(program.graph_signature.user_inputs)
        nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in wanted]
        self.inputs = {node.name: node.meta["val"] for node in nodes}
        self.feeds = match(list(self.inputs), columns, given=options["columns"], features=options["features"])
        self.columns = sorted({column for names in self.feeds.values() for column in names})
        sizes = [value.shape[0] for value in self.inputs.values() if len(value.shape)]
        fixed = [int(size) for size in sizes if isinstance(size, int)]
        self.batch_size = fixed[0] if fixed else None

    def predict(self, batch: dict[str, Any]) -> Any:
        tensors = []
        for name, value in self.inputs.items():
            dtype = str(value.dtype).split(".")[-1]
            shape = [size if isinstance(size, int) else None for size in value.shape[1:]]
            array = gather(batch, self.feeds[name], dtype, shape, self.options["scale"])
            tensors.append(self.torch.from_numpy(self.np.ascontiguousarray(array)))
        with self.torch.no_grad():
            answer = self.module(*tensors)
        if isinstance(answer, dict):
            return {str(name): value.numpy() for name, value in answer.items()}
        if isinstance(answer, (list, tuple)):
            return {f"output_{at}": value.numpy() for at, value in enumerate(answer)}
        return answer.numpy()


def load(path: str, options: dict[str, Any], columns: dict[str, Any]) -> TorchProgram:
    return TorchProgram(path, options, columns)
