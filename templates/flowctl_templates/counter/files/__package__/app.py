"""What flowctl serves."""

from flowctl import App

from __package__.client import client
from __package__.functions import process_webhook, send_welcome_email
from __package__.workflows import increment_workflow

app = App(
    workflows=[increment_workflow],
    functions=[send_welcome_email, process_webhook],
    inngest=client,
)
