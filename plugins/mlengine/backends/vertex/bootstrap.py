"""The start command of a container: install the trainer's packages from Cloud Storage and run its module.

The image needs only ``python3`` (3.8 or later) and ``pip``: neither gsutil nor a Google library. The source of this
module goes into the request as ``python3 -c``; the container's args are a plan in JSON, followed by the trainer's args.
As ML Engine's start command did, it first installs the trainer's code, with ``--force-reinstall``, then the
dependencies. The modules of this project that it imports become part of its source when it is sent.

Exit code 75 means "try again": the storage could not be reached. The trainer's exit code becomes that of the container,
as the trainer replaces this process.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from mlengine.runtime.constraint_lines import ConstraintsError
from mlengine.runtime.constraints import NAME, of_packages
from mlengine.runtime.extras import ACCELERATOR_COUNT, ACCELERATOR_TYPE, extra_for, wheel_with_extra
from mlengine.runtime.rendezvous import rendezvous_variables

TOKEN = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"  # noqa: S105
AGAIN = 75
# The directories where the service mounts the libraries and programs of the NVIDIA driver.
DRIVER_FOLDERS = {
    "LD_LIBRARY_PATH": ["/usr/local/nvidia/lib64", "/usr/local/nvidia/lib"],
    "PATH": ["/usr/local/nvidia/bin"],
}
INSTALLED = """
from importlib.metadata import distributions
print("\\n".join(sorted({f"{found.metadata['Name']}=={found.version}" for found in distributions()})))
"""


def say(text: str) -> None:
    sys.stderr.write(f"mlengine: {text}\n")
    sys.stderr.flush()


def add(request: urllib.request.Request, headers: dict[str, str]) -> None:
    """Add credentials to a request. They are not sent after a redirect, which may lead to another server."""
    for name, value in headers.items():
        request.add_unredirected_header(name, value)


def get(url: str, headers: dict[str, str]) -> bytes:
    """The body of ``url``. The request is retried for a minute after errors that may be temporary."""
    for pause in (1, 2, 4, 8, 15, 30, 0):
        try:
            request = urllib.request.Request(url)  # noqa: S310 - only our own http(s) URLs
            add(request, headers)
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            reason = f"answered {error.code} {error.reason}"
            if error.code not in (408, 429, 500, 502, 503, 504):
                say(f"{url} {reason}; may this job's service account read the bucket?")
                sys.exit(1)
        except (OSError, http.client.HTTPException) as error:  # the latter: a connection that ended within an answer
            reason = str(error)
        say(f"{url}: {reason}")
        time.sleep(pause)
    sys.exit(AGAIN)


def place() -> tuple[str, dict[str, str]]:
    """The URL of Cloud Storage, or of the server in STORAGE_EMULATOR_HOST, and the headers with the credentials."""
    server = os.environ.get("STORAGE_EMULATOR_HOST", "")
    if server:
        return (server if "://" in server else "http://" + server).rstrip("/"), {}
    token = json.loads(get(TOKEN, {"Metadata-Flavor": "Google"}))["access_token"]
    return "https://storage.googleapis.com", {"Authorization": "Bearer " + token}


def fetch(uri: str, folder: Path) -> Path:
    """Download one ``gs://`` object."""
    bucket, _, path = uri[len("gs://") :].partition("/")
    server, headers = place()
    say(f"fetching {uri}")
    target = folder / path.rsplit("/", 1)[-1]
    quoted = urllib.parse.quote(path, safe="")
    target.write_bytes(get(f"{server}/storage/v1/b/{bucket}/o/{quoted}?alt=media", headers))
    return target


def constrain(archives: list[Path], folder: Path) -> list[str]:
    """The options by which pip observes the ``constraints.txt`` files of the packages."""
    try:
        found = of_packages(archives)
    except ConstraintsError as error:
        say(f"{error}\n  What to do: {error.hint}")
        sys.exit(1)
    for note in found.notes:
        say(note)
    if not found.text:
        return []
    target = folder / NAME
    target.write_text(found.text, encoding="utf-8")
    return ["--constraint", str(target)]


def pip(*args: str) -> None:
    """Run a pip command, and run it once more if it fails: the index may have been busy."""
    for _ in (1, 2):
        code = subprocess.call([sys.executable, "-m", "pip", *args])
        if code == 0:
            return
        say(f"pip failed with exit code {code}: {' '.join(args)}")
    say("  What to do: read pip's messages above; without access to PyPI, set PIP_INDEX_URL in the job's environment")
    say("  to a mirror, or use an image that contains the dependencies, and PIP_NO_INDEX=1")
    sys.exit(1)


def install(uris: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archives = [fetch(uri, folder) for uri in uris]
        options = constrain(archives, folder)
        wheels = folder / "wheels"
        pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), *map(str, archives))
        built = sorted(wheels.iterdir())
        pip("install", "--quiet", "--no-deps", "--force-reinstall", *map(str, built))
        extra = extra_for(os.environ.get(ACCELERATOR_TYPE, ""))
        pip("install", *options, *[wheel_with_extra(wheel, extra) for wheel in built])


