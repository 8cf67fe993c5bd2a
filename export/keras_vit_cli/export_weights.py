"""The command `export-weights`: a `.keras` model -> a folder that timm reads."""

import argparse

from keras_vit_device.files import check_writable, write_json
from keras_vit_device.terminal import say

from keras_vit.weights import save_timm
from keras_vit_cli.inputs import open_keras


def run(options: argparse.Namespace) -> int:
    """A `.keras` model -> a folder that timm reads."""
    check_writable(options.json, read=[options.model])
    classifier = open_keras(options.model)

    remarks = save_timm(classifier.model, options.output)
    for remark in remarks:
        say(f"  {remark}")
    say(f"Written: '{options.output}', for timm: 'local-dir:{options.output}'")
    write_json(options.json, {"remarks": list(remarks)})
    return 0
