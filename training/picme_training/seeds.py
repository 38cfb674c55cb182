"""One number for a random generator, of a seed and what else tells its draws apart."""

_STEP = 0x9E3779B9  # 2^32 by the golden ratio: multiples of it lie far from each other


def word(seed: int, place: int, places: int = 1 << 32) -> int:
    """A number below 2^32 of a seed and a place of it.

    torch's generator on a CPU takes 32 bits of what it is seeded with: of `seed * places + place`
    it would see no seed at all where `places` is 2^32. What goes beyond them is mixed in here.

    Args:
        seed: 0 to 2^32 - 1.
        place: Which of its generators, such as the step of a run; below `places`.
        places: How many a seed has.
    """
    number = seed * places + place
    return (number + (number >> 32) * _STEP) % (1 << 32)
