"""Starts one replica of another client's job as Vertex AI or ML Engine would. It runs in the trainer's environment.

The local launcher starts every replica as ``python -m MODULE ARGS --job-dir DIR``. A client may have requested another
command for each pool, no ``--job-dir``, or a container's command. The first argument is a plan in JSON. This module

1. removes the arguments and variables that the launcher added, and sets the service's environment variables;
2. on the local backend, creates a Python environment for this replica, which replaces the container's: ``pip install``
   changes this environment, and neither the user's Python nor the environment that jobs share;
3. executes the requested command in its own process.

It uses only the standard library, and also runs on old versions of Python.
"""

import json
import os
import re
import shutil
import site
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional  # noqa: UP035 - old versions of Python

_POOLS = {"chief": "workerpool0", "master": "workerpool0", "worker": "workerpool1", "ps": "workerpool2"}
_POOLS["evaluator"] = "workerpool3"
# The local launcher sets this variable for every process of a job.
_LOCAL = "MLENGINE_LOCAL_JOB"
_PYTHON = re.compile(r"(/\S+/)?(python|pip)(\d(\.\d+)?)?")
# Programs of another Python installation, which a container does not have.
_HOST_PYTHON = re.compile(
    r"(python|pip|pydoc|easy_install|idle|2to3)[\d.-]*(-config)?|conda|mamba|pipx|pyenv|activate.*"
)
_PIP = """\
#!/bin/sh
'''exec' {python} "$0" "$@"
'''
import sys
from pip._internal.cli.main import main
sys.exit(main())
"""
_NO_PIP = """\
#!/bin/sh
echo "pip is not available: {python} has no ensurepip module" >&2
exit 1
"""
# pip rejects --user in a virtual environment. In an environment for one replica, the option has no purpose.
_USER_OPTION = '''\
"""Removes ``--user`` from the arguments of pip."""

import os
import re
import sys


def is_pip(words):
    for place, word in enumerate(words[1:], 1):
        if word == "-m":
            return words[place + 1 : place + 2] == ["pip"]
        if not word.startswith("-"):
            return re.match(r"pip([0-9](\\.[0-9]+)?)?$", os.path.basename(word)) is not None
    return False


try:
    with open("/proc/self/cmdline", "rb") as file:
        if is_pip([os.fsdecode(word) for word in file.read().split(b"\\0")]):
            sys.argv[1:] = [word for word in sys.argv[1:] if word != "--user"]
except (OSError, AttributeError):
    pass
'''


def environment(plan: Dict[str, Any], pool: Dict[str, Any], config: Dict[str, Any]) -> None:  # noqa: UP006
    """Set the environment variables of Vertex AI (none of them for ML Engine) and those of the job."""
    for name in [name for name in os.environ if name.startswith("AIP_")] + plan.get("unset", []):
        os.environ.pop(name, None)
    for name in ("MODEL", "CHECKPOINT", "TENSORBOARD_LOG"):
        if plan["dirs"].get(name):
            os.environ[f"AIP_{name}_DIR"] = plan["dirs"][name]
    if plan["api"] == "vertex":
        task = config.get("task", {"type": "chief", "index": 0})
        cluster = {_POOLS[role]: addresses for role, addresses in config.get("cluster", {}).items()}
        cluster = cluster or {"workerpool0": ["127.0.0.1:2222"]}
        # Unlike TF_CONFIG, CLUSTER_SPEC contains evaluators. No other replica connects to them, so their port is
        # unused.
        evaluators = plan.get("evaluators", 0)
        if evaluators:
            cluster["workerpool3"] = [f"127.0.0.1:{2222 + place}" for place in range(evaluators)]
        spec = {
            "cluster": cluster,
            "environment": "cloud",
            "task": {"type": _POOLS[task["type"]], "index": task["index"]},
            # "The CustomJobSpec ..., represented as a dictionary." Some reports show a string that contains JSON; this
            # code follows the documentation.
            "job": plan["job"],
        }
        os.environ["CLUSTER_SPEC"] = json.dumps(spec)
    for variable in pool["env"]:
        os.environ[variable["name"]] = expand(variable.get("value", ""))


def expand(text: str) -> str:
    """Expand ``$(VAR)`` like :func:`mlengine.core.expansion.expand`, which cannot be imported in this environment."""

    def replace(match: "re.Match[str]") -> str:
        return "$" if match[0] == "$$" else os.environ.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", replace, text)


def command(pool: Dict[str, Any], python: str) -> List[str]:  # noqa: UP006
    """The command to execute, with ``python`` instead of the image's interpreter, whatever its path."""
    words = [expand(word) for word in pool["command"]]
    match = _PYTHON.fullmatch(words[0])
    if match is not None:
        words[0] = python if match[2] == "python" else str(Path(python).with_name("pip"))
    return words


