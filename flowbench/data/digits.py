"""scikit-learn's 1797 handwritten digits, 8x8, with a fixed split."""

import numpy as np

from flowbench.data.base import Arrays

HELD_OUT = 600


def digits(root=None) -> Arrays:
    """1197 training and 600 held-out digits as uint8 (N, 1, 8, 8) with labels 0..9.

    The 17 grey levels 0..16 of the original become the nearest of 0..255.
    """
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    images = np.rint(x * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    order = np.random.Generator(np.random.Philox(key=0)).permutation(len(images))
    images, labels = images[order], y[order].astype(np.int64)
    return Arrays(
        train=images[HELD_OUT:],
        labels=labels[HELD_OUT:],
        test=images[:HELD_OUT],
        test_labels=labels[:HELD_OUT],
        classes=10,
        classifier="digits",
    )
