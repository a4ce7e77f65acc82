"""What runs remember is the same however much of it is kept in memory, and is read once."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowctl.engine import memos
from flowctl.engine import statements as sql
from flowctl.engine.memos import Memo, Memos
from flowctl.engine.store import Store


def end_step(store: Store, run_id: str, step_id: str, data: object) -> None:
    store.db.execute(sql.PUT_STEP, (run_id, step_id, orjson.dumps(data), step_id, 1, 0))


def shown(memo: Memo) -> tuple[dict[str, object], list[str]]:
    return orjson.loads(b"{%b}" % memo.members), orjson.loads(b"[%b]" % memo.ids)


@pytest.fixture
def store():
    store = Store(None)
    yield store
    store.close()


runs = st.sampled_from(["run-1", "run-2", "run-3"])


@given(
    st.lists(st.tuples(runs, st.text(max_size=5), st.integers(0, 9), st.booleans())), st.integers(0, 2_000)
)
def test_whatever_is_kept_a_run_remembers_all_its_steps_in_order_of_their_ends(ends, bound):
    store, ended = Store(None), dict[str, dict[str, int]]()
    some = Memos(store, bound)
    for run_id, step_id, data, is_called in ends:
        end_step(store, run_id, step_id, data)
        ended.setdefault(run_id, {}).setdefault(step_id, data)
        if is_called:
            memo = some.of(run_id)
            assert shown(memo) == (ended[run_id], list(ended[run_id]))
            assert (memo.count, memo) == (len(ended[run_id]), Memos(store).of(run_id))
    store.close()


def test_a_step_is_read_once_however_often_its_run_is_called(store):
    kept = Memos(store)
    end_step(store, "run", "first", 1)
    kept.of("run")
    store.db.execute("UPDATE steps SET body = 'not read again'")
    end_step(store, "run", "second", 2)
    assert shown(kept.of("run")) == ({"first": 1, "second": 2}, ["first", "second"])


def test_steps_that_are_too_large_for_a_request_are_counted_and_not_kept(store, monkeypatch):
    monkeypatch.setattr(memos, "MAX_ENCODED_BYTES", 10)
    kept = Memos(store)
    for number in range(3):
        end_step(store, "run", str(number), "x" * 4)
        memo = kept.of("run")
    assert (memo.count, memo.size, memo.members, memo.ids) == (3, 18, b"", b'"0","1","2"')


def test_however_many_runs_are_called_few_enough_of_them_are_kept(store):
    kept, ids = Memos(store, bound=10_000), [f"run-{number}" for number in range(100)]
    for run_id in ids:
        end_step(store, run_id, "step", 1)
        kept.of(run_id)
    store.db.execute("UPDATE steps SET body = x'32'")  # what is read anew
    known = sum(shown(kept.of(run_id))[0] == {"step": 1} for run_id in reversed(ids))
    assert 0 < known <= 10_000 // memos.OVERHEAD_BYTES
