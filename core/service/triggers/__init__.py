"""Triggers: named templates of jobs that a pipeline fires at a secret URL, the hub at a new commit, or the clock.

`templates` fills a template from a payload and evaluates nothing; `validation` looks at one before it is saved;
`authentication` says whether a request on the URL may be believed and which event it is; `firing` makes the job, once
an event; `due` fires what the clock says; `service` is what a team does with its triggers. Of a trigger's secrets only
the one that signatures are checked with is kept, sealed; of the others a hash.
"""
