"""The progress of a build as a bar: the library names its phases and counts their steps."""

from types import TracebackType
from typing import Any

from tqdm import tqdm


class BuildProgress:
    """A context in which a library's builder reports to a bar.

    Args:
        module: tensorrt or tensorrt_rtx.
        title: What stands before the bar.
    """

    def __init__(self, module: Any, title: str):
        self._bar = tqdm(total=0, desc=title, unit="step", disable=None, leave=False)
        self._module = module

    def __enter__(self) -> Any:
        return _monitor(self._module, self._bar)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()


def _monitor(module: Any, bar: "tqdm[Any]") -> Any:
    """An object of the library's own kind; it calls from threads of its own."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]  # the module is found late
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            bar.total = (bar.total or 0) + steps
            bar.set_postfix_str(name)

        def step_complete(self, name: str, step: int) -> bool:
            bar.update()
            return True  # False would end the build

        def phase_finish(self, name: str) -> None:
            bar.refresh()

    return Monitor()
