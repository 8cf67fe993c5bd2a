"""Every kind of hostile or unlucky input."""

from tests.hostile import archives, contracts, images, kills, names, runs
from tests.hostile.drive import Kind

KINDS = {
    "images": Kind(images.classify),
    "folders": Kind(images.classify_folder),
    "archives": Kind(archives.load),
    "names": Kind(names.show),
    "contracts": Kind(contracts.take),
    "runs": Kind(runs.resume, runs.begin),
    "races": Kind(runs.race),
    "kills": Kind(kills.kill, kills.prepare),
}
