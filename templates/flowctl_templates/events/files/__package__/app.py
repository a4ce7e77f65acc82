"""What flowctl serves."""

from flowctl import App

from __package__.client import client
from __package__.functions import import_orders, send_receipt, start_fulfilment
from __package__.workflows import fulfil_order

app = App(
    workflows=[fulfil_order],
    functions=[import_orders, send_receipt, start_fulfilment],
    inngest=client,
)
