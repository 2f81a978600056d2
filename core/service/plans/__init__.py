"""Plans: a goal turned into a complete job body, with a reason for each choice and an estimate of the outcome.

`service.py` makes a plan, `planner.py` that of one candidate; `candidates.py` has what may be done for a goal, best
first, `amounts.py` what a share means as sparsity, `job_bodies.py` the parts of a body and the choice among the team's
texts and image sets, `wording.py` the reasons. `outcomes.py` brings jobs and shipped
measurements into one form, `past_jobs.py` reads the team's own, `evidence.py` says which are believed, `curves.py`
interpolates between measured amounts, and `figures.py` makes figures of all that. It is plain code over measured
tables: docs/planning.md has the rules.
"""
