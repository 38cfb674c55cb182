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

_Floats = npt.NDArray[np.float32]
_Map = npt.NDArray[np.generic]  # float32, or bfloat16 as uint16
_Norm = tuple[_Floats, _Floats, _Floats]  # share, gamma, beta

def norm_forward(
    a: _Map,
    norm: _Norm,
    mean: _Floats,
    inverse: _Floats,
    y: _Map,
    *,
    slope: float,
    threads: int,
    lanes: str = "",
) -> None: ...
def norm_back(
    a: _Map,
    norm: _Norm,
    mean: _Floats,
    inverse: _Floats,
    gradient: _Map,
    total: _Floats,
    along: _Floats,
    out: _Map,
    pull: _Map | None = None,
    *,
    slope: float,
    threads: int,
    lanes: str = "",
) -> None: ...
def norm_tangent(
    a: _Map,
    norm: _Norm,
    mean: _Floats,
    inverse: _Floats,
    gradient: _Map,
    total: _Floats,
    along: _Floats,
    out: _Map,
    u: _Map,
    pull: _Map,
    of_gamma: _Floats,
    *,
    slope: float,
    threads: int,
    lanes: str = "",
) -> None: ...
