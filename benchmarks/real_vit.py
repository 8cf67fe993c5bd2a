"""What each recipe costs a real pretrained ViT-S/14, on all Fashion-MNIST test images.

    make real-vit                                  the weights, into runs/real_vit
    python benchmarks/real_vit.py --size 98        a probe, and every recipe on it

The head is a linear probe, scikit-learn's logistic regression on the class tokens of
3,000 training images, as strong as 1,000 validation images like best. Recipes are
calibrated on training images, chosen on validation images and held against the Keras
model on the test images: points of top-1 lost with their paired 95 % interval,
agreement, size, seconds of export, and the SNR of the logits on the images they were
chosen on, before and after rotation, scales and rounding. What each residual sum keeps,
before and after, is drawn.
"""

import argparse
import json
import pathlib
import time

import numpy as np
import tensorflow as tf
from accuracy import Parallel
from keras_vit_export.exporter import Exporter
from keras_vit_export.quantization.recipes import QUANTIZATION_RECIPES
from keras_vit_export.report.measure import environment, points_lost, predict
from matplotlib import pyplot
from sklearn.linear_model import LogisticRegression

import keras_vit
from keras_vit.features import feature_model
from keras_vit.files import load_model, save_model
from keras_vit.weights import read_checkpoint

DATASET = "fashion_mnist"
PROBED, CHECKED = 3000, 1000  # training and validation images
STRENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)  # scikit-learn's C
BATCH = 50


def make_probe(weights: pathlib.Path, size: int, path: pathlib.Path) -> None:
    """The pretrained model with a head that scikit-learn has fitted."""
    source = keras_vit.data.find_source(DATASET)
    model = read_checkpoint(
        weights, image_size=size, num_classes=10, class_names=source.class_names
    ).model
    data = source.load(keras_vit.config_of(model), batch_size=BATCH)
    features = feature_model(model, "token")
    rows, labels = read_tokens(features, data.train, PROBED)
    checked = read_tokens(features, data.validation, CHECKED)
    probes = [
        LogisticRegression(C=strength, max_iter=5000).fit(rows, labels)
        for strength in STRENGTHS
    ]
    probe = max(probes, key=lambda it: it.score(*checked))
    print(f"C = {probe.C}: {probe.score(*checked):.2%} of validation images")
    head = model.get_layer("head").logits
    head.kernel.assign(probe.coef_.T)
    head.bias.assign(probe.intercept_)
    save_model(model, path)


def read_tokens(features, batches, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Class tokens and labels of the first images."""
    rows, labels = [], []
    for images, truth in batches.take(count // BATCH).as_numpy_iterator():
        rows.append(features.predict_on_batch(images.astype("float32")))
        labels.append(truth)
    return np.concatenate(rows), np.concatenate(labels)


def measure(
    exporter: Exporter, recipes: list[str], test: tf.data.Dataset
) -> list[dict]:
    """What each recipe costs, a row each."""
    made, rows = {}, []
    exporter.convert("float32")  # its conversion is no recipe's
    for name in recipes:
        begin = time.process_time()
        made[name] = exporter.convert(name)
        rows.append({"recipe": name, "cpu_s": time.process_time() - begin})
        print(f"{name}: {rows[-1]['cpu_s']:.0f} CPU seconds", flush=True)
    everyone = {name: Parallel(it.content) for name, it in made.items()}
    everyone = {"keras": exporter.origin.classifier} | everyone
    labels, answers = predict(everyone, test)
    classes = {name: it.argmax(axis=1) for name, it in answers.items()}
    right = {name: it == labels for name, it in classes.items()}
    print(f"Keras: {right['keras'].mean():.2%} of {len(labels):,} images")
    for row in rows:
        name = row["recipe"]
        lost, interval = points_lost(right["keras"], right[name])
        plain = exporter.make_plain(name)
        before, after = (
            exporter.floats.layer_snr_db(it.float_model, it.content)
            for it in (plain, made[name])
        )
        row |= {
            "top1": float(right[name].mean()),
            "lost": lost,
            "interval": interval,
            "agreement": float(np.mean(classes[name] == classes["keras"])),
            "plain_db": exporter.floats.snr(plain.float_model, plain.content),
            "snr_db": exporter.floats.snr(made[name].float_model, made[name].content),
            "layers": {"before": before, "after": after},
            "rotated": str(made[name].rotation),
            "chosen": made[name].methods + ", lifted" * made[name].lifted,
            "mb": len(made[name].content) / 1e6,
        }
    return rows


def table(rows: list[dict]) -> str:
    """The rows in Markdown."""
    lines = [
        "| format | top-1 | points lost | agreement | before | dB | MB | rotated | by | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {it['recipe']} | {it['top1']:.2%} | {it['lost']:+.2f} ± {it['interval']:.2f} "
        f"| {it['agreement']:.2%} | {it['plain_db']:.1f} | {it['snr_db']:.1f} | {it['mb']:.1f} "
        f"| {it['rotated'] or 'no'} | {it['chosen']} | {it['cpu_s']:.0f} |"
        for it in rows
    ]
    return "\n".join(lines)


def draw_layers(rows: list[dict], path: pathlib.Path) -> None:
    """SNR of the residual sums, and at last of the logits, before and after."""
    figure, panels = pyplot.subplots(
        1, len(rows), figsize=(3 * len(rows), 3), sharey=True, squeeze=False
    )
    for panel, row in zip(panels[0], rows, strict=True):
        for when, found in row["layers"].items():
            panel.plot(list(found.values()), marker=".", label=when)
        panel.set(title=row["recipe"], xlabel="residual sum, then logits")
    panels[0][0].set_ylabel("SNR (dB)")
    panels[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", type=pathlib.Path, default="runs/real_vit")
    parser.add_argument("--size", type=int, default=98, help="pixels a side")
    parser.add_argument("--recipes", default=",".join(QUANTIZATION_RECIPES))
    parser.add_argument("--images", type=int, help="test images (default: all)")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    path = options.weights / f"probe_{options.size}.keras"
    if not path.exists():
        make_probe(options.weights, options.size, path)
    print(", ".join(f"{name} {it}" for name, it in environment().items()))
    model = load_model(path)
    data = keras_vit.load_data(DATASET, keras_vit.config_of(model), batch_size=BATCH)
    some = -1 if options.images is None else options.images // BATCH
    exporter = Exporter(model, data)
    rows = measure(exporter, options.recipes.split(","), data.test.take(some))
    print(f"\n{table(rows)}")
    draw_layers(rows, options.weights / f"layers_{options.size}.png")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
