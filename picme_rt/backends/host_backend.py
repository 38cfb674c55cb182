"""`Backend` over two graphs, which take and give arrays of the host."""

from collections.abc import Callable, Generator, Sequence

from picme_rt.backends import Take
from picme_rt.backends.host import BoxRunner, Pool, Runner
from picme_rt.backends.meeting import Runners
from picme_rt.backends.side_by_side import SideBySide, one_by_one
from picme_rt.choices import Settings
from picme_rt.errors import ClosedError
from picme_rt.framing import Box
from picme_rt.images import Float
from picme_rt.turns import Turns
from picme_rt.windows import Windows


class HostBackend:
    """`Backend` over two graphs.

    Args:
        settings: How they were opened.
        variant: The engine's variant whose files they are.
        turns: Who may run; both graphs share them.
        encoder: Runners of batch 1.
        decoder: Runners of `settings.micro_batch` latents.
        windows: Those that the decoder makes a box from; None where it takes none.
    """

    def __init__(
        self,
        settings: Settings,
        variant: str,
        turns: Turns,
        *,
        encoder: Callable[[], Runner],
        decoder: Runners,
        windows: Callable[[Box], Windows] | None,
    ):
        self.name, self.precision, self.variant = settings.backend, settings.precision, variant
        self.threads, self.micro_batch = settings.threads, settings.micro_batch
        self.device = settings.device

        def boxed(runner: Runner) -> Runner:
            return BoxRunner(runner, windows) if windows else runner

        self._encoder = Pool("encoder", encoder, turns)
        self._decoder = Pool("decoder", lambda: boxed(decoder.make()), turns)
        meeting = decoder.meeting
        self._beside = None if meeting is None else SideBySide(meeting, boxed, self._decoder)

    def prepare(self) -> None:
        """Does now what a session comes to in use: its next results may go side by side."""
        if self._beside is not None:
            self._beside.prepare()

    def encode(self, image: Float, hole: Float) -> dict[str, Float]:
        """See `Backend.encode`; the arrays are the caller's."""
        runner = self._encoder.take()
        try:
            runner.inputs["image"][:] = image
            runner.inputs["hole"][:] = hole
            self._encoder.run(runner)
            return {name: values.copy() for name, values in runner.outputs.items()}
        finally:
            self._encoder.give(runner)

    def decoding(self, encoded: dict[str, Float], box: Box | None = None) -> "_Decoding":
        """See `Backend.decoding`: in buffers that an earlier call gave back, if any."""
        runner = self._decoder.take()
        for name, buffer in runner.inputs.items():
            if name in encoded:
                buffer[:] = encoded[name]  # into every place of the micro-batch
        size = runner.outputs["picture"].shape[-1]
        asked = Box(0, 0, size, size)
        if isinstance(runner, BoxRunner):
            asked = asked if box is None else box
            runner.aim(asked)
        return _Decoding(self._decoder, runner, asked, self._beside)


class _Decoding:
    """See `Decoding`."""

    def __init__(self, pool: Pool, runner: Runner, box: Box, beside: SideBySide | None):
        self._pool, self._runner, self.box, self._beside = pool, runner, box, beside
        self._open = True

    def __call__(self, z: Float) -> Float:
        self._check_open()
        self._runner.inputs["z"][:] = z
        self._pool.run(self._runner)
        picture: Float = self._runner.outputs["picture"]
        return picture

    def each(self, latents: Sequence[Float], take: Take) -> Generator[None, None, None]:
        self._check_open()
        if self._beside is None:
            return one_by_one(self, latents, take)
        return self._beside.each(self, self._runner, self.box, latents, take)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._pool.give(self._runner)
            del self._runner

    def _check_open(self) -> None:
        if not self._open:
            raise ClosedError("this decoding was closed; encode the picture again")
