"""Options of `train`. Standard library only."""

from keras_vit_cli.options.shared import (
    add_dataset,
    add_json,
    add_modules,
    add_path,
    image_size,
)


def add_train(commands) -> None:
    """Labelled images -> a trained model."""
    train = commands.add_parser("train", help="train a model on labelled images")
    add_dataset(train, required=False)
    train.add_argument(
        "--recipe",
        help="small (default), scratch_small, deit, augreg, finetune, fewer_tokens or "
        "linear_probe; the options below change it",
    )
    add_path(
        train,
        "--from",
        "KERAS",
        "a trained .keras file to start from; its head is made anew if the classes "
        "differ, its positions are resized if --image-size does",
        dest="origin",
    )
    train.add_argument(
        "--variant",
        help="size and patch side, such as nano/2, micro/4 or Ti/16 "
        "(default: by the size and the number of the images)",
    )
    train.add_argument(
        "--image-size",
        type=image_size,
        metavar="PIXELS",
        help="side of the square the model sees, or HEIGHTxWIDTH "
        "(default: that of the images up to 64 pixels, else 64 for fewer than 20,000 "
        "training images and 224 for more; of --from, the model's)",
    )
    _add_steps(train)
    _add_changes(train)
    _add_run(train)
    add_modules(train)
    train.add_argument("--seed", type=int, help="default: 0")
    add_json(train)


def _add_steps(train) -> None:
    """How many steps it takes, of how many images."""
    train.add_argument("--epochs", type=int, help="default: the recipe's")
    train.add_argument(
        "--patience",
        type=int,
        metavar="N",
        help="end after N epochs without a better one (default: never)",
    )
    train.add_argument(
        "--batch-size",
        type=int,
        help="images a step, over all workers together (default: 64, or 32 where "
        "images are few)",
    )
    train.add_argument(
        "--accumulation",
        type=int,
        metavar="N",
        help="add up the gradients of N batches for each change of the weights",
    )
    train.add_argument(
        "--learning-rate",
        type=float,
        help="peak (default: the recipe's, in proportion to the batch size)",
    )


def _add_changes(train) -> None:
    """What else of a recipe is changed."""
    train.add_argument(
        "--drop-path",
        type=float,
        metavar="PART",
        help="leave out the branches of the last block for this part of the images, "
        "of earlier blocks for less (default: 0; DeiT and CCT take 0.1)",
    )
    train.add_argument(
        "--reduce",
        dest="reduce_tokens",
        metavar="TOKENS",
        help="go on with fewer tokens, which is quicker: 0.7 keeps the 0.7 of the "
        "patches that attention takes most from, in three blocks, pool averages squares "
        "of 2 x 2; in blocks of your own 1:0.5,2:0.5 or 1:pool. With --from a few "
        "epochs, and the model itself as the teacher",
    )
    train.add_argument(
        "--precision", help="float32 (default) or mixed_bfloat16, of the computations"
    )
    add_path(
        train,
        "--teacher",
        "KERAS",
        "a .keras file whose answers are learnt too, in a new model by a distillation "
        "token",
    )
    train.add_argument(
        "--distillation",
        help="what a teacher gives: hard (its class, default) or soft (probabilities)",
    )
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change any other field of the recipe, such as mixup=0.2 or "
        "trainable=head,final_norm,block_11; may be given several times",
    )
    train.add_argument(
        "--flip",
        action="store_true",
        help="mirror images at random in training (few colour photographs are anyway, "
        "but for --set flip=false)",
    )
    train.add_argument(
        "--resize",
        help="stretch (default) or crop, which keeps proportions",
    )


def _add_run(train) -> None:
    """Where the run goes, and on which machines it goes on."""
    add_path(train, "--output", "RUN", "new folder")
    add_path(
        train,
        "--resume",
        "RUN",
        "go on with a run that was interrupted, from its newest checkpoint and with its "
        "settings; with one that is finished, to more --epochs; with one whose loss was "
        "no number, at a lower --learning-rate; --data-dir and --broken are to be given "
        "again",
    )
    train.add_argument(
        "--checkpoint-steps",
        type=int,
        metavar="N",
        help="write a checkpoint every N steps too (default: when an epoch begins)",
    )
    train.add_argument(
        "--continue",
        action="store_true",
        dest="go_on",
        help="with --output: go on if that run was begun already, as a supervisor "
        "needs it that starts the same command again",
    )
    train.add_argument(
        "--strategy",
        default="auto",
        help="mirrored for all GPUs of this host, multiworker for the hosts in "
        "TF_CONFIG, or auto (default)",
    )
    train.add_argument(
        "--worker-timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long other hosts are waited for at the start (default: 300)",
    )
    train.add_argument(
        "--dry-run",
        action="store_true",
        help="build the model, estimate its memory, make a few steps, say how long the "
        "whole would take, and write nothing",
    )
