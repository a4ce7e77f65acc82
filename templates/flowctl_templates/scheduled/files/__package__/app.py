"""What flowctl serves."""

from flowctl import App

from __package__.client import client
from __package__.workflows import daily_report, refresh_shop

app = App(workflows=[daily_report, refresh_shop], inngest=client)
