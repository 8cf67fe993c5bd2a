"""How to train: what published recipes set, as data. Standard library only."""

import dataclasses
import math

from keras_vit.config import check_choice

DISTILLATIONS = ("hard", "soft")
KEPT = ("best", "last")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How to train a Vision Transformer; the defaults suit a small one from scratch.

    Args:
        epochs: Epochs: `passes` over the training images, then the validation images.
        passes: More than 1 for so few images that an epoch would be a handful of steps.
        patience: Epochs without a better one after which training ends; 0 makes all.
        keep: Which weights are kept: `"best"`, of the epoch that did best on the
            validation images, or `"last"`, for so few of them that they can't tell.
        learning_rate: Peak of the learning rate, reached after the warm-up; it then
            falls to zero along a cosine.
        batch_size: Images a step that this rate is for; with others, on one machine or
            on many together, the rate is in proportion. Source:
            https://arxiv.org/abs/2012.12877, section 6.
        accumulation: Number of batches whose gradients make one change of the weights;
            it counts as a batch so many times larger.
        warmup: Part of all steps in which the learning rate rises from zero.
        weight_decay: AdamW's decay, of weight matrices only.
        layer_decay: Factor of the learning rate from each block to the one before it;
            1 for none.
        trainable: Beginnings of the names of the layers that are trained, the others
            being frozen; `()` trains all that are not frozen already.
        clip_norm: Largest norm of all gradients together; 0 for no limit.
        label_smoothing: Part of the target spread evenly over all classes.
        ema_momentum: Momentum of the moving average of the weights, a step; the average
            is what is validated and kept. 0 for none. It begins with the first weights;
            7 / (1 - momentum) steps leave a thousandth of them in it.
        translation: Largest random shift, as a part of the image's side.
        flip: Whether images are mirrored at random; wrong for digits and letters.
        rand_augment: Strength, 0..1 (a tenth of the paper's magnitude), of two random
            changes of shape or colour, the same two for all images of a batch; 0 for
            none. See `RandAugment`.
        random_erasing: Part of the images that have a random rectangle erased.
        mixup: Alpha of MixUp; 0 for none.
        cutmix: Alpha of CutMix, at most 1; 0 for none. With both, a batch has the one
            or the other.
        repeats: How often an image comes in a row, each time augmented anew.
        distillation: What a teacher gives, where there is one: `"hard"` for its most
            probable class, `"soft"` for its probabilities.
        temperature: Divides the logits of teacher and student in soft distillation.
        teacher_weight: Part of the loss that the teacher's answers make.

    Raises:
        ValueError: If a field is out of its range.

    Sources of the defaults: https://arxiv.org/abs/2012.12877, table 9, and
        https://arxiv.org/abs/2104.05704, section 4, in their lightest form.
    """

    epochs: int = 60
    passes: int = 1
    patience: int = 0
    keep: str = "best"
    learning_rate: float = 3e-3
    batch_size: int = 64
    accumulation: int = 1
    warmup: float = 0.1
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    trainable: tuple[str, ...] = ()
    clip_norm: float = 0.0
    label_smoothing: float = 0.1
    ema_momentum: float = 0.99
    translation: float = 0.125
    flip: bool = False
    rand_augment: float = 0.0
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    repeats: int = 1
    distillation: str = "hard"
    temperature: float = 3.0
    teacher_weight: float = 0.5

    def __post_init__(self):
        object.__setattr__(self, "trainable", tuple(self.trainable))
        check_choice("distillation", self.distillation, DISTILLATIONS)
        check_choice("keep", self.keep, KEPT)
        least = {"epochs": 1, "patience": 0, "batch_size": 1, "accumulation": 1}
        for name, smallest in {**least, "passes": 1, "repeats": 1}.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < smallest:
                raise ValueError(
                    f"{name} must be an integer >= {smallest}. Received: {value}"
                )
        for name in ("learning_rate", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name} must be positive. Received: {getattr(self, name)}"
                )
        if not 0.0 < self.layer_decay <= 1.0:
            raise ValueError(
                f"layer_decay must be in (0, 1]. Received: {self.layer_decay}"
            )
        for name in ("weight_decay", "clip_norm", "mixup"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name} must not be negative. Received: {getattr(self, name)}"
                )
        for name in ("warmup", "label_smoothing", "ema_momentum", "translation"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(
                    f"{name} must be in [0, 1). Received: {getattr(self, name)}"
                )
        for name in ("rand_augment", "random_erasing", "cutmix", "teacher_weight"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(
                    f"{name} must be in [0, 1]. Received: {getattr(self, name)}"
                )

    def peak_rate(self, batch_size: int) -> float:
        """The highest learning rate of a training with batches of this size."""
        return self.learning_rate * batch_size * self.accumulation / self.batch_size


TRAINING_RECIPES: dict[str, TrainingRecipe] = {
    # Ours: some tens of epochs on thousands of small images.
    "small": TrainingRecipe(),
    # CCT: https://arxiv.org/abs/2104.05704, appendix, table of hyperparameters; the
    # strength of RandAugment is that of the published code.
    "scratch_small": TrainingRecipe(
        epochs=200,
        learning_rate=6e-4,
        batch_size=128,
        warmup=0.05,
        weight_decay=0.06,
        ema_momentum=0.0,
        flip=True,
        rand_augment=0.9,
        random_erasing=0.25,
        mixup=0.8,
        cutmix=1.0,
    ),
    # DeiT: https://arxiv.org/abs/2012.12877, table 9; without the average of its table 8.
    "deit": TrainingRecipe(
        epochs=300,
        learning_rate=5e-4,
        batch_size=512,
        warmup=5 / 300,
        ema_momentum=0.0,
        translation=0.0,
        flip=True,
        rand_augment=0.9,
        random_erasing=0.25,
        mixup=0.8,
        cutmix=1.0,
        repeats=3,
    ),
    # AugReg, its "medium2": https://arxiv.org/abs/2106.10270, section 3.3 and table 3.
    # Its magnitude of RandAugment, 15, is beyond the range; this is the range's end.
    "augreg": TrainingRecipe(
        epochs=300,
        learning_rate=1e-3,
        batch_size=4096,
        warmup=0.03,
        weight_decay=0.1,
        clip_norm=1.0,
        label_smoothing=0.0,
        ema_momentum=0.0,
        translation=0.0,
        flip=True,
        rand_augment=1.0,
        mixup=0.5,
    ),
    # All weights of a trained model: https://arxiv.org/abs/2111.06377, table 9, whose
    # base rate is that of 256 images.
    "finetune": TrainingRecipe(
        epochs=50,
        learning_rate=1e-3,
        batch_size=256,
        layer_decay=0.75,
        ema_momentum=0.0,
        translation=0.0,
        flip=True,
        rand_augment=0.9,
        mixup=0.8,
        cutmix=1.0,
    ),
    # Ours: a trained model goes on with fewer tokens, and learns from itself with all.
    # Ten times the rate suits a small model a little better, and destroys a pretrained
    # one: see benchmarks/reduction.py.
    "fewer_tokens": TrainingRecipe(
        epochs=5,
        learning_rate=5e-5,
        layer_decay=1.0,
        ema_momentum=0.0,
        label_smoothing=0.0,
        translation=0.0,
        distillation="soft",
        temperature=1.0,
    ),
    # The head alone: https://arxiv.org/abs/2111.06377, appendix A.2, with AdamW.
    "linear_probe": TrainingRecipe(
        epochs=30,
        learning_rate=3e-3,
        weight_decay=0.0,
        trainable=("head",),
        label_smoothing=0.0,
        ema_momentum=0.0,
        translation=0.0,
        flip=True,
    ),
}
DEFAULT_RECIPE = "small"
# These make nothing of first weights that are random.
OF_TRAINED_MODELS = ("finetune", "fewer_tokens", "linear_probe")
FEWER_TOKENS = "fewer_tokens"
