"""Six completions of a real photograph, and what is known about each.

python examples/complete.py [OUT]
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

import picme_rt

out = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
out.mkdir(parents=True, exist_ok=True)

img = data.chelsea()  # (300, 451, 3) uint8
mask = np.zeros(img.shape[:2], bool)
mask[90:190, 150:270] = True  # True, or anything that is not zero, is the hole

with picme_rt.Session("engines/cats256") as session:
    done = session.complete(img, mask, k=6, seed=0)

for i, picture in enumerate(done.images):
    Image.fromarray(picture).save(out / f"completed_{i}.png")
    print(f"{i}: primitive {done.primitives[i]}, log q(z) {done.log_prob[i]:.1f} nats")
assert (done.images[:, ~mask] == img[~mask]).all()  # known pixels come back to the bit
