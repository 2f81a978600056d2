"""Promises of the service, each a small function that yields where an installation broke it.

The promise is the function's docstring. `lasting` are those that a look at any time can find broken for good; what
`settling` finds may still be on its way, so it counts once the time that is given to it is over.
"""

from collections.abc import Callable, Iterator, Sequence

from bench.chaos.observation import Observation, Violation
from bench.chaos.promises import artifacts, audit, bystanders, counts, events, jobs, leftovers, states, webhooks

Promise = Callable[[Observation], Iterator[Violation]]

lasting: Sequence[Promise] = (
    jobs.accepted_jobs_exist,
    jobs.one_key_makes_one_job,
    jobs.a_life_ends_once,
    jobs.jobs_fail_for_their_own_reasons,
    jobs.clients_are_told_nothing_wrong,
    events.numbers_have_no_gaps,
    events.watchers_see_every_event_once,
    events.no_write_of_an_attempt_after_a_newer_one,
    states.only_legal_transitions,
    states.attempts_are_counted,
    states.stages_come_in_order,
    states.progress_never_goes_back,
    artifacts.listed_files_are_stored,
    artifacts.a_success_has_an_artifact,
    artifacts.downloads_are_what_was_listed,
    artifacts.masks_are_zero,
    audit.the_trail_is_whole,
    bystanders.bystanders_are_served,
    bystanders.hostile_files_are_refused,
    bystanders.triggers_outlast_the_hub,
)
settling: Sequence[Promise] = (
    counts.counts_are_what_the_lists_say,
    webhooks.every_event_is_delivered,
    webhooks.deliveries_are_signed,
    leftovers.the_store_holds_only_what_is_named,
    leftovers.no_upload_is_left,
    leftovers.no_work_is_left,
    leftovers.no_transaction_is_left,
    bystanders.poisoned_rows_end_with_a_reason,
)
