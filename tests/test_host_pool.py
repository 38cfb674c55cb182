"""The runners of a graph that are free: each call in flight has its own."""

import threading

from picme_rt.backends import host
from picme_rt.turns import Turns


def test_a_stream_that_is_collected_while_a_runner_is_made_gives_its_own_back():
    """Python collects given up generators in whatever thread allocates, here in `make`."""
    made = []

    def make():
        if made:
            pool.give(made[0])
        made.append(object())
        return made[-1]

    pool = host.Pool("decoder", make, Turns(1))
    first = pool.take()
    thread = threading.Thread(target=pool.take, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert pool.take() is first


def test_runners_of_many_calls_at_once_are_not_kept_for_ever():
    pool = host.Pool("decoder", object, Turns(1))
    taken = [pool.take() for _ in range(40)]
    for runner in taken:
        pool.give(runner)
    kept = {id(pool.take()) for _ in range(40)} & {id(runner) for runner in taken}
    assert len(kept) == 16
