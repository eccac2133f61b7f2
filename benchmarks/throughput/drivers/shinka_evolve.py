"""One run of ShinkaEvolve on the lanes: `shinka_evolve.py FOLDER URL CANDIDATES SLOTS PARALLEL`."""

import os
import sys
from pathlib import Path

# It cuts its jobs down to the machine's cores, for evaluations that compute; these wait for another machine.
os.cpu_count = lambda: 1024

from shinka.core import EvolutionConfig, ShinkaEvolveRunner  # noqa: E402
from shinka.database import DatabaseConfig  # noqa: E402
from shinka.launch import LocalJobConfig  # noqa: E402


def main(folder: str, url: str, candidates: str, slots: str, parallel: str) -> None:
    place, places, ahead = Path(folder), int(slots), int(parallel)
    evolution = EvolutionConfig(
        num_generations=int(candidates) + 1,  # the first is the seed
        init_program_path=str(place / "program.py"),
        results_dir=str(place.parent / "run"),
        llm_models=[f"local/program@{url}"],
        llm_dynamic_selection=None,
        llm_kwargs={"temperatures": [0.7], "max_tokens": 4096},
        patch_types=["full"],
        patch_type_probs=[1.0],
        embedding_model=None,
        meta_rec_interval=None,
        enable_controlled_oversubscription=True,
        proposal_target_mode="fixed",
        proposal_buffer_max=ahead - places,
    )
    runner = ShinkaEvolveRunner(
        evo_config=evolution,
        job_config=LocalJobConfig(eval_program_path=str(place / "evaluate.py")),
        db_config=DatabaseConfig(num_islands=1),
        verbose=False,
        banner_style="minimal",
        max_evaluation_jobs=places,
        max_proposal_jobs=ahead,
        max_db_workers=4,
    )
    runner.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
