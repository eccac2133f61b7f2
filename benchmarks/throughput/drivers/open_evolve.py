"""One run of OpenEvolve on the lanes: `open_evolve.py FOLDER URL CANDIDATES SLOTS PARALLEL`."""

import logging
import sys
from pathlib import Path

from openevolve import run_evolution
from openevolve.config import Config, LLMModelConfig


def main(folder: str, url: str, candidates: str, slots: str, parallel: str) -> None:
    config = Config()
    config.max_iterations = int(candidates)
    config.checkpoint_interval = 10 * int(candidates)
    config.log_level = "WARNING"
    config.diff_based_evolution = False
    # the server queues what is more than its places, so nothing may be given up for being slow
    model = LLMModelConfig(
        name="program", api_base=url, api_key="none", temperature=0.7, max_tokens=4096, timeout=3600, retries=0,
        retry_delay=1,
    )  # fmt: skip
    config.llm.models = config.llm.evaluator_models = [model]
    config.database.num_islands = 1
    config.database.log_prompts = False
    config.evaluator.parallel_evaluations = int(parallel)
    config.evaluator.cascade_evaluation = False
    config.evaluator.use_llm_feedback = False
    config.evaluator.enable_artifacts = False
    config.evaluator.timeout = 3600
    place = Path(folder)
    run_evolution(str(place / "program.py"), str(place / "evaluate.py"), config, output_dir=str(place.parent / "run"))
    logging.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
