"""Whether Keras is set up as this library needs it, found out before it is imported.

Standard library only. With another backend Keras itself would fail to be imported, or
what needs TensorFlow later, each with a traceback.
"""

import json
import os
import pathlib
import sys

_NEEDED = {"backend": "tensorflow", "image_data_format": "channels_last"}
_WAYS = {
    "backend": "set KERAS_BACKEND=tensorflow before anything imports keras",
    "image_data_format": "call keras.config.set_image_data_format('channels_last')",
}


def check_keras() -> None:
    """Checks Keras' backend and its layout of images.

    Raises:
        ImportError: If the backend is not TensorFlow, or channels come first.
    """
    for name, needed in _NEEDED.items():
        keras = sys.modules.get("keras")
        if keras and getattr(keras.config, name)() == needed:
            continue  # and no file is read for it
        found, place = _find(name)
        if found != needed:
            raise ImportError(
                f"keras_vit needs Keras with {name} {needed!r}: {_WAYS[name]}. "
                f"Received: {found!r}, from {place}"
            )


def _find(name: str) -> tuple[object, str]:
    """A setting of Keras, and where it comes from."""
    path = pathlib.Path(os.environ.get("KERAS_HOME") or "~/.keras") / "keras.json"
    try:
        found = json.loads(path.expanduser().read_text()).get(name)
    except (OSError, ValueError, AttributeError):  # Keras passes over it too
        found = None
    place = f"'{path}'"
    if name == "backend" and (chosen := os.environ.get("KERAS_BACKEND")):
        found, place = chosen, "the environment's KERAS_BACKEND"
    if keras := sys.modules.get("keras"):
        now = getattr(keras.config, name)()
        return now, place if now == found else "a call in this program"
    return found or _NEEDED[name], place
