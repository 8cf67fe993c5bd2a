#!/usr/bin/env bash
# Every test of `make test` beside versions of packages and of Python.
#   run.sh colab [PYTHON ...]    Colab's, which stay as they are; lessons and demo too
#   run.sh lowest [PYTHON ...]   the oldest that setup.cfg allows
#   run.sh newest [PYTHON ...]   the newest that there are
set -euo pipefail
cd "$(dirname "$0")/../.."
kind=$1 && shift
pins=tests/versions/$kind.txt

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

run_lessons() {  # nothing of ours is installed until the first cell does it
  sed 's/[=#;].*//' "$pins" |
    xargs "${pip[@]}" install ipykernel nbclient nbformat --constraint "$pins"
  "${pip[@]}" freeze | sort > "$box/before"
  "$box/bin/python" tests/versions/lessons.py "$box/clone"
  say_what_changed lessons
}

declare -A all=([colab]="3.12 3.13" [lowest]="3.11 3.12 3.13" [newest]="3.12 3.13")
[ $# -gt 0 ] || set -- ${all[$kind]}
for version; do
  python=$(find_python "$version")
  box=.venv-$kind-$version
  pip=("$box/bin/python" -m pip --disable-pip-version-check --quiet)
  rm -rf "$box"
  "$python" -m venv "$box"
  if [ "$kind" = colab ]; then run_lessons; fi
  [ -e "$pins" ] || pins=/dev/null
  "${pip[@]}" install --constraint "$pins" --editable '.[test]'
  if [ "$kind" = colab ]; then say_what_changed suite; fi
  echo "$kind, Python $version:" \
    "$("${pip[@]}" freeze | grep -E '^(tensorflow|keras|numpy|ai-edge-litert)==' | xargs)"
  "$box/bin/python" -m pytest -n 2 --dist loadfile -m "not long and not devices"
  if [ "$kind" = colab ]; then "$box/bin/keras-vit" demo --output "$box/demo"; fi
done
