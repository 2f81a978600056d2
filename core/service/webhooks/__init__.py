"""Webhooks: events of a team's jobs are sent to its own endpoints, signed as Standard Webhooks requires.

- `events`: the types, and `emit`, which writes an event and its deliveries in the transaction of what happened
- `service`: what users ask for: endpoints, secrets, pings, replays
- `delivery_log`: deliveries and their attempts, as they are shown, and the removal of old ones
- `deliveries`: the queue of deliveries: claimed, recorded, given up
- `delivery_loop`: the loop that sends what is due over the network, and `signing`, the headers each attempt carries

A delivery is claimed with a short lease and sent outside of any transaction: at least once, in the order of events for
each endpoint and subject (a job, a sweep).

Locks are taken in one order: the job or sweep, then the endpoint's row, then its deliveries, last the team's row. An
event only holds an endpoint against its deletion (KEY SHARE), so it waits for nothing else.
"""

from core.service.webhooks.events import emit

__all__ = ["emit"]
