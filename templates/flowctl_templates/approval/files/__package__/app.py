"""What flowctl serves. Runs are kept in .flowctl/flowctl.db, so they wait for people over restarts."""

from flowctl import App

from __package__.workflows import plan_vacation

app = App(workflows=[plan_vacation])
