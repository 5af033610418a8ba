#!/usr/bin/env bash
# hatchling 1.27 and 1.33 (build 1.3): the sdist of a project contains the ignore file of a directory above the project.
#
# hatchling searches upwards for .gitignore, then for .hgignore, and uses the first one that it finds. It then adds that
# file to the sdist, at the top level, as if it belonged to the project. An empty .hgignore in a parent directory, for
# example in a home directory, is published with every project below it that has no .gitignore.
#
# Output seen:   sdist contains: .hgignore PKG-INFO demo/__init__.py pyproject.toml
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q build==1.3.0 hatchling==1.27.0
mkdir -p "$work/parent/demo-project/demo"
printf 'secret-notes\n' > "$work/parent/.hgignore"
cd "$work/parent/demo-project"
touch demo/__init__.py
cat > pyproject.toml <<'TOML'
[build-system]
requires = ["hatchling==1.27.0"]
build-backend = "hatchling.build"
[project]
name = "demo"
version = "1.0"
TOML
"$work/venv/bin/python" -m build --no-isolation --sdist --outdir "$work/out" . >/dev/null
found=$(tar -tzf "$work/out/demo-1.0.tar.gz" | sed 's|^demo-1.0/||' | sort | tr '\n' ' ')
echo "sdist contains: $found"
content=$(tar -xzOf "$work/out/demo-1.0.tar.gz" demo-1.0/.hgignore)
[ "$content" = "secret-notes" ] || { echo "changed: the parent's .hgignore is not in the sdist"; exit 1; }
