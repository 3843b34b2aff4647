"""The trivial localizer of bccd_wbc: the mean box of the training images, as the answer for every test image.

The TFDS folder `bccd_wbc` must be in the data directory.

./launch.sh bench mean_box
"""

import numpy as np

from percept_jax.data import registry
from percept_jax.tasks import boxes
from percept_jax.training.run_dir import data_path

if __name__ == "__main__":
    spec = registry.describe("bccd_wbc", data_path("")).select()
    truth = registry.load("bccd_wbc", data_path(""), spec, (96, 128)).examples["boxes"][:, 0]
    train, test = (truth[spec.roles[role]] for role in ("train", "test"))
    overlaps = np.asarray(boxes.iou(np.broadcast_to(train.mean(0), test.shape), test))
    found = (overlaps >= 0.5).mean()
    print(f"mean box of {len(train)} images: IoU {overlaps.mean():.4f}, at least 0.5 on {found:.4f} of {len(test)}")
