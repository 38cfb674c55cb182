"""Work on several items at once: from outside it is a loop, and it leaves no thread behind."""

import contextlib
import signal
import threading

import pytest
from own_process import in_own_process

from picme_rt.pipeline import in_order, taking_part

BOTH = pytest.mark.parametrize("loop", [in_order, taking_part])
LONG = 30  # seconds after which a test that waits has failed


def ours():
    return [thread for thread in threading.enumerate() if thread.name == "picme_rt"]


def collect(outcomes):
    """What came before the error, and the error."""
    found = []
    try:
        found.extend(outcomes)
    except ArithmeticError as exc:
        return found, str(exc)
    return found, None


@BOTH
@pytest.mark.parametrize("at_once", [1, 2, 7])
def test_outcomes_come_in_the_order_of_the_items(loop, at_once):
    items = list(range(40))
    assert list(loop(lambda item, go_on: item * item, items, at_once=at_once)) == [
        item * item for item in items
    ]
    assert ours() == []


@BOTH
@pytest.mark.parametrize("items", [[], [5]])
def test_few_items_need_no_thread(loop, items):
    def work(item, go_on):
        go_on()
        return item, threading.current_thread()

    assert list(loop(work, items, at_once=4)) == [(i, threading.main_thread()) for i in items]


@BOTH
def test_so_many_are_in_work_at_once_and_no_more(loop):
    together, lock, inside, most = threading.Barrier(3), threading.Lock(), 0, 0

    def work(item, go_on):
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        together.wait(LONG)  # breaks, and fails the test, unless three are in work
        with lock:
            inside -= 1

    assert len(list(loop(work, range(12), at_once=3))) == 12
    assert most == 3


def test_an_item_that_takes_long_holds_up_nothing_but_its_turn():
    others = threading.Barrier(2)
    done = []

    def work(item, go_on):
        if item == 0:
            others.wait(LONG)  # until the last item is done
        done.append(item)
        if item == 9:
            others.wait(LONG)
        return item

    assert list(in_order(work, range(10), at_once=2)) == list(range(10))
    assert done[-1] == 0


@BOTH
@pytest.mark.parametrize("at_once", [1, 3])
def test_an_error_comes_after_the_outcomes_before_it_as_in_a_loop(loop, at_once):
    def work(item, go_on):
        if item in (4, 6):
            raise ArithmeticError(str(item))
        return item

    for _ in range(20):
        assert collect(loop(work, range(30), at_once=at_once)) == ([0, 1, 2, 3], "4")
    assert ours() == []


def test_what_is_before_an_error_ends_well_and_what_is_after_it_ends_early():
    failed, after = threading.Event(), threading.Event()
    ended, begun = [], []

    def work(item, go_on):
        begun.append(item)
        if item == 1:
            assert after.wait(LONG)
            failed.set()
            raise ArithmeticError("1")
        if item == 2:
            after.set()
        assert failed.wait(LONG)
        while item == 2:
            go_on()  # raises as soon as the error is known
        go_on()
        ended.append(item)
        return item

    assert collect(in_order(work, range(50), at_once=3)) == ([0], "1")
    assert ended == [0]
    assert sorted(begun) == [0, 1, 2]
    assert ours() == []


@BOTH
def test_of_two_errors_the_first_items_is_raised_though_it_came_later(loop):
    second = threading.Event()

    def work(item, go_on):
        if item == 0:
            assert second.wait(LONG)
            raise ArithmeticError("the first")
        second.set()
        raise ArithmeticError("the second")

    assert collect(loop(work, range(2), at_once=2)) == ([], "the first")


@BOTH
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_errors_of_every_kind_come_through(loop, error):
    def work(item, go_on):
        raise error

    with pytest.raises(error):
        next(loop(work, range(2), at_once=2))


def test_closing_ends_all_work_and_waits_for_it():
    ended = []

    def work(item, go_on):
        if item < 2:
            return item
        try:
            while True:
                go_on()
        finally:
            ended.append(item)

    outcomes = in_order(work, range(1000), at_once=3)
    assert [next(outcomes), next(outcomes)] == [0, 1]
    assert len(ours()) == 3
    outcomes.close()
    assert ours() == []
    assert set(ended) <= {2, 3, 4}


def test_who_takes_part_works_in_its_own_thread_and_one_more():
    together = threading.Barrier(2)

    def work(item, go_on):
        together.wait(LONG)
        return threading.current_thread()

    threads = set(taking_part(work, range(8), at_once=2))
    assert len(threads) == 2
    assert threading.main_thread() in threads


def test_closing_ends_the_work_of_the_other_thread():
    def work(item, go_on):
        while item > 0 and threading.current_thread() is not threading.main_thread():
            go_on()
        return item

    outcomes = taking_part(work, range(1000), at_once=2)
    assert next(outcomes) == 0
    outcomes.close()
    assert ours() == []


@in_own_process
def test_ctrl_c_while_it_waits_ends_all_work():
    both = threading.Barrier(3)

    def work(item, go_on):
        both.wait(LONG)
        while True:
            go_on()

    def interrupt():
        both.wait(LONG)  # both threads work
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    helper = threading.Thread(target=interrupt)
    helper.start()
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            contextlib.closing(in_order(work, range(9), at_once=2)) as outcomes,
        ):
            next(outcomes)
    finally:
        helper.join()
        signal.signal(signal.SIGINT, before)
    assert ours() == []
