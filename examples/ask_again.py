"""Encode once and ask as often as wanted: the next six, one primitive alone, a stream.

python examples/ask_again.py
"""

import numpy as np
from skimage import data

import picme_rt

img = data.chelsea()
mask = np.zeros(img.shape[:2], bool)
mask[90:190, 150:270] = True

with picme_rt.Session("engines/cats256") as session:
    print(f"{session.info.name}: {session.info.backend} on {session.info.device}")
    encoded = session.encode(img, mask)
    six = encoded.complete(k=6)
    more = encoded.complete(k=6, first=6)  # results 6 to 11 of the same seed
    print("results", *six.indices, *more.indices)

    each = encoded.complete(k=session.info.primitives, mode="per_primitive")
    print("one of each primitive:", *each.primitives)
    close = encoded.complete(k=3, primitive=int(each.primitives[0]), temperature=0.5)
    print("three like the first:", close.images.shape)

    for one in encoded.stream(k=100):  # flat memory, the first result at once
        if one.log_prob > np.median(six.log_prob):
            print(f"result {one.index} is likelier than half of the first six")
            break
