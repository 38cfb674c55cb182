"""The devices that share the pictures of a folder."""

from picme_rt import devices
from picme_rt.errors import InputError

ALL = "all"


def read(text: str) -> list[str]:
    """The names in `--device`: one, several with commas between them, or `all` GPUs.

    The names themselves are judged by `picme_rt.Session`.

    Raises:
        InputError: A name is empty or comes twice.
        UnavailableError: `all`, and there is no driver or no GPU.
    """
    if text == ALL:
        return [f"cuda:{i}" for i in range(devices.gpus(ALL))]
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise InputError(
            f"device must be one name, different ones with commas between or {ALL}, got {text!r}"
        )
    return names
