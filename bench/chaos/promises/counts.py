"""What a team is told that it uses."""

from collections.abc import Iterator

from bench.chaos.observation import LEASED, Observation, Violation


def counts_are_what_the_lists_say(seen: Observation) -> Iterator[Violation]:
    """A team's running and queued jobs and stored bytes, by which quotas go, are what its lists and the store hold."""
    objects = seen.bucket.objects()
    for team in seen.teams:
        usage = seen.reader.json(team, "/v1/team")["usage"]
        jobs = [found for found in seen.jobs.values() if found.team == team]
        stored = sum(file["bytes"] for found in jobs for file in found.files)
        for kind in ("models", "datasets"):
            prefixes = tuple(f"{kind}/{each['id']}/" for each in seen.reader.all(team, f"/v1/{kind}"))
            stored += sum(size for key, size in objects.items() if key.startswith(prefixes))
        opened = seen.reader.all(team, "/v1/uploads", status="open")
        stored += sum(file["bytes"] for upload in opened for file in upload["files"])
        counted = {
            "running": sum(found.job["status"] in LEASED for found in jobs),
            "queued": sum(found.job["status"] == "queued" for found in jobs),
            "stored_bytes": stored,
        }
        for name, count in counted.items():
            if usage[name] != count:
                yield Violation("counts", f"{team}: {name} is told to be {usage[name]}, and is {count}")
