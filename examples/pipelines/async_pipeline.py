"""Several jobs at once: the sparsest model that keeps its gates is downloaded; ends with 3 where none does.

    python async_pipeline.py pruned

SECATEUR_URL and SECATEUR_API_KEY say where; get_key.py gets the key where the CI system signs identity tokens. Submits
one job for each sparsity, waits for all of them together in one event loop, and cancels what still runs where anything
goes wrong.
"""

import asyncio
import sys
from pathlib import Path

from secateur import AsyncClient, Job, errors

SPARSITIES = (0.3, 0.5, 0.7)


async def prune(client: AsyncClient, sparsity: float) -> Job | None:
    """Return the job once it has ended well; None where it missed a gate, which is an answer like any other."""
    job = await client.submit(
        model="smollm2-135m",
        method="wanda",
        sparsity=sparsity,
        calibration={"dataset": "wikipedia-calibration", "samples": 32, "sequence_length": 512},
        evaluation={"datasets": ["wikipedia-articles"], "samples": 32},
        gates={"max_perplexity_ratio": 2.4},
    )
    try:
        return (await client.wait(job.id)).raise_for_status()
    except errors.GateMissed as missed:
        print(f"{sparsity:.0%}: {missed}", file=sys.stderr)
        return None
    except asyncio.CancelledError:
        await client.cancel(job.id)
        raise


async def main(folder: Path) -> int:
    async with AsyncClient() as client:
        async with asyncio.TaskGroup() as group:  # the first that fails cancels the others
            runs = [group.create_task(prune(client, sparsity)) for sparsity in SPARSITIES]
        kept = [run.result() for run in runs]
        best = max((job for job in kept if job is not None), key=lambda job: job.sparsity or 0, default=None)
        if best is None:
            return 3
        files = await client.download(best.id, folder)
        print(f"{best.id}, {best.sparsity:.0%}: {len(files)} files in {folder}")
        return 0


if __name__ == "__main__":
    try:
        code = asyncio.run(main(Path(sys.argv[1])))
    except* errors.SecateurError as failed:
        print(*failed.exceptions, sep="\n", file=sys.stderr)
        code = 1
    sys.exit(code)
