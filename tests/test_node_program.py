"""The Node programs that other tests drive."""

from __future__ import annotations

import httpx
import pytest


async def test_a_node_program_is_reached_at_its_own_port_and_sees_its_variables(node):
    program = await node("hello.mjs", GIVEN="yes")
    async with httpx.AsyncClient() as http:
        answer = (await http.get(program.url)).json()
    assert answer["given"] == "yes"
    assert answer["node"].startswith("v")


async def test_a_node_program_that_cannot_start_fails_with_what_it_wrote(node):
    with pytest.raises(AssertionError, match="Cannot find module"):
        await node("no-such-program.mjs")
