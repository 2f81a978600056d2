"""Webhooks: events of a team's jobs are sent to its own endpoints, signed as Standard Webhooks requires.

- `events`: the types, and `emit`, which writes an event and its deliveries in the transaction of the event
- `service`: operations of users: endpoints, secrets, pings, replays
- `delivery_log`: deliveries and their attempts as shown to users, and the removal of old ones
- `deliveries`: the queue of deliveries: claimed, recorded, given up
- `delivery_loop`: the loop that sends due deliveries over the network
- `signing`: the signature headers of each attempt

A delivery is claimed with a short lease and sent outside of any transaction. It is sent at least once, and in the order
of events for each endpoint and subject (a job, a sweep).

Locks are taken in one order: the job or sweep, then the endpoint's row, then its deliveries, last the team's row. An
event only protects an endpoint from deletion (KEY SHARE), so it waits for nothing else.
"""
