"""Results of a call that is alone, side by side: as many at a time as there are cores.

On all cores a run waits after every operation for its slowest thread; on a core each, results wait
for nobody. They run on the second compilation of the graph, that of calls that meet (meeting.py),
and the bits are those of one result after the other: the first of each size is made both ways, and
a graph of which one differs makes them one after the other for good.
"""

import contextlib
import queue
import weakref
from collections.abc import Callable, Generator, Sequence

from picme_rt.backends import Take
from picme_rt.backends.host import BoxRunner, Pool, Runner
from picme_rt.backends.meeting import Meeting, sizes
from picme_rt.framing import Box
from picme_rt.images import Float
from picme_rt.pipeline import GoOn, taking_part

Run = Callable[[Float], Float]
"""Latents of one run -> its pictures, kept until the next run."""


def one_by_one(
    run: Run, latents: Sequence[Float], take: Take, first: int = 0
) -> Generator[None, None, None]:
    """Runs latents `first` and on in the caller's thread; yields after each `take`."""
    for place in range(first, len(latents)):
        take(place, run(latents[place]))
        yield


class SideBySide:
    """The runs of one graph that go side by side.

    Args:
        meeting: The graph's second compilation.
        boxed: Makes a runner of a decoder what a call aims: one that makes a box, or the same.
        pool: Of the graph's runners.
    """

    def __init__(self, meeting: Meeting, boxed: Callable[[Runner], Runner], pool: Pool):
        self._meeting, self._boxed, self._pool = meeting, boxed, pool
        self._lanes: weakref.WeakKeyDictionary[Runner, list[Runner]] = weakref.WeakKeyDictionary()
        self.prepare = meeting.prepare

    def each(
        self, run: Run, runner: Runner, box: Box, latents: Sequence[Float], take: Take
    ) -> Generator[None, None, None]:
        """Runs latents, several at a time where that pays; yields after each, in their order.

        The iterator must be closed: until then some of the runs may still be at work.

        Args:
            run: Runs `runner`.
            runner: Of all threads, aimed and filled; the others read its inputs too.
            box: What it is aimed at.
            latents: Of each run.
            take: Gets each run's pictures; for a place more than once, where bits differed.
        """
        done, lanes = 0, self._lanes.pop(runner, [])  # an error, or Ctrl-C, may leave one at work
        maker = self._meeting.for_results(len(latents))
        if maker is not None:
            for _ in range(self._meeting.cores - len(lanes)):
                lanes.append(self._boxed(self._meeting.beside(maker, runner.inputs)))
            for lane in lanes:
                if isinstance(lane, BoxRunner):
                    lane.aim(box)
            done = yield from self._side_by_side(run, runner, lanes, latents, take)
        if not self._meeting.differs:
            self._lanes[runner] = lanes
        yield from one_by_one(run, latents, take, done)

    def _side_by_side(
        self,
        run: Run,
        runner: Runner,
        lanes: list[Runner],
        latents: Sequence[Float],
        take: Take,
    ) -> Generator[None, None, int]:
        """Runs as many as fill the cores; gives the place from which on all cores do the rest."""
        key = sizes(_graph(runner))
        known = key in self._meeting.equal
        if not known:  # the first both ways: here, and as the first item below
            take(0, run(latents[0]))
            want = _graph(runner).outputs["picture"].tobytes()
            yield
        free: queue.SimpleQueue[Runner] = queue.SimpleQueue()
        for lane in lanes:
            free.put(lane)

        def work(place: int, go_on: GoOn) -> bool:
            lane = free.get()
            try:
                lane.inputs["z"][:] = latents[place]
                self._pool.run(lane)
                if place == 0 and not known:
                    return bool(_graph(lane).outputs["picture"].tobytes() == want)
                take(place, lane.outputs["picture"])
                return True
            finally:
                free.put(lane)

        # of those that are left over, fewer than there are cores, each had better have all of them
        places = range(len(latents) - len(latents) % len(lanes))
        with contextlib.closing(taking_part(work, places, at_once=len(lanes))) as outcomes:
            for place, right in enumerate(outcomes):
                if not right:
                    self._meeting.stop()
                    return 1
                self._meeting.equal.add(key)
                if place > 0 or known:
                    yield
        return len(places)


def _graph(runner: Runner) -> Runner:
    """What runs the graph itself: a box is a part of what it makes."""
    return runner.graph if isinstance(runner, BoxRunner) else runner
