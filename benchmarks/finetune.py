"""Fine-tuning against training from nothing, on 500 images, at equal epochs.

A model is trained on the first five classes of Fashion-MNIST, then on 100 images of
each of the other five: from what it learnt, and from random weights. Top-1 on the 5,000
test images of those classes.

    python benchmarks/finetune.py --seeds 3
"""

import argparse
import dataclasses

import keras
import numpy as np
from figures import Figure, machine

import keras_vit
from keras_vit.data import ImageSource, find_source, from_arrays
from keras_vit.training.recipes import TRAINING_RECIPES

SMALL = keras_vit.TrainingRecipe(flip=True)


def ways(epochs: int) -> dict[str, tuple[bool, keras_vit.TrainingRecipe]]:
    """Whether it starts from the trained model, and how it is trained."""
    recipes = {
        "from nothing, small": (False, SMALL),
        "from the trained model, small": (True, SMALL),
        "from the trained model, small, layer decay 0.75": (
            True,
            dataclasses.replace(SMALL, layer_decay=0.75),
        ),
        "from the trained model, linear_probe": (
            True,
            TRAINING_RECIPES["linear_probe"],
        ),
        "from the trained model, finetune": (True, TRAINING_RECIPES["finetune"]),
    }
    return {
        name: (trained, dataclasses.replace(recipe, epochs=epochs))
        for name, (trained, recipe) in recipes.items()
    }


def arrays(data_dir: str | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels of each split, in memory."""
    data = find_source("fashion_mnist", data_dir=data_dir).load(batch_size=1000)
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    found = {}
    for name, batches in splits.items():
        images, labels = zip(*batches.as_numpy_iterator(), strict=True)
        found[name] = np.concatenate(images), np.concatenate(labels)
    return found


def source(
    found: dict[str, tuple[np.ndarray, np.ndarray]],
    first: int,
    count: int | None,
    seed: int,
) -> ImageSource:
    """Five classes from `first` on, at most `count` training images of each."""
    images = np.concatenate([images for images, _ in found.values()])
    labels = np.concatenate([labels for _, labels in found.values()])
    begin, rows = 0, {}
    random = np.random.default_rng(seed)
    for name, (_, own) in found.items():
        chosen = [
            begin + random.permutation(np.flatnonzero(own == label))
            for label in range(first, first + 5)
        ]
        # Choosing the best epoch must not need more images than training has.
        limit = count if name != "test" else None
        rows[name] = np.concatenate([part[:limit] for part in chosen])
        begin += len(own)
    names = [str(label) for label in range(first, first + 5)]
    return from_arrays("fashion_mnist", names, images, labels - first, rows)


def main() -> None:
    """Trains all of them and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pretraining-epochs", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--data-dir")
    options = parser.parse_args()
    print("\n\n".join(machine().values()), flush=True)
    found = arrays(options.data_dir)
    results = {name: [] for name in ways(options.epochs)}
    for seed in range(options.seeds):
        keras.utils.set_random_seed(seed)
        many = source(found, 0, None, seed).load(batch_size=128, seed=seed)
        config = keras_vit.ViTConfig.from_variant(
            "compact/4", image_size=28, channels=1, num_classes=5
        )
        config = dataclasses.replace(config, class_names=many.class_names)
        trained = keras_vit.build_vit(config)
        recipe = dataclasses.replace(
            SMALL, epochs=options.pretraining_epochs, batch_size=128
        )
        run = keras_vit.train(trained, many, recipe, seed=seed, verbose=0)
        print(f"seed {seed}: first five classes {run.evaluation.top1:.2%}", flush=True)
        few = source(found, 5, 100, seed).load(batch_size=32, seed=seed)
        for name, (from_trained, recipe) in ways(options.epochs).items():
            keras.utils.set_random_seed(seed)
            if from_trained:
                model = keras_vit.with_head(trained, 5, few.class_names)
            else:
                other = dataclasses.replace(config, class_names=few.class_names)
                model = keras_vit.build_vit(other)
            run = keras_vit.train(model, few, recipe, seed=seed, verbose=0)
            results[name].append(100 * run.evaluation.top1)
            print(f"seed {seed}: {name} {run.evaluation.top1:.2%}", flush=True)
    print(f"\n| 500 images, {options.epochs} epochs | top-1, % |\n|---|---|")
    for name, values in results.items():
        print(f"| {name} | {Figure.of(values)} |")


if __name__ == "__main__":
    main()