def first_of_all() -> bool:
    """Whether this is the chief: the one replica that records the environment for the job."""
    try:
        task = json.loads(os.environ.get("TF_CONFIG") or "{}").get("task") or {}
    except ValueError:
        return False
    return task.get("type", "chief") in ("chief", "master") and int(task.get("index", 0)) == 0


def note(plan: dict[str, Any]) -> None:
    """Write the list of installed packages to the job's logs, one a line, after a line for the image.

    The list is for people, and for repeating the run. An error while writing it does not stop the job.
    """
    try:
        # `pip freeze` is not used: it prints the files from which the packages were installed, not their versions.
        installed = subprocess.check_output([sys.executable, "-c", INSTALLED], timeout=120)
        bucket, _, path = (plan["job_dir"] + "/logs/environment.txt")[len("gs://") :].partition("/")
        server, headers = place()
        url = f"{server}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={urllib.parse.quote(path, safe='')}"
        data = f"# image {plan['image']}\n".encode() + installed
        request = urllib.request.Request(url, data, {"Content-Type": "text/plain"})  # noqa: S310 - only our own http(s) URLs
        add(request, headers)
        urllib.request.urlopen(request, timeout=60).close()  # noqa: S310
    except (OSError, http.client.HTTPException, subprocess.SubprocessError, KeyError, SystemExit) as error:
        say(f"what is installed could not be noted: {error}")


def environment(plan: dict[str, Any]) -> None:
    """Set the environment variables that the trainer gets in addition to the service's."""
    for variable, name in (("MLENGINE_SCRATCH", "scratch"), ("MLENGINE_DATA_CACHE", "data")):
        folder = Path(os.environ.setdefault(variable, str(Path(tempfile.gettempdir()) / "mlengine" / name)))
        folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    # The service's variables name checkpoints/ and logs/ below the job dir; here both are train/. With a TensorBoard
    # instance, the service uploads the content of logs/, and of no other directory.
    os.environ["AIP_MODEL_DIR"] = plan["job_dir"] + "/model/"
    os.environ["AIP_CHECKPOINT_DIR"] = plan["job_dir"] + "/train/"
    os.environ["AIP_TENSORBOARD_LOG_DIR"] = plan["job_dir"] + ("/logs/" if plan["tensorboard"] else "/train/")
    if plan["tf_config"] and not os.environ.get("TF_CONFIG"):
        # For a job of one replica, the service sets no TF_CONFIG, while ML Engine did.
        os.environ["TF_CONFIG"] = json.dumps(plan["tf_config"])
    if plan["primary"] == "master" and os.environ.get("TF_CONFIG"):
        # Trainers for the old runtimes expect "master".
        config = json.loads(os.environ["TF_CONFIG"])
        if "chief" in config.get("cluster", {}):
            config["cluster"]["master"] = config["cluster"].pop("chief")
        if config.get("task", {}).get("type") == "chief":
            config["task"]["type"] = "master"
        os.environ["TF_CONFIG"] = json.dumps(config)


def join_world() -> None:
    """Set the environment variables that PyTorch, JAX, XGBoost and LightGBM need to connect their replicas.

    Variables that the service, the image or the job has set are kept.
    """
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or os.environ.get("CLUSTER_SPEC") or "{}")
        accelerator, count = os.environ.get(ACCELERATOR_TYPE, ""), int(os.environ.get(ACCELERATOR_COUNT) or 0)
        found = rendezvous_variables(config, accelerator=accelerator, count=count)
    except (ValueError, TypeError, AttributeError) as error:
        say(f"MASTER_ADDR, RANK and so on are not set: cannot read TF_CONFIG or CLUSTER_SPEC: {error}")
        return
    for name, value in found.items():
        os.environ.setdefault(name, value)


def show_driver() -> None:
    """Add the NVIDIA driver to the search paths, as images for GPUs do.

    A plain image does not have these paths, and frameworks that do not find the driver train on the CPU without an
    error. The dynamic linker reads the path when the trainer is started.
    """
    for variable, folders in DRIVER_FOLDERS.items():
        known = [folder for folder in os.environ.get(variable, "").split(os.pathsep) if folder]
        found = [folder for folder in folders if folder not in known and Path(folder).is_dir()]
        if found:
            os.environ[variable] = os.pathsep.join(known + found)


def main() -> None:
    plan = json.loads(sys.argv[1])
    # The container is deleted after the job, so pip may write to a distribution's own Python.
    os.environ.update(PIP_BREAK_SYSTEM_PACKAGES="1", PIP_ROOT_USER_ACTION="ignore", PIP_NO_INPUT="1")
    os.environ["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    show_driver()
    if plan["packages"]:
        install(plan["packages"])
        if first_of_all():
            note(plan)
    environment(plan)
    join_world()
    say(f"running python -m {plan['module']}")
    os.execv(sys.executable, [sys.executable, "-m", plan["module"], *sys.argv[2:]])  # noqa: S606


if __name__ == "__main__":
    main()
