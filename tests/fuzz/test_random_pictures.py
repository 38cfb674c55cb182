"""A few hundred of the cases of `make fuzz`, on each framing."""

import pictures
import pytest

import picme_rt


@pytest.mark.parametrize("first", range(0, 300, 50))
def test_random_pictures_and_masks_are_completed_or_refused(session, first):
    for i in range(first, first + 50):
        pictures.check(session, 1, i)


def test_an_engine_of_free_framing_does_so_too(free_engine):
    with picme_rt.Session(free_engine) as session:
        for i in range(100):
            pictures.check(session, 2, i)


def test_a_case_follows_from_its_number():
    for i in range(20):
        one, other = pictures.make(3, i), pictures.make(3, i)
        assert (one.hole == other.hole).all()
        assert (one.pixels == other.pixels).all()
        assert (one.options, one.wrong) == (other.options, other.wrong)


def test_a_changed_known_pixel_is_found(session, monkeypatch):
    def damaged(*arguments):
        found = original(*arguments)
        found[..., 0] ^= 1
        return found

    original = pictures._run
    monkeypatch.setattr(pictures, "_run", damaged)
    case = next(i for i in range(100) if not pictures.make(4, i).wrong and holes(4, i))
    with pytest.raises(AssertionError, match="known pixels differ"):
        pictures.check(session, 4, case)


def holes(seed, i):
    hole = pictures.make(seed, i).hole
    return hole.any() and not hole.all()


def killed(engine, seed, numbers, sender):
    """A child that dies after two cases of each try."""
    for _ in range(2):
        sender.send(("completed", ""))
    sender.close()


def test_a_child_that_dies_is_a_crash_and_the_next_goes_on(monkeypatch, engine):
    monkeypatch.setattr(pictures, "work", killed)
    counts, findings = pictures.run(engine, 0, 7)
    assert counts == {"completed": 5, "crash": 2}
    assert [one["case"] for one in findings] == [2, 5]
