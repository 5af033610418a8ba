"""The predictor for an ONNX file, which ONNX Runtime runs on the CPU."""

from __future__ import annotations

from typing import Any

from ..arrays import gather
from ..matching import match

_DTYPES = {
    "float": "float32", "double": "float64", "float16": "float16", "string": "string", "bool": "bool",
    "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64",
    "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64",
}  # fmt: skip


class OnnxModel:
    def __init__(self, path: str, options: dict[str, Any], columns: dict[str, Any]) -> None:
        import numpy as np
        import onnxruntime  # type: ignore[import-not-found,unused-ignore]

        self.np, self.options = np, options
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.inputs = {item.name: item for item in self.session.get_inputs()}
        self.feeds = match(list(self.inputs), columns, given=options["columns"], features=options["features"])
        self.columns = sorted({column for names in self.feeds.values() for column in names})
        sizes = {item.shape[0] for item in self.inputs.values() if item.shape}
        fixed = [size for size in sizes if isinstance(size, int) and size > 0]
        self.batch_size = fixed[0] if fixed else None

    def predict(self, batch: dict[str, Any]) -> dict[str, Any]:
        feed = {}
        for name, columns in self.feeds.items():
            item = self.inputs[name]
            dtype = _DTYPES.get(item.type[len("tensor(") : -1], "float32")
            shape = [size if isinstance(size, int) and size > 0 else None for size in item.shape[1:]]
            if sum(size is None for size in shape) > 1:
                shape = None  # type: ignore[assignment]
            feed[name] = gather(batch, columns, dtype, shape, self.options["scale"])
        names = [item.name for item in self.session.get_outputs()]
        return {name: self._array(value) for name, value in zip(names, self.session.run(names, feed))}

    def _array(self, value: Any) -> Any:
        """An output as an array. Models from scikit-learn's converter return the probabilities as one dict per row."""
        if not (isinstance(value, list) and value and isinstance(value[0], dict)):
            return self.np.asarray(value)
        classes = self.options.get("classes") or sorted(value[0])
        keys = {str(key): key for key in value[0]}
        if set(keys) != {str(one) for one in classes}:
            raise ValueError(f"the model names the classes {sorted(keys)[:12]}; the dataset has {list(classes)[:12]}")
        return self.np.array([[row[keys[str(one)]] for one in classes] for row in value], self.np.float64)


def load(path: str, options: dict[str, Any], columns: dict[str, Any]) -> OnnxModel:
    return OnnxModel(path, options, columns)
