#!/usr/bin/env bash
# tensorflow-cpu 2.21.0: a convolution with bias and ReLU in bfloat16 runs in a session of this process, and fails in a
# session of a server, on the same CPU.
#
# TensorFlow's graph optimizer ("remapping") fuses the three operations into _FusedConv2D, which exists for half, float
# and double, but not for bfloat16. A session of this process computes the convolution all the same. In a session with a
# target, as each replica of a cluster opens it, the first run fails. Without remapping, it computes too. This needs a CPU
# with instructions for bfloat16.
#
# Output seen:   this process: computed; a server: InvalidArgumentError, Value for attr 'T' of bfloat16 is not in the list
#                a server, without remapping: computed
set -euo pipefail
if ! grep -q "avx512_bf16\|amx_bf16" /proc/cpuinfo; then
    echo "this CPU has no instructions for bfloat16"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q tensorflow-cpu==2.21.0 numpy==2.4.6
cat > "$work/fuse.py" <<'PY'
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import rewriter_config_pb2

v1 = tf.compat.v1


def run(target, config=None, device=""):
    with tf.Graph().as_default() as graph, tf.device(device):
        rows = v1.placeholder(tf.float32, [2, 28, 28, 1])
        kernel = tf.constant(np.ones([5, 5, 1, 32]), tf.bfloat16)
        x = tf.nn.conv2d(tf.cast(rows, tf.bfloat16), kernel, 1, "SAME")
        x = tf.nn.relu(tf.nn.bias_add(x, tf.ones([32], tf.bfloat16)))
        result = tf.reduce_sum(tf.cast(x, tf.float32))
    try:
        with v1.Session(target, graph, config) as session:
            session.run(result, {rows: np.ones([2, 28, 28, 1], np.float32)})
    except tf.errors.InvalidArgumentError as error:
        words = next(line for line in str(error).splitlines() if "attr 'T'" in line)
        return f"InvalidArgumentError, {words.strip()[:49]}"
    return "computed"


server = v1.train.Server({"worker": ["127.0.0.1:0"]}, job_name="worker", task_index=0)
there = "/job:worker/task:0/device:CPU:0"
here, remote = run(""), run(server.target, device=there)
off = v1.ConfigProto()
off.graph_options.rewrite_options.remapping = rewriter_config_pb2.RewriterConfig.OFF
print(f"this process: {here}; a server: {remote}")
without = run(server.target, off, there)
print(f"a server, without remapping: {without}")
os._exit(0 if (here, remote[:8], without) == ("computed", "InvalidA", "computed") else 1)
PY
if ! "$work/venv/bin/python" "$work/fuse.py" 2> "$work/log"; then
    tail -3 "$work/log"
    echo "changed: a server computes the fused convolution in bfloat16, or this process does not"
    exit 1
fi
