#!/usr/bin/env bash
# Lessons, suite and demo beside the packages of Colab, which stay as they are.
# Arguments: versions of Python, 3.13 and 3.12 if there are none.
set -euo pipefail
cd "$(dirname "$0")/../.."
pins=tests/colab/constraints.txt

find_python() {  # one that runs: pyenv's shims may not
  local found
  for found in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python3; do
    if "$found" -c '' 2> /dev/null; then echo "$found"; return; fi
  done
  echo "There is no Python $1, neither on PATH nor of pyenv." >&2
  return 2
}

say_what_changed() {
  changed=$("${pip[@]}" freeze | sort | comm -13 - "$box/before")
  echo "Python $version, $1: changed of Colab's packages: ${changed:-nothing}"
  [ -z "$changed" ]
}

[ $# -gt 0 ] || set -- 3.13 3.12
for version; do
  python=$(find_python "$version")
  box=.venv-colab-$version
  pip=("$box/bin/python" -m pip --disable-pip-version-check --quiet)
  rm -rf "$box"
  "$python" -m venv "$box"
  sed 's/[=#;].*//' "$pins" |
    xargs "${pip[@]}" install ipykernel nbclient nbformat --constraint "$pins"
  "${pip[@]}" freeze | sort > "$box/before"
  "$box/bin/python" tests/colab/lessons.py "$box/clone"
  say_what_changed lessons
  "${pip[@]}" install --constraint "$pins" --editable '.[test]'
  say_what_changed suite
  "$box/bin/python" -m pytest -n 2 --dist loadfile -m "not long and not devices"
  "$box/bin/keras-vit" demo --output "$box/demo"
done
