#!/usr/bin/env bash
# grpcio 1.76 on Linux: two servers, also of two processes, bind the same port without an error.
#
# grpc.server() sets SO_REUSEPORT unless the option grpc.so_reuseport is 0. add_insecure_port() of the second server
# returns the port as if it were free, start() succeeds, and the kernel gives each new connection to one of the two. A
# service that is started twice by mistake answers with two different states.
#
# Output seen:   with the default: both servers bound the port; answers came from: a b
#                with grpc.so_reuseport=0: RuntimeError
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q grpcio==1.76.0
cat > "$work/share.py" <<'PY'
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc


def server(name, port, options=()):
    made = grpc.server(ThreadPoolExecutor(2), options=options)
    answer = grpc.unary_unary_rpc_method_handler(lambda request, context: name.encode())
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("demo.Demo", {"Who": answer}),))
    bound = made.add_insecure_port(f"127.0.0.1:{port}")
    made.start()
    return made, bound


first, port = server("a", 0)
second, again = server("b", port)
seen = set()
for number in range(200):
    # Each channel is a new connection.
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        seen.add(channel.unary_unary("/demo.Demo/Who")(b"", timeout=5).decode())
    if len(seen) == 2:
        break
print(f"with the default: both servers bound the port; answers came from: {' '.join(sorted(seen))}")
first.stop(None)
second.stop(None)
third, port = server("c", 0, [("grpc.so_reuseport", 0)])
try:
    server("d", port, [("grpc.so_reuseport", 0)])
    refused = "no error"
except RuntimeError as error:
    refused = type(error).__name__
print(f"with grpc.so_reuseport=0: {refused}")
third.stop(None)
sys.exit(0 if (seen == {"a", "b"} and refused == "RuntimeError") else 1)
PY
"$work/venv/bin/python" "$work/share.py" 2>/dev/null || { echo "changed: the second server was refused, or never answered"; exit 1; }
