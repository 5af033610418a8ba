#!/usr/bin/env bash
# poetry-core 2.2: a path dependency loses its path if [project] names it too.
#
# With `[project] dependencies = ["lib"]` and `[tool.poetry.dependencies] lib = {path = "../lib"}`, the wheel's metadata
# say `Requires-Dist: lib`: an installer looks for that name in its index, and may install a stranger's package. Without
# the [project] entry, the same path dependency becomes `lib @ file:///…`, an absolute path of the machine that built it.
#
# Output seen:   in [project] too: Requires-Dist: lib
#                in [tool.poetry] only: Requires-Dist: lib @ file://…/lib
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q build==1.3.0 poetry-core==2.2.1
mkdir -p "$work/lib/lib" "$work/app/app"
touch "$work/lib/lib/__init__.py" "$work/app/app/__init__.py"
backend='[build-system]
requires = ["poetry-core==2.2.1"]
build-backend = "poetry.core.masonry.api"'
printf '%s\n[project]\nname = "lib"\nversion = "1.0"\n' "$backend" > "$work/lib/pyproject.toml"
requires() {
    rm -rf "$work/out"
    "$work/venv/bin/python" -m build --no-isolation --wheel --outdir "$work/out" "$work/app" >/dev/null
    "$work/venv/bin/python" -c 'import glob, sys, zipfile; z = zipfile.ZipFile(glob.glob(sys.argv[1] + "/out/*.whl")[0]); print(z.read([n for n in z.namelist() if n.endswith("METADATA")][0]).decode())' "$work" | grep '^Requires-Dist'
}
printf '%s\n[project]\nname = "app"\nversion = "1.0"\ndependencies = ["lib"]\n[tool.poetry.dependencies]\nlib = {path = "../lib"}\n' \
    "$backend" > "$work/app/pyproject.toml"
both=$(requires)
printf '%s\n[project]\nname = "app"\nversion = "1.0"\ndynamic = ["dependencies"]\n[tool.poetry.dependencies]\nlib = {path = "../lib"}\n' \
    "$backend" > "$work/app/pyproject.toml"
alone=$(requires)
echo "in [project] too: $both"
echo "in [tool.poetry] only: ${alone//$work/…}"
[ "$both" = "Requires-Dist: lib" ] || { echo "changed: the path is in the metadata"; exit 1; }
case $alone in *"@ file://"*) ;; *) echo "changed: no file URL"; exit 1 ;; esac
