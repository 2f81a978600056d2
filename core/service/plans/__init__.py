"""Plans: a complete job body for a goal, with a reason for each choice and an estimate of the outcome.

`service.py` makes a plan, and `planner.py` the plan for one candidate. `candidates.py` lists the jobs for a goal,
best first. `amounts.py` converts a share to a sparsity. `job_bodies.py` makes the parts of a body and chooses among
the team's texts and image sets. `wording.py` writes the reasons, and says which plans are not worth it. `outcomes.py`
gives jobs and the release's measurements the same form, `past_jobs.py` reads the team's own jobs, and `evidence.py`
selects the relevant outcomes. `curves.py` interpolates between measured amounts, and `figures.py` makes the figures
of a plan. It is plain code over measured tables; docs/planning.md and docs/planning-estimates.md have the rules.
"""
