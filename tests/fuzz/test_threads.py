"""Eight threads on one session: no wrong, lost or mixed result."""

import pytest
import threads
from cpu_backends import EVERY

import picme_rt


@pytest.mark.parametrize(("backend", "precision"), EVERY)
def test_eight_threads_get_what_a_lone_caller_gets(engine, backend, precision):
    with picme_rt.Session(engine, backend=backend, precision=precision) as session:
        counts, findings = threads.load(session, 8, lambda calls: calls < 15)
    assert findings == []
    assert sum(counts.values()) == 8 * 15


def test_a_session_closed_under_load_is_one_error_a_thread(engine):
    session = picme_rt.Session(engine)

    def more(calls):
        if calls == 5:
            session.close()
        return calls < 50

    _, findings = threads.load(session, 4, more)
    assert findings
    assert all("ClosedError" in one for one in findings)


def test_a_mixed_result_is_found(session, monkeypatch):
    original = picme_rt.Session.complete
    calls = iter(range(10**6))

    def mixed(self, img, mask, **options):
        done = original(self, img, mask, **options)
        if next(calls) > threads.REQUESTS:  # those that ask alone
            done.images[-1, 0, 0] ^= 1
        return done

    monkeypatch.setattr(picme_rt.Session, "complete", mixed)
    _, findings = threads.load(session, 2, lambda calls: calls < 40)
    assert findings
