"""Published sizes, and this project's own."""

from typing import Any

# Ti: https://arxiv.org/abs/2012.12877, table 1.  S, B, L, H: the same widths as in
# https://arxiv.org/abs/2010.11929, table 1, and https://arxiv.org/abs/2106.10270,
# table 2.  g: https://arxiv.org/abs/2304.07193, table 17; its MLP is SwiGLU.
# nano, micro and compact are this project's own, for images of 8 to 64 pixels a side;
# the convolution and the mean pool gained 2 to 4 points of top-1 there, in single runs.
# compact has two convolutions and two blocks, as CCT-2/3x2 does:
# https://arxiv.org/abs/2104.05704, table 1. compact3 has a third convolution, for
# photographs: it leaves as many patches of larger images.
_SMALL = {"stem": (32,), "class_token": False, "pool": "mean"}
_COMPACT = {**_SMALL, "stem": (32, 64)}
_COMPACT3 = {**_SMALL, "stem": (32, 64, 128)}
VARIANTS: dict[str, dict[str, Any]] = {
    "nano": dict(width=64, depth=4, num_heads=4, mlp_dim=256, **_SMALL),
    "micro": dict(width=96, depth=6, num_heads=6, mlp_dim=384, **_SMALL),
    "compact": dict(width=96, depth=2, num_heads=3, mlp_dim=384, **_COMPACT),
    "compact3": dict(width=96, depth=2, num_heads=3, mlp_dim=384, **_COMPACT3),
    "Ti": {"width": 192, "depth": 12, "num_heads": 3, "mlp_dim": 768},
    "S": {"width": 384, "depth": 12, "num_heads": 6, "mlp_dim": 1536},
    "B": {"width": 768, "depth": 12, "num_heads": 12, "mlp_dim": 3072},
    "L": {"width": 1024, "depth": 24, "num_heads": 16, "mlp_dim": 4096},
    "H": {"width": 1280, "depth": 32, "num_heads": 16, "mlp_dim": 5120},
    "g": {
        "width": 1536,
        "depth": 40,
        "num_heads": 24,
        "mlp_dim": 4096,
        "activation": "swiglu",
        "layer_scale": 1e-5,
    },
}
