#!/usr/bin/env bash
# Makes the runtimes of `make test-devices`, each in a folder of .venv-devices/ with a
# bin/python, or gpu/ with the `variables` that this Python needs. One that can't be made
# leaves a NAME.log, whose last line the tests give as the reason for skipping it. Needs
# no root and changes nothing outside the folder.
set -uo pipefail
cd "$(dirname "$0")/../.."
mkdir -p .venv-devices
cd .venv-devices
here=$PWD
python=$here/../.venv/bin/python
PIP=(-m pip --quiet --disable-pip-version-check)

# Under qemu 7.2 (Debian 12), ai-edge-litert 2.2 and 2.3 end with a segmentation fault;
# 2.1.2 and older do not run full_int8.
LITERT_UNDER_QEMU=ai-edge-litert==2.1.5
# The default processor, `max`, has matrix instructions that qemu 7.2 computes wrongly.
PROCESSOR=cortex-a76

fail() { echo "$*" >&2; return 1; }

mediapipe() {
  "$python" -m venv mediapipe && mediapipe/bin/python "${PIP[@]}" install mediapipe pillow
}

tflite_runtime() { # the last release has wheels up to Python 3.11
  local old
  old=$(command -v python3.11) || { fail "There is no python3.11."; return 1; }
  "$old" -m venv tflite-runtime &&
    tflite-runtime/bin/python "${PIP[@]}" install tflite-runtime==2.14.0 'numpy<2' pillow
}

tools() { # NAME...
  local tool
  for tool in "$@"; do
    command -v "$tool" >/dev/null ||
      { fail "$tool is missing: on Debian, apt install qemu-user-static"; return 1; }
  done
}

own_apt() { # ARCHITECTURE: `apt`, an apt-get beside a package database of its own
  mkdir -p apt/{lists,archives}/partial
  touch apt/status
  apt=(apt-get --quiet --quiet --assume-yes -o APT::Architecture="$1"
    -o APT::Architectures::="$1" -o APT::Sandbox::User= -o Debug::NoLocking=1
    -o Dir::State="$here/apt" -o Dir::State::status="$here/apt/status"
    -o Dir::Cache="$here/apt")
  "${apt[@]}" update
}

arm64_root() { # Debian's Python for arm64
  local apt name=arm64-root
  tools apt-get dpkg-deb qemu-aarch64-static || return 1
  mkdir -p $name/{usr/lib,usr/bin,usr/sbin}
  ln -s usr/lib usr/bin usr/sbin $name/
  own_apt arm64 &&
    "${apt[@]}" --download-only --no-install-recommends install python3 libstdc++6 || return 1
  for package in apt/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" |
      tar --extract --keep-directory-symlink --directory $name || return 1
  done
  rm -r apt
}

arm64() { # NAME PACKAGE...: Debian's Python with wheels for aarch64
  local name=$1 version
  [ -e arm64-root/ready ] || fail "$(tail -n 1 arm64-root.log)" || return 1
  version=$(readlink arm64-root/usr/bin/python3) && version=${version#python}
  mkdir -p "$name/bin"
  "$python" "${PIP[@]}" install --target "$name/packages" --only-binary=:all: \
    --python-version "$version" --platform manylinux_2_34_aarch64 --platform manylinux_2_28_aarch64 \
    --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 "${@:2}" || return 1
  cat >"$name/bin/python" <<END
#!/bin/sh
export PYTHONPATH="$here/$name/packages:\$PYTHONPATH"
exec qemu-aarch64-static -cpu $PROCESSOR -L "$here/arm64-root" \\
  "$here/arm64-root/usr/bin/python3" "\$@"
END
  chmod +x "$name/bin/python"
}

gpu() { # a Vulkan in software for LiteRT's GPU accelerator: Chromium has SwiftShader
  local apt loader driver
  tools apt-get dpkg-deb || return 1
  mkdir -p gpu
  own_apt "$(dpkg --print-architecture)" &&
    (cd gpu && "${apt[@]}" download libvulkan1 chromium-common) || return 1
  # Apart: Chromium's folder has other libraries too, which must not be found first.
  dpkg-deb --extract gpu/libvulkan1_*.deb gpu/loader &&
    dpkg-deb --extract gpu/chromium-common_*.deb gpu/driver || return 1
  rm -r apt gpu/*.deb
  loader=$(find "$here/gpu/loader" -name libvulkan.so.1 -printf %h -quit)
  driver=$(find "$here/gpu/driver" -name vk_swiftshader_icd.json -print -quit)
  [ -n "$loader" ] && [ -n "$driver" ] ||
    fail "No Vulkan is in libvulkan1 and chromium-common." || return 1
  cat >gpu/variables <<END
LD_LIBRARY_PATH=$loader
VK_DRIVER_FILES=$driver
VK_ICD_FILENAMES=$driver
END
}

make() { # NAME COMMAND...
  [ -e "$1/ready" ] && return
  rm -rf "$1"
  if "${@:2}" >"$1.log" 2>&1; then
    touch "$1/ready"
    rm "$1.log"
  else
    rm -rf "$1"
    echo "No $1: $(tail -n 1 "$1.log")"
  fi
}

make gpu gpu
make mediapipe mediapipe
make tflite-runtime tflite_runtime
make arm64-root arm64_root
make arm64-litert arm64 arm64-litert "$LITERT_UNDER_QEMU" pillow
make arm64-tflite-runtime arm64 arm64-tflite-runtime tflite-runtime==2.14.0 'numpy<2' pillow
