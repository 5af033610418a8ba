"""Files that are never packaged: version control, caches, environments, build output, editor files, and secrets.

Each rule has a reason, which is shown to the user. Most rules match names. The content is read only to find
credentials in files with ordinary names: service account JSON and private keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

VCS = "version control"
CACHE = "cache"
ENVIRONMENT = "a Python environment"
BUILD = "build output"
EDITOR = "an editor's or system's file"
SECRET = "looks like a secret"  # noqa: S105 - the reason, not one

# Only files up to this size are searched for secrets; keys and credentials are small.
_SCAN_BYTES = 1 << 20

_DIRS: dict[str, str] = {
    **dict.fromkeys((".git", ".hg", ".svn", ".bzr", ".jj", "_darcs", "CVS"), VCS),
    **dict.fromkeys(("__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".cache"), CACHE),
    **dict.fromkeys((".ipynb_checkpoints", "node_modules", "htmlcov", ".pytype", ".dvc"), CACHE),
    **dict.fromkeys((".venv", "venv", ".virtualenv", ".tox", ".nox", ".direnv", ".pixi"), ENVIRONMENT),
    **dict.fromkeys((".eggs", "__pypackages__"), BUILD),
    **dict.fromkeys((".idea", ".vscode", ".vs", ".settings", ".fleet", ".zed", "__MACOSX"), EDITOR),
    **dict.fromkeys((".ssh", ".aws", ".azure", ".gnupg", ".kube", ".docker", ".gcloud", ".secrets"), SECRET),
}
_FILES: tuple[tuple[str, str], ...] = (
    *((name, VCS) for name in (".git", ".hgtags", ".gitmodules")),
    *((name, CACHE) for name in ("*.py[co]", ".coverage", ".coverage.*", ".dmypy.json")),
    ("*.egg", BUILD),
    *((name, EDITOR) for name in (".DS_Store", "Thumbs.db", "desktop.ini", "*.sw[op]", "*~", ".#*", "#*#", "._*")),
    *((name, EDITOR) for name in (".project", ".pydevproject", "*.sublime-project", "*.sublime-workspace", "*.iml")),
    *((name, SECRET) for name in (".env", ".env.*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.ppk")),
    *((name, SECRET) for name in ("*.keystore", "*.kdbx", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_*_sk")),
    *((name, SECRET) for name in (".netrc", "_netrc", ".pgpass", ".pypirc", ".npmrc", ".boto", ".htpasswd")),
    *((name, SECRET) for name in (".git-credentials", "credentials.json", "credentials.db", "access_tokens.db")),
    *((name, SECRET) for name in ("client_secret*.json", "application_default_credentials.json", "kaggle.json")),
    *((name, SECRET) for name in ("secret.*", "secrets.*", "airflow.cfg", "*.tfstate", "*.tfvars")),
)
# Names that match a rule above but are meant to be shared. Code is never a secret by name.
_SHARED = ("*.example", "*.sample", "*.template", "*.dist", "*.py", "*.pyi", "*.pub")
# These are left out only at the root of a project: below it, `build` may be a package of the user.
_ROOT_DIRS = {"build": BUILD, "dist": BUILD, "wheelhouse": BUILD}

_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:\s|\\n)+[A-Za-z0-9+/=:, -]{16}")
_ACCOUNT = re.compile(rb'"type"\s*:\s*"(service_account|authorized_user|external_account_authorized_user)"')
_ACCOUNT_SECRET = re.compile(rb'"(private_key|refresh_token|client_secret)"\s*:\s*"[^"]{8}')


def dir_reason(path: Path, *, at_root: bool) -> str | None:
    """The reason why a directory is left out; ``None`` if it is packaged.

    :param at_root: whether it is in the root directory of a project.
    """
    name = path.name
    if name in _DIRS:
        return _DIRS[name]
    if name.endswith((".egg-info", ".dist-info")):
        return BUILD
    if (path / "pyvenv.cfg").is_file() or (path / "conda-meta").is_dir():
        return ENVIRONMENT
    if at_root and name in _ROOT_DIRS and not (path / "__init__.py").exists():
        return _ROOT_DIRS[name]
    return None


def file_reason(path: Path) -> str | None:
    """The reason why a file is left out because of its name; ``None`` if it is packaged."""
    if any(fnmatchcase(path.name.lower(), shared) for shared in _SHARED):
        return None
    for pattern, reason in _FILES:
        # The match ignores upper and lower case.
        if fnmatchcase(path.name.lower() if reason is SECRET else path.name, pattern):
            return reason
    return None


def content_reason(size: int, read: Callable[[], bytes]) -> str | None:
    """The reason why a file is left out because of its content: a private key, or credentials; otherwise ``None``.

    :param read: called only for files small enough to be credentials.
    """
    if size > _SCAN_BYTES:
        return None
    data = read()
    if b"PRIVATE KEY" in data and _PRIVATE_KEY.search(data):
        return f"{SECRET}: contains a private key"
    if _ACCOUNT.search(data) and _ACCOUNT_SECRET.search(data):
        return f"{SECRET}: contains credentials"
    return None
