"""One run of Guided Evolution on the lanes: `guided.py FOLDER URL CANDIDATES SLOTS SCHEDULE`, figures on stdout."""

import json
import resource
import sys
from pathlib import Path

import guided_evolution as ge

POPULATION = 16


def main(folder: str, url: str, candidates: str, slots: str, schedule: str) -> None:
    population = min(POPULATION, int(candidates))
    ge.evolve(
        folder,
        llm=f"{url}#block",
        folder=Path(folder).parent / "run",
        schedule=schedule,
        population=population,
        generations=int(candidates) // population - 1,
        p_mate=0.0,  # one question for each candidate, as the others ask
        p_eot=0.0,
        verify=False,  # one evaluation for each candidate, as the others do
        llm_parallel=2 * int(slots),  # what has no place waits in the lane, as with the peers
        workers=2 * int(slots),
        threads=1,
    )
    own, jobs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    seconds = {"controller": own.ru_utime + own.ru_stime, "evaluation": jobs.ru_utime + jobs.ru_stime}
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
