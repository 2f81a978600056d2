"""Triggers: named templates of jobs, fired by a pipeline at a secret URL, by a hub commit, or by a schedule.

`templates` fills a template from a payload, and evaluates no code. `validation` checks a trigger before it is saved.
`authentication` verifies a request on the URL, and finds the id of its event. `firing` makes one job for each event.
`due` fires schedules. `service` has the operations of a team on its triggers. Only the secret that verifies signatures
is stored, encrypted; of the other secrets only a hash is stored.
"""
