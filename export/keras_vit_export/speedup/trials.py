"""What was tried to compute less, and what of it is kept for a run that goes on."""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, Self

from keras_vit_device.files import write_bytes, write_json

from keras_vit_export.speedup.variants import Variant


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One variant, exported and measured.

    Attributes:
        variant: What computes less.
        recipe: Name of the recipe of its file.
        epochs: Of training after the change; 0 for none.
        top1: Part of the validation images classified right, 0..1.
        drop: Points of top-1 lost to the Keras model as it came.
        interval: Half the width of the 95 % interval of that, on the same images.
        latency_ms: Median milliseconds for one image on one thread, of all trials in
            turn; `None` until they are timed.
        ratio: How many times as fast as the same recipe of the model as it came.
    """

    variant: Variant
    recipe: str
    epochs: int
    top1: float
    drop: float
    interval: float
    latency_ms: float | None = None
    ratio: float | None = None

    @property
    def name(self) -> str:
        """Of its files."""
        return self.variant.name + (f"-{self.epochs}-epochs" if self.epochs else "")

    def __str__(self) -> str:
        """A line of what was found; the times come later, of all in turn."""
        plural = "s" if self.epochs > 1 else ""
        trained = f", {self.epochs} epoch{plural}" if self.epochs else ""
        return (
            f"{self.variant}{trained}: {self.drop:.2f} +- {self.interval:.2f} points of "
            "top-1 lost"
        )

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """From JSON."""
        return cls(**fields | {"variant": Variant.of(fields["variant"])})


class Store:
    """A folder that a search writes what it finds into, and may be gone on with.

    Args:
        folder: Where; made if it is not there.
        settings: What must be the same for the trials to count.

    Raises:
        ValueError: If the folder holds a search with other settings.
    """

    _FILE = "trials.json"

    def __init__(self, folder: pathlib.Path, settings: dict[str, Any]):
        self.folder, self._settings = folder, json.loads(json.dumps(settings))
        self._trials: dict[str, Trial] = {}
        if not (folder / self._FILE).exists():
            self._write()
            return
        stored = json.loads((folder / self._FILE).read_text())
        for name, value in self._settings.items():
            if stored["settings"].get(name) != value:
                raise ValueError(
                    f"'{folder}' holds a search with another {name}. Received: {value}, "
                    f"there {stored['settings'].get(name)}"
                )
        for fields in stored["trials"]:
            trial = Trial.of(fields)
            self._trials[trial.name] = trial

    def find(self, variant: Variant, epochs: int) -> Trial | None:
        """What was found of a variant before, if its file is still there."""
        for trial in self._trials.values():
            same = (trial.variant, trial.epochs) == (variant, epochs)
            if same and self._path(trial).exists():
                return trial
        return None

    def add(self, trial: Trial, content: bytes) -> None:
        """Keeps a trial and its file."""
        write_bytes(self._path(trial), content)
        self._trials[trial.name] = trial
        self._write()

    def keep(self, trials: Iterable[Trial]) -> None:
        """Trials whose figures have changed."""
        self._trials |= {trial.name: trial for trial in trials}
        self._write()

    def content(self, trial: Trial) -> bytes:
        """The file of a trial."""
        return self._path(trial).read_bytes()

    def run_folder(self, variant: Variant) -> pathlib.Path:
        """Where a variant's training run goes."""
        return self.folder / "trained" / variant.name

    def _path(self, trial: Trial) -> pathlib.Path:
        return self.folder / "trials" / f"{trial.name}.tflite"

    def _write(self) -> None:
        trials = [dataclasses.asdict(it) for it in self._trials.values()]
        found = {"settings": self._settings, "trials": trials}
        write_json(self.folder / self._FILE, found)


def front(trials: Sequence[Trial]) -> list[Trial]:
    """The trials than which none is both as fast and more accurate, fastest first."""
    found, best = [], -1.0
    for trial in sorted(trials, key=lambda it: (it.latency_ms, -it.top1)):
        if trial.top1 > best:
            found.append(trial)
            best = trial.top1
    return found


def table(trials: Sequence[Trial], max_drop: float) -> str:
    """The trials as a table in Markdown, fastest first; a star for those of the front."""
    lines = [
        "| | epochs | validation top-1 | points lost, 95 % | ms | times as fast | |",
        "|---|---|---|---|---|---|---|",
    ]
    best = front(trials)
    for it in sorted(trials, key=lambda trial: trial.latency_ms):
        verdict = "holds" if it.drop <= max_drop else "too much"
        star = " *" if it in best else ""
        lines.append(
            f"| {it.variant} | {it.epochs or ''} | {it.top1:.2%} | {it.drop:.2f} ± "
            f"{it.interval:.2f} | {it.latency_ms:.3g} | {it.ratio:.2f} | {verdict}{star} |"
        )
    return "\n".join(lines)
