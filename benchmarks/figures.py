"""What every benchmark prints: medians with their range, hardware and versions.

Standard library only, so that a process which times one library loads no other.
"""

import dataclasses
import importlib.metadata
import os
import pathlib
import platform
import statistics

PACKAGES = (
    "keras-vit-edge",
    "tensorflow",
    "keras",
    "ai-edge-litert",
    "litert-quantizer",
    "keras-hub",
    "timm",
    "torch",
    "onnx",
    "onnxruntime",
)


@dataclasses.dataclass(frozen=True)
class Figure:
    """A median with the lowest and the highest value."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Figure":
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}..{self.high:.2f})"


def machine() -> dict[str, str]:
    """Hardware and versions, one line each."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    about = dict(map(str.strip, line.split(":", 1)) for line in lines if ":" in line)
    known = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")
    flags = [flag for flag in known if flag in about.get("flags", "").split()]
    name = about.get("model name", platform.machine())
    cores = count(len(os.sched_getaffinity(0)), "core")
    versions = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} not installed")
    return {
        "hardware": f"{cores} of {name} ({', '.join(flags)}), {platform.system()}",
        "versions": ", ".join(versions),
    }


def count(number: int, noun: str) -> str:
    """`1 thread`, `2 threads`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
