"""A package index on loopback, and a trainer that can be built and installed only from it."""

from __future__ import annotations

import datetime
import functools
import io
import ssl
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# A single-module build backend: it packages quaint_trainer.py with the value of UV_SYSTEM_CERTS in its environment.
_BACKEND = """
import io, os, tarfile, zipfile

METADATA = "Metadata-Version: 2.1\\nName: quaint-trainer\\nVersion: 1.0\\n"

def _files():
    source = open("quaint_trainer.py").read()
    return {"quaint_trainer.py": source.replace("@CERTS@", os.environ.get("UV_SYSTEM_CERTS", ""))}

def build_sdist(directory, config_settings=None):
    name = "quaint_trainer-1.0"
    files = {**_files(), "PKG-INFO": METADATA, "pyproject.toml": open("pyproject.toml").read()}
    with tarfile.open(os.path.join(directory, f"{name}.tar.gz"), "w:gz") as tar:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{name}/{path}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return f"{name}.tar.gz"

def build_wheel(directory, config_settings=None, metadata_directory=None):
    name, info = "quaint_trainer-1.0-py3-none-any.whl", "quaint_trainer-1.0.dist-info"
    files = {
        **_files(),
        f"{info}/METADATA": METADATA + "Requires-Dist: quaint-library\\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(os.path.join(directory, name), "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return name
"""
_PROJECT = """\
[build-system]
requires = ["quaint-backend"]
build-backend = "quaint_backend"
"""
_TRAINER = """\
import quaint_library
print("private", quaint_library.VERSION, "@CERTS@", flush=True)
"""


def write_trainer(folder: Path) -> Path:
    """A project whose build backend and dependency are only in the private index. Its module is ``quaint_trainer``."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(_PROJECT)
    (folder / "quaint_trainer.py").write_text(_TRAINER)
    return folder


def write_index(folder: Path) -> Path:
    """Create the index's pages and wheels as static files.

    The folder is also a valid directory for ``--find-links``.
    """
    wheels = {
        ("quaint-backend", "1.0"): {"quaint_backend.py": _BACKEND},
        ("quaint-library", "1.0"): {"quaint_library.py": "VERSION = '1.0'"},
        ("quaint-library", "2.0"): {"quaint_library.py": "VERSION = '2.0'"},
        ("quaint-relic", "1.0"): {"quaint_relic.py": ""},
    }
    links: dict[str, str] = {}
    for (name, version), files in wheels.items():
        page = folder / "simple" / name
        page.mkdir(parents=True, exist_ok=True)
        file = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        requires = "Requires-Python: >=3.6,<3.11\n" if name == "quaint-relic" else ""
        (page / file).write_bytes(_wheel(name, version, files, requires))
        (folder / file).write_bytes((page / file).read_bytes())
        links[name] = links.get(name, "") + f'<a href="{file}">{file}</a>\n'
        (page / "index.html").write_text(f"<!DOCTYPE html><html><body>{links[name]}</body></html>")
    return folder


def _wheel(name: str, version: str, files: Mapping[str, str], metadata: str) -> bytes:
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return sink.getvalue()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name upstream
        pass


@contextmanager
def serve(folder: Path, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve the folder, and yield the URL of its index."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Silent, directory=str(folder))) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_port}/simple"
        finally:
            server.shutdown()
            thread.join()


def company_certificates(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A private certificate authority: its certificate, and the TLS context of a server whose certificate it signed."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "The company")])
    now = datetime.datetime.now(datetime.UTC)
    base = (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    authority = (
        base.subject_name(issuer)
        .public_key(authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        base.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]))
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "authority.pem").write_bytes(authority.public_bytes(pem))
    (folder / "server.pem").write_bytes(
        certificate.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return folder / "authority.pem", context
