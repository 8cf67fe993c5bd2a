"""What a teacher gives a student of 0.2 million weights, at equal epochs.

Top-1 on Fashion-MNIST's 10,000 test images. The student is `nano/4` with class token
and distillation token; without a teacher both heads learn the labels, as one model. As
it comes, with neither token and the mean of the patches, it stands beside.

    python benchmarks/distillation.py --teacher runs/fashion-0/model.keras
"""

import argparse

import keras
from figures import machine

import keras_vit
from keras_vit.data import find_source

TOKENS = {"class_token": True, "distillation_token": True, "pool": "token"}
# Whether the student has the tokens, and what the teacher gives.
WAYS = {
    "as it comes, no teacher": ({}, None),
    "with both tokens, no teacher": (TOKENS, None),
    "hard": (TOKENS, "hard"),
    "soft": (TOKENS, "soft"),
}


def main() -> None:
    """Trains all of them and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--teacher", required=True, metavar="KERAS")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir")
    options = parser.parse_args()
    print("\n\n".join(machine().values()), flush=True)
    source = find_source("fashion_mnist", data_dir=options.data_dir)
    data = source.load(batch_size=128, seed=options.seed)
    print(f"| nano/4, {options.epochs} epochs | weights | top-1, % |\n|---|---|---|")
    for name, (tokens, distillation) in WAYS.items():
        keras.utils.set_random_seed(options.seed)
        config = keras_vit.ViTConfig.from_variant(
            "nano/4",
            image_size=28,
            channels=1,
            num_classes=len(data.class_names),
            class_names=data.class_names,
            **tokens,
        )
        model = keras_vit.build_vit(config)
        recipe = keras_vit.TrainingRecipe(
            epochs=options.epochs,
            batch_size=128,
            flip=True,
            distillation=distillation or "hard",
        )
        run = keras_vit.train(
            model,
            data,
            recipe,
            seed=options.seed,
            teacher=options.teacher if distillation else None,
            verbose=0,
        )
        top1 = 100 * run.evaluation.top1
        print(f"| {name} | {model.count_params():,} | {top1:.2f} |", flush=True)


if __name__ == "__main__":
    main()
