"""Workflows in workflows: to any depth, in every control flow, cloned; bail and state across them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from flowctl import StepContext, clone_step, clone_workflow, create_step, create_workflow, step


class Number(BaseModel):
    n: int


@step
async def plus_one(data: Number) -> Number:
    return Number(n=data.n + 1)


@step
async def times_ten(data: Number) -> Number:
    return Number(n=data.n * 10)


def inner(id: str = "inner", **options: Any) -> Any:
    return create_workflow(id=id, input_schema=Number, output_schema=Number, **options)


async def run(workflow: Any, input_data: Any = None, **options: Any) -> Any:
    return await (await workflow.create_run()).start(input_data, **options)


async def test_three_levels_run_each_step_once_and_leave_one_record_each(
    register,
) -> None:
    calls: list[str] = []

    def named(id: str) -> Any:
        async def work(ctx: StepContext[str]) -> str:
            calls.append(id)
            return f"{ctx.input_data}-{id}"

        return create_step(id=id, execute=work)

    deepest = create_workflow(id="deepest").then(named("c")).commit()
    middle = create_workflow(id="middle").then(named("b")).then(deepest).commit()
    workflow = create_workflow(id="w").then(named("a")).then(middle).then(named("d"))
    await register(workflow)
    result = await run(workflow, "x")
    assert (result.raw_result, calls) == ("x-a-b-c-d", ["a", "b", "c", "d"])
    assert (list(result.steps), result.steps["middle"].output) == (["a", "middle", "d"], "x-a-b-c")


async def test_a_failing_step_inside_fails_the_nested_record_with_its_error(register) -> None:
    async def broken(ctx: StepContext[Any]) -> None:
        raise RuntimeError("Step execution failed")

    nested = create_workflow(id="inner").then(create_step(id="broken", execute=broken)).commit()
    workflow = create_workflow(id="w").then(nested)
    await register(workflow)
    result = await run(workflow, {})
    record = result.steps["inner"]
    assert (record.status, record.error.message, record.payload) == ("failed", "Step execution failed", {})
    assert result.error == record.error


async def test_chains_run_side_by_side_in_parallel(register) -> None:
    a = inner("a").then(plus_one).then(times_ten).commit()
    b = inner("b").then(times_ten).commit()
    workflow = inner("w").parallel([a, b])
    await register(workflow)
    assert (await run(workflow, {"n": 1})).raw_result == {"a": {"n": 20}, "b": {"n": 10}}


async def test_a_branch_in_a_nested_workflow_in_a_branch_picks_its_own_arm(register) -> None:
    low, high = clone_step(plus_one, id="low"), clone_step(times_ten, id="high")
    nested = inner().branch([(lambda c: c.input_data.n < 5, low), (lambda c: c.input_data.n >= 5, high)])
    nested.commit()
    workflow = inner("w").branch([(lambda c: c.input_data.n > 0, nested), (lambda c: False, plus_one)])
    await register(workflow)
    assert (await run(workflow, {"n": 2})).raw_result == {"inner": {"low": {"n": 3}}}
    assert (await run(workflow, {"n": 7})).raw_result == {"inner": {"high": {"n": 70}}}


async def test_foreach_runs_a_nested_workflow_for_each_item(register) -> None:
    workflow = create_workflow(id="w").foreach(inner().then(plus_one).then(times_ten).commit(), concurrency=2)
    await register(workflow)
    result = await run(workflow, [{"n": 1}, {"n": 2}, {"n": 3}])
    assert result.raw_result == [{"n": 20}, {"n": 30}, {"n": 40}]
    stored = await workflow.get_workflow_run_by_id(result.run_id)
    assert stored.steps["inner[2].plus_one"].output == {"n": 4}
    plain = await workflow.get_workflow_run_by_id(result.run_id, with_nested_workflows=False)
    assert list(plain.steps) == ["inner"]


async def test_state_and_request_context_are_one_across_nested_workflows(register) -> None:
    async def write(ctx: StepContext[Any]) -> None:
        ctx.set_state({"value": ctx.state["value"] + "!!!"})
        ctx.request_context.set("who", "inner")

    async def read(ctx: StepContext[Any]) -> Any:
        return [ctx.state["value"], ctx.request_context.get("who")]

    nested = create_workflow(id="inner").then(create_step(id="write", execute=write))
    nested.then(create_step(id="read", execute=read)).commit()
    workflow = create_workflow(id="w").then(nested).then(create_step(id="after", execute=read))
    await register(workflow)
    result = await run(workflow, initial_state={"value": "state"})
    assert result.steps["inner"].output == result.raw_result == ["state!!!", "inner"]


async def test_get_init_data_in_a_nested_workflow_is_the_nested_input(register) -> None:
    async def init(ctx: StepContext[Any]) -> Any:
        return [ctx.get_init_data().n, ctx.workflow_id]

    nested = create_workflow(id="inner", input_schema=Number).then(plus_one)
    nested.then(create_step(id="init", execute=init)).commit()
    workflow = inner("w").then(times_ten).then(nested)
    await register(workflow)
    assert (await run(workflow, {"n": 4})).raw_result == [40, "inner"]


async def test_clones_are_the_same_work_under_other_ids(register) -> None:
    a = inner("a").then(plus_one).then(clone_step(plus_one, id="again")).commit()
    b = clone_workflow(a, id="b")
    workflow = inner("w").parallel([a, b]).map({"n": {"step": "b", "path": "n"}}).then(times_ten)
    await register(workflow)
    result = await run(workflow, {"n": 0})
    assert (result.steps["a"].output, result.steps["b"].output) == ({"n": 2}, {"n": 2})
    assert (result.raw_result, b.description, b.schemas) == ({"n": 20}, a.description, a.schemas)
    assert b.serialized_step_graph == a.serialized_step_graph


async def test_bail_in_parallel_ends_the_run_once_the_siblings_have_settled(register) -> None:
    async def leave(ctx: StepContext[Any]) -> None:
        await ctx.bail({"ended": "early"})

    bailing = create_step(id="leave", execute=leave)
    for block in ("parallel", "branch"):
        workflow = inner(f"w-{block}")
        if block == "parallel":
            workflow.parallel([bailing, plus_one])
        else:
            workflow.branch([(lambda ctx: True, bailing), (lambda ctx: True, plus_one)])
        workflow.then(times_ten)
        await register(workflow)
        result = await run(workflow, {"n": 1})
        assert (result.status, result.raw_result) == ("success", {"ended": "early"})
        assert result.steps["plus_one"].output == {"n": 2}
        assert "times_ten" not in result.steps


async def test_bail_in_a_loop_or_one_item_ends_the_run(register) -> None:
    async def leave(ctx: StepContext[Any]) -> Any:
        if ctx.state.get("seen", 0) > 1:
            await ctx.bail([15])
        ctx.set_state({"seen": ctx.state.get("seen", 0) + 1})
        return ctx.input_data

    leaving = create_step(id="leave", execute=leave)
    each = create_workflow(id="each").foreach(leaving).then(times_ten)
    looped = create_workflow(id="looped").dowhile(leaving, lambda ctx: True).then(times_ten)
    for workflow in (each, looped):
        await register(workflow)
        result = await run(workflow, [1, 2, 3, 4])
        assert (result.status, result.raw_result, result.state) == ("success", [15], {"seen": 2})
        assert result.steps["leave"].status == "success"
        assert "times_ten" not in result.steps
