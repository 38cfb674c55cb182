import numpy as np
import numpy.typing as npt

built_for: str

def sample_gmm(
    log_alpha: npt.NDArray[np.float32],
    mu: npt.NDArray[np.float32],
    log_sigma: npt.NDArray[np.float32],
    seeds: npt.NDArray[np.uint64],
    *,
    k: int,
    first: int,
    mode: str,
    primitive: int | None,
    temperature: float,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], npt.NDArray[np.float32]]: ...