class Container:
    """The parts of a container that this replica has: its own Python environment, ``PATH`` and home directory.

    :param folder: the folder in which it is created. An earlier one is replaced.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.python = folder, folder / "python" / "bin" / "python"

    def create(self) -> None:
        """Create the directories.

        :raises OSError: a directory cannot be created.
        """
        import venv

        shutil.rmtree(str(self.folder), ignore_errors=True)
        (self.folder / "home").mkdir(parents=True)
        venv.EnvBuilder(symlinks=True).create(str(self.folder / "python"))
        packages = self._site_packages()
        base = "".join(f"import site; site.addsitedir({path!a})\n" for path in site.getsitepackages())
        (packages / "_mlengine_base.pth").write_text(base, "ascii")
        (packages / "_mlengine_user_option.py").write_text(_USER_OPTION, "ascii")
        (packages / "_mlengine_user_option.pth").write_text("import _mlengine_user_option\n", "ascii")
        self._add_pip(packages)
        self._link_programs(self.folder / "bin")

    def enter(self) -> None:
        """Change this process's environment variables."""
        home = Path(os.environ.get("HOME", "/"))
        for name, path in (
            ("CLOUDSDK_CONFIG", home / ".config" / "gcloud"),
            ("NETRC", home / ".netrc"),
            ("PIP_CONFIG_FILE", home / ".config" / "pip" / "pip.conf"),
            ("PIP_CONFIG_FILE", home / ".pip" / "pip.conf"),
        ):
            if path.exists():
                os.environ.setdefault(name, str(path))
        os.environ.update(
            PATH=f"{self.python.parent}:{self.folder / 'bin'}",
            HOME=str(self.folder / "home"),
            VIRTUAL_ENV=str(self.folder / "python"),
            PYTHONUSERBASE=str(self.folder / "home" / ".local"),
            # Affects a pip that is called by its path.
            PIP_REQUIRE_VIRTUALENV="1",
            PIP_USER="0",
            PIP_NO_INPUT="1",
            PIP_DISABLE_PIP_VERSION_CHECK="1",
        )
        os.environ.pop("PYTHONHOME", None)
        if os.environ.get("MLENGINE_DATA_CACHE"):
            # Keep the downloads of pip, because the next job needs them again.
            os.environ.setdefault("PIP_CACHE_DIR", str(Path(os.environ["MLENGINE_DATA_CACHE"]) / "pip"))

    def _site_packages(self) -> Path:
        root = str(self.folder / "python")
        schemes = sysconfig.get_scheme_names()
        scheme = "venv" if "venv" in schemes else "posix_prefix"
        return Path(sysconfig.get_path("purelib", scheme, vars={"base": root, "platbase": root}))

    def _add_pip(self, packages: Path) -> None:
        """Unpack the pip that comes with Python, because a container has pip too."""
        wheel = _bundled_pip()
        if wheel is not None:
            with zipfile.ZipFile(str(wheel)) as archive:
                archive.extractall(str(packages))
        text = _NO_PIP.format(python=sys.executable) if wheel is None else _PIP.format(python=_quoted(self.python))
        for name in ("pip", "pip3", f"pip{sys.version_info[0]}.{sys.version_info[1]}"):
            script = self.python.with_name(name)
            script.write_text(text, "utf-8")
            script.chmod(0o755)

    def _link_programs(self, folder: Path) -> None:
        """Link the programs on ``PATH``, other than those of Python installations."""
        folder.mkdir()
        for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
            for program in _programs(Path(directory)):
                link = folder / program.name
                if not os.path.lexists(str(link)):
                    link.symlink_to(program)


def _programs(directory: Path) -> Iterator[Path]:
    """The programs in a directory; none if it belongs to a virtual environment of the user."""
    parent = directory.parent
    is_own = directory == Path(sys.executable).parent
    foreign = (parent / "pyvenv.cfg").exists() or (parent / "conda-meta").exists() or directory.name == "shims"
    if not directory.is_absolute() or (foreign and not is_own):
        return
    try:
        entries = sorted(directory.iterdir())
    except OSError:
        return
    for entry in entries:
        if not _HOST_PYTHON.fullmatch(entry.name) and os.access(str(entry), os.X_OK):
            yield entry


def _bundled_pip() -> Optional[Path]:  # noqa: UP045 - old versions of Python
    """The wheel of pip that Python's ``ensurepip`` installs; ``None`` if this Python has none."""
    try:
        import ensurepip
    except ImportError:
        return None
    folders = [
        Path(ensurepip.__file__).parent / "_bundled",
        Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or "/nowhere"),
    ]
    return next((wheel for folder in folders for wheel in sorted(folder.glob("pip-*.whl"))), None)


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "'\"'\"'") + "'"


def main() -> None:
    """Execute the command of this replica."""
    plan = json.loads(sys.argv[1])
    config = json.loads(os.environ.get("TF_CONFIG") or "{}")
    role = config.get("task", {}).get("type", "chief")
    pool = plan["pools"]["chief" if role == "master" else role]
    environment(plan, pool, config)
    python = sys.executable
    if os.environ.get(_LOCAL):
        container = Container(Path(os.environ["MLENGINE_SCRATCH"]) / ".container")
        try:
            container.create()
        except (OSError, ImportError) as error:
            sys.stderr.write(f"cannot create a Python environment for this replica: {error}\n")
            sys.exit(1)
        container.enter()
        python = str(container.python)
    words = command(pool, python)
    sys.stdout.flush()
    try:
        os.execvp(words[0], words)  # noqa: S606
    except OSError as error:
        sys.stderr.write(f"cannot run {words[0]}: {error}; the emulator runs commands of this machine, not images\n")
        sys.exit(127)


if __name__ == "__main__":
    main()
