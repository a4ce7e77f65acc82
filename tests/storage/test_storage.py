"""The contract of Storage, for every kind of database."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson

from flowctl.events import run_canceled
from flowctl.snapshot import RunError, StepResult
from flowctl.storage.base import Acting, Commit, Dispatch, Inside, Lease, RecordWrite, TakeUp, Turn
from tests.storage.databases import begun, claim, commit, create, snapshot


async def test_a_run_is_created_once(storage) -> None:
    first = await create(storage, input={"value": 5})
    again = await create(storage, input="another")
    assert (first.status, first.snapshot.input, first.leg) == ("pending", {"value": 5}, 0)
    assert again == first
    assert await storage.get_run("w", "unknown") is None


async def test_a_claim_moves_a_run_from_an_expected_status_only(storage) -> None:
    await create(storage)
    assert await claim(storage, expected=["suspended"]) is None
    assert await claim(storage) == 1
    assert await claim(storage) is None
    await commit(storage, status="suspended")
    assert await claim(storage, expected=["suspended", "failed"]) == 2
    assert (await storage.get_run("w", "r")).status == "running"


async def test_a_claim_may_replace_the_records(storage) -> None:
    await begun(storage)
    await commit(storage, one=1, two=2, status="success")
    assert await claim(storage, expected=["success"], records={"one": StepResult("success", output=9)}) == 2
    stored = await storage.get_run("w", "r")
    assert {key: record.output for key, record in stored.snapshot.records.items()} == {"one": 9}


async def test_a_claim_may_ask_for_the_newest_leg(storage) -> None:
    await begun(storage)
    assert await claim(storage, expected=["running"], leg=2) is None
    assert await claim(storage, expected=["running"], leg=1) == 2
    assert await claim(storage, expected=["running"], leg=1) is None
    assert await storage.get_status("w", "r") == ("running", 2)
    assert await storage.get_status("w", "unknown") is None


async def test_a_run_can_be_read_with_the_records_that_its_leg_began_with(storage) -> None:
    await begun(storage)
    await commit(storage, kept="before", changed="before")
    await claim(storage, expected=["running"])
    await commit(storage, leg=2, changed="after", new="after")
    await commit(storage, leg=2, changed="later")
    earlier = await storage.get_earlier_run("w", "r")
    assert {key: record.output for key, record in earlier.snapshot.records.items()} == {
        "kept": "before",
        "changed": "before",
    }
    assert await storage.get_earlier_run("w", "unknown") is None


async def test_a_run_can_be_read_with_the_header_that_its_leg_began_with(storage) -> None:
    await begun(storage)
    before, after = snapshot(state={"at": 1}, positions={"": 1}), snapshot(state={"at": 2}, positions={"": 2})
    await claim(storage, expected=["running"], snapshot=before)
    await storage.commit(Commit("w", "r", 2, 2, after))
    earlier, now = await storage.get_earlier_run("w", "r"), await storage.get_run("w", "r")
    assert (earlier.snapshot.state, earlier.snapshot.positions) == ({"at": 1}, {"": 1})
    assert (now.snapshot.state, now.snapshot.positions) == ({"at": 2}, {"": 2})


async def test_records_that_a_leg_began_with_leave_out_those_below_what_has_succeeded(storage) -> None:
    await begun(storage)
    running = RecordWrite(StepResult("running"))
    await storage.commit(Commit("w", "r", 1, 2, snapshot(), {"each[0]": running, "each[1]": running}))
    await commit(storage, **{"each[0]/a": 1, "each[0]/a/b": 1, "each[1]/a": 1, "each[0]": 1})
    await claim(storage, expected=["running"])
    earlier = await storage.get_earlier_run("w", "r")
    assert list(earlier.snapshot.records) == ["each[0]", "each[1]", "each[1]/a"]
    assert len((await storage.get_run("w", "r")).snapshot.records) == 5


async def test_a_commit_may_forget_the_records_below_another(storage) -> None:
    await begun(storage)
    running = RecordWrite(StepResult("running"))
    await storage.commit(Commit("w", "r", 1, 2, snapshot(), {"outer": running}))
    await commit(storage, **{"outer/inner": 1, "outer_/other": 1})
    await claim(storage, expected=["running"])
    forgetting = {"outer": running, "outer/": None}
    await storage.commit(Commit("w", "r", 2, 3, snapshot(), forgetting))
    assert list((await storage.get_run("w", "r")).snapshot.records) == ["outer", "outer_/other"]
    assert "outer/inner" in (await storage.get_earlier_run("w", "r")).snapshot.records
    await commit(storage, leg=2, **{"outer/inner": 2})
    assert (await storage.get_run("w", "r")).snapshot.records["outer/inner"].output == 2
    assert (await storage.get_earlier_run("w", "r")).snapshot.records["outer/inner"].output == 1


async def test_the_records_that_a_claim_gives_are_those_its_leg_begins_with(storage) -> None:
    await begun(storage)
    await commit(storage, one=1, status="success")
    await claim(storage, expected=["success"], records={"one": StepResult("success", output=9)})
    assert (await storage.get_earlier_run("w", "r")).snapshot.records["one"].output == 9


async def test_a_commit_writes_records_in_their_order_and_the_header(storage) -> None:
    await begun(storage)
    header = snapshot(state={"seen": 1}, positions={"": 2}, step_execution_path=["b", "a"])
    assert await commit(storage, b="B", snapshot=header)
    assert await commit(storage, a="A", snapshot=header)
    assert await commit(storage, b="B2", snapshot=header, now=77)
    stored = await storage.get_run("w", "r")
    assert [(k, r.output) for k, r in stored.snapshot.records.items()] == [("b", "B2"), ("a", "A")]
    assert (stored.snapshot.state, stored.snapshot.positions) == ({"seen": 1}, {"": 2})
    assert stored.updated_at == "1970-01-01T00:00:00.077Z"


async def test_input_and_graph_last_through_commits(storage) -> None:
    given = snapshot(input={"value": 5}, serialized_step_graph=[{"type": "step"}])
    await create(storage)
    await claim(storage, snapshot=given)
    await commit(storage, one=1)
    stored = (await storage.get_run("w", "r")).snapshot
    assert (stored.input, stored.serialized_step_graph) == ({"value": 5}, [{"type": "step"}])


async def test_a_commit_of_an_older_leg_or_of_an_ended_run_is_refused(storage) -> None:
    await begun(storage)
    assert not await commit(storage, leg=0, one=1, events=["never"])
    assert await commit(storage, status="success", now=5)
    assert not await commit(storage, two=2, events=["never"])
    assert (await storage.get_run("w", "r")).snapshot.records == {}
    assert await storage.read_events("w", "r") == []


async def test_an_operation_may_be_committed_twice(storage) -> None:
    await begun(storage)
    for _ in range(2):
        assert await commit(storage, one=1, events=["started", "ended"])
    events = await storage.read_events("w", "r")
    assert [event.type for _, event in events] == ["started", "ended"]


async def test_a_finished_operation_is_remembered_with_its_memo(storage) -> None:
    await begun(storage)
    await commit(storage, one={"x": 1})
    assert await storage.finished_memo("w", "r", leg=1, key="one", op="op.one") == {"memo": {"x": 1}}
    assert await storage.finished_memo("w", "r", leg=2, key="one", op="op.one") is None
    assert await storage.finished_memo("w", "r", leg=1, key="two", op="op.two") is None


async def test_memos_that_are_remembered_late_are_kept_with_the_record_that_others_write(storage) -> None:
    await begun(storage)
    late = {"op.1": {"record": 1}, "op.2": {"record": 2}}
    for write in (
        RecordWrite(StepResult("running"), late=late),
        RecordWrite(StepResult("success"), "op.3", {"record": 3}, late),
    ):
        assert await storage.commit(Commit("w", "r", 1, 4, snapshot(), {"loop": write}))
        known = [await storage.finished_memo("w", "r", leg=1, key="loop", op=f"op.{n}") for n in (1, 2, 3)]
        assert known == [*late.values(), write.memo]
    await storage.commit(Commit("w", "r", 1, 5, snapshot(), {"loop": None}))
    assert await storage.finished_memo("w", "r", leg=1, key="loop", op="op.1") is None


async def test_a_part_of_a_run_keeps_its_changes_with_its_record_and_leaves_the_header_alone(storage) -> None:
    await begun(storage)
    await commit(storage, inner={"x": 1}, snapshot=snapshot(state={"n": 1}))
    inside = Inside("inner", "op.inside", {"state": {"n": 2}})
    assert await storage.commit(
        Commit("w", "r", 1, 4, inside, {"inner/a": RecordWrite(StepResult("running"))})
    )
    run = await storage.get_run("w", "r")
    assert (run.state, sorted(run.snapshot.records)) == ({"n": 1}, ["inner", "inner/a"])
    assert run.snapshot.records["inner"].output == {"x": 1}
    sleeping = Inside("inner", "op.inside", inside.memo, "waiting")
    assert await storage.commit(Commit("w", "r", 1, 4, sleeping, {}))
    assert await storage.get_status("w", "r") == ("waiting", 1)
    assert (await storage.list_runs("w", status="waiting")).total == 1
    await commit(storage, status="suspended")
    assert await claim(storage, expected=["suspended"]) == 2
    assert not await storage.commit(Commit("w", "r", 1, 5, inside, {}))
    assert await storage.finished_memo("w", "r", leg=2, key="inner", op="op.inside") is None
    assert await storage.finished_memo("w", "r", leg=None, key="inner", op="op.inside") == inside.memo


async def test_a_part_of_a_run_whose_record_is_gone_writes_nothing(storage) -> None:
    await begun(storage)
    before = await storage.get_run("w", "r")
    gone = Inside("inner", "op.inside", {"state": {"n": 2}})
    assert not await storage.commit(Commit("w", "r", 1, 4, gone, {"x": RecordWrite(StepResult("running"))}))
    assert await storage.get_run("w", "r") == before


async def test_of_executions_the_one_that_took_a_run_up_last_commits_to_it(storage) -> None:
    await begun(storage)
    for execution in ("old", "new"):
        await storage.take_up(TakeUp("w", "r", 1, execution))
        assert await commit(storage, execution=execution, one=execution, events=[execution])
    before = await storage.get_run("w", "r"), await storage.read_events("w", "r")
    for status in ("running", "waiting", "success"):
        assert not await commit(storage, execution="old", status=status, one="old", two="old", events=["x"])
    assert await claim(storage, expected=["running"], execution="old") is None
    assert (await storage.get_run("w", "r"), await storage.read_events("w", "r")) == before
    assert await claim(storage, expected=["running"], execution="new") == 2


async def test_a_take_up_holds_for_its_leg_and_not_for_who_has_no_name(storage) -> None:
    await begun(storage)
    await storage.take_up(TakeUp("w", "r", 1, "one"))
    assert await commit(storage, one=1)
    assert await claim(storage, expected=["running"]) == 2
    await storage.take_up(TakeUp("w", "r", 2, "two"))
    await storage.take_up(TakeUp("w", "r", 1, "one"))
    await storage.take_up(TakeUp("w", "unknown", 1, "one"))
    assert await commit(storage, leg=2, execution="two")


async def test_parts_of_a_run_are_taken_up_apart_from_it(storage) -> None:
    await begun(storage)
    await commit(storage, a=1, b=1)
    await storage.take_up(TakeUp("w", "r", 1, "run"))
    for taken in (TakeUp("w", "r", 1, "old", "a"), TakeUp("w", "r", 1, "new", "a")):
        await storage.take_up(taken)
    before = await storage.get_run("w", "r")

    async def inside(key: str, execution: str) -> bool:
        given = Inside(key, "op.inside", {"by": execution})
        records = {f"{key}/x": RecordWrite(StepResult("running"))}
        return await storage.commit(Commit("w", "r", 1, 9, given, records, execution=execution))

    assert not await inside("a", "old")
    assert not await inside("b", "new")
    assert await storage.get_run("w", "r") == before
    assert await inside("a", "new")
    assert await storage.finished_memo("w", "r", leg=1, key="a", op="op.inside") == {"by": "new"}
    assert await commit(storage, execution="run", a=2)


async def test_events_are_read_in_order_and_from_a_number_on(storage) -> None:
    await begun(storage)
    await commit(storage, events=["a", "b"])
    await commit(storage, events=["c"])
    seen = await storage.read_events("w", "r")
    assert [event.type for _, event in seen] == ["a", "b", "c"]
    later = await storage.read_events("w", "r", after=seen[1][0])
    assert [event.type for _, event in later] == ["c"]


async def test_cancel_ends_a_run_once_and_for_all(storage) -> None:
    await begun(storage)
    event = run_canceled("r")
    assert await storage.cancel("w", "r", event=event, now=9) is True
    assert await storage.cancel("w", "r", event=event, now=9) is False
    assert not await commit(storage, one=1)
    assert (await storage.get_run("w", "r")).status == "canceled"
    assert [e.type for _, e in await storage.read_events("w", "r")] == ["workflow-canceled"]


async def test_a_snapshot_is_loaded_as_it_was_saved(storage) -> None:
    given = snapshot(
        status="failed", input=[1], state={"a": 1}, request_context={"b": 2}, active_paths=[1],
        records={"s": StepResult("failed", payload=1, error=RunError("E", "no"), started_at=5)},
        error=RunError("E", "no", attributes={"status_code": 7}), timestamp=8,
    )  # fmt: skip
    await storage.save_snapshot("w", "r", given)
    assert await storage.load_snapshot("w", "r") == given.to_json()
    await storage.save_snapshot("w", "r", {"status": "suspended", "context": {"input": 2}})
    assert (await storage.load_snapshot("w", "r"))["context"] == {"input": 2}
    assert await storage.load_snapshot("w", "unknown") is None


async def test_text_and_numbers_come_back_as_they_were(storage) -> None:
    odd = {
        "": "\x00 \u2028 é 🙂 ' \" % ? {x}",
        "n": [2**53, -0.5, 1e300, None, True],
        "long": "x" * 1_000_000,
    }
    await create(storage, run_id="r ' %s ? é", input=odd)
    stored = await storage.get_run("w", "r ' %s ? é")
    assert stored.snapshot.input == odd


async def test_runs_are_listed_newest_first_by_page(storage) -> None:
    for number in range(7):
        await create(storage, f"r{number}", now=1_000 + number // 2)
    page = await storage.list_runs("w", page=1, per_page=3)
    assert ([run.run_id for run in page.runs], page.total) == (["r3", "r2", "r1"], 7)
    assert (await storage.list_runs("w", page=9, per_page=3)).runs == []
    assert len((await storage.list_runs("w")).runs) == 7


async def test_runs_are_filtered_by_workflow_status_resource_and_date(storage) -> None:
    await begun(storage, "old", now=1_000)
    await commit(storage, "old", one=1, status="success")
    given = snapshot("new", "pending")
    await storage.create_run("w", "new", resource_id="ada", snapshot=given, now=5_000)
    await create(storage, "other", workflow_id="v", now=9_000)

    async def ids(*args: str, **filters: object) -> list[str]:
        return [run.run_id for run in (await storage.list_runs(*args, **filters)).runs]

    moment = datetime.fromtimestamp(3, UTC)
    assert await ids() == ["other", "new", "old"]
    assert await ids("w", status="success") == ["old"]
    assert await ids(resource_id="ada") == ["new"]
    assert await ids(from_date=moment, to_date=datetime.fromtimestamp(6, UTC)) == ["new"]
    assert await ids("w", to_date=moment) == ["old"]
    assert (await storage.list_runs("w", status="success")).runs[0].steps["one"].output == 1


async def test_runs_are_listed_as_json_just_as_their_objects_show_them(storage) -> None:
    error = RunError("ValueError", "no", stack="Traceback …")
    await begun(storage, "failed")
    failed = {"one": RecordWrite(StepResult("failed", error=error))}
    await storage.commit(Commit("w", "failed", 1, 3, snapshot("failed", "failed", error=error), failed))
    await begun(storage, "running", input={"n": 1})
    running = {"a": StepResult("running"), "b[0]": StepResult("running")}
    held = snapshot("running", records=running, active_paths=[1])
    await storage.commit(Commit("w", "running", 1, 3, held, {k: RecordWrite(r) for k, r in running.items()}))
    await create(storage, "pending")
    runs, total = await storage.list_runs_json("w")
    assert orjson.loads(orjson.dumps(runs)) == [run.to_json() for run in (await storage.list_runs("w")).runs]
    assert (total, "Traceback" in orjson.dumps(runs).decode()) == (3, False)


async def test_pages_tell_how_many_runs_there_are_in_all(storage) -> None:
    for number in range(5):
        await create(storage, f"r{number}", now=number)

    async def page(limit: int | None, offset: int) -> tuple[list[str], int]:
        runs, total = await storage.list_runs_json("w", limit=limit, offset=offset)
        return [run["runId"] for run in runs], total

    assert await page(2, 0) == (["r4", "r3"], 5)
    assert await page(2, 4) == (["r0"], 5)
    assert await page(2, 9) == ([], 5)
    assert await page(5, 0) == await page(None, 0) == (["r4", "r3", "r2", "r1", "r0"], 5)


async def test_the_total_of_pages_follows_what_others_write(database) -> None:
    reader, writer = database.storage(), database.storage()
    for number in range(3):
        await create(writer, f"r{number}")
    assert (await reader.list_runs_json("w", limit=1))[1] == 3
    await create(writer, "r3")
    assert (await reader.list_runs_json("w", limit=1))[1] == 4
    await create(reader, "r4")
    await reader.close()
    await writer.delete_run("w", "r4")
    assert (await reader.list_runs_json("w", limit=1))[1] == 4


async def test_runs_are_counted_by_status(storage) -> None:
    await begun(storage, "one")
    await create(storage, "two")
    await create(storage, "other", workflow_id="v")
    found = await storage.count_runs(["w", "v"], ["running", "pending", "suspended"])
    assert found == {("w", "running"): 1, ("w", "pending"): 1, ("v", "pending"): 1}


async def test_a_deleted_run_leaves_nothing(storage) -> None:
    await create(storage)
    await claim(storage, dispatch={"kind": "start"})
    await commit(storage, one=1, events=["a"])
    assert await storage.delete_run("w", "r") is True
    assert await storage.delete_run("w", "r") is False
    assert not await commit(storage, two=2)
    assert (await storage.read_events("w", "r"), await storage.undelivered()) == ([], [])
    await create(storage)
    assert (await storage.get_run("w", "r")).snapshot.records == {}


async def test_pruning_forgets_ended_runs_oldest_first_and_no_others(storage) -> None:
    for at, status in enumerate(["success", "failed", "canceled", "suspended", "running", "success"]):
        await begun(storage, f"{status}-{at}")
        await commit(storage, f"{status}-{at}", status=status, now=10 + at, one=1, events=["a"])
    assert await storage.prune(before=15, limit=2) == 2
    kept = {run.run_id for run in (await storage.list_runs()).runs}
    assert kept == {"canceled-2", "suspended-3", "running-4", "success-5"}
    assert [await storage.prune(before=15, limit=2) for _ in range(2)] == [1, 0]
    assert await storage.read_events("w", "success-0") == []
    assert len(await storage.read_events("w", "success-5")) == 1


async def test_a_leg_that_was_not_delivered_is_kept_until_it_is(storage) -> None:
    for run_id in ("a", "b"):
        await create(storage, run_id)
        await claim(storage, run_id, dispatch={"kind": "start", "of": run_id})
    assert [(d.run_id, d.leg, d.body["of"]) for d in await storage.undelivered()] == [
        ("a", 1, "a"),
        ("b", 1, "b"),
    ]
    await storage.delivered(Dispatch("w", "a", 1, {}))
    await storage.delivered(Dispatch("w", "b", 0, {}))
    assert [d.run_id for d in await storage.undelivered()] == ["b"]


async def test_a_lease_is_held_until_it_lapses(storage) -> None:
    await create(storage)
    await claim(storage, lease=Lease("host:1:x", until=100))
    assert [p.lease_owner for p in await storage.active_local_runs(now=50)] == ["host:1:x"]
    assert [p.lease_owner for p in await storage.active_local_runs(now=150)] == [None]
    await storage.renew_leases("host:1:x", until=200)
    await storage.renew_leases("another", until=1)
    assert [p.lease_owner for p in await storage.active_local_runs(now=150)] == ["host:1:x"]
    await commit(storage, status="success")
    assert await storage.active_local_runs(now=150) == []


async def test_a_lease_is_given_up_for_one_run_by_its_owner_alone(storage) -> None:
    for run_id in ("a", "b"):
        await create(storage, run_id)
        await claim(storage, run_id, lease=Lease("host:1:x", until=100))
    await storage.release_lease("w", "a", owner="host:1:x")
    await storage.release_lease("w", "b", owner="another")
    await storage.renew_leases("host:1:x", until=200)
    held = {p.run_id: p.lease_owner for p in await storage.active_local_runs(now=50)}
    assert held == {"a": None, "b": "host:1:x"}


async def test_a_storage_opens_again_after_it_was_closed(database) -> None:
    storage = database.storage()
    await create(storage)
    await storage.close()
    assert (await storage.get_run("w", "r")).run_id == "r"


async def test_of_requests_that_want_a_turn_one_has_it_until_it_passes_it_on(storage) -> None:
    one, two, elsewhere = Turn("w", "r", "x", "1"), Turn("w", "r", "x", "2"), Turn("w", "r", "y", "2")
    assert await storage.take_turn(one, now=10) == Acting("1", 10, 0)
    assert await storage.take_turn(two, now=20) == Acting("1", 10, 0)
    assert await storage.take_turn(one, now=30) == Acting("1", 10, 0)
    assert await storage.take_turn(elsewhere, now=40) == Acting("2", 40, 0)
    await storage.pass_turn(two, passed=7)
    await storage.pass_turn(one, passed=1)
    assert await storage.take_turn(two, now=50) == Acting("2", 50, 1)


async def test_turns_are_forgotten_with_their_run(storage) -> None:
    await create(storage)
    await storage.take_turn(Turn("w", "r", "x", "1"), now=10)
    await storage.delete_run("w", "r")
    assert await storage.take_turn(Turn("w", "r", "x", "2"), now=20) == Acting("2", 20, 0)
