"""CCD from end to end: a student and its teachers on a stream of blocks, beside other ways to go on.

accelerate launch examples/continual_ccd.py                                  # the embedded, synthetic log
accelerate launch examples/continual_ccd.py --data my_log.csv                # yours: user_id, item_id, timestamp
accelerate launch examples/continual_ccd.py --config configs/ccd/yelp_mf.yaml --data ../shared/data/ccd_yelp
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from seqkd import SeqKDError
from seqkd.continual.experiment import Contest, StreamExperiment, read_stream, report_of
from seqkd.parsing import parse
from seqkd.pipeline import say
from seqkd.processes import leave_process_group, this_process

DEFAULT = Path(__file__).resolve().parents[1] / "configs" / "ccd" / "synthetic.yaml"


def main() -> None:
    disable_progress_bar()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("seqkd.continual").setLevel(logging.INFO)  # a line for each stage
    experiment = parse(StreamExperiment, "A student and its teachers on a stream, and baselines.", default=DEFAULT)
    blocks = read_stream(experiment)
    contests = []
    for seed in experiment.seeds:
        contests.append(Contest(experiment, seed))
        for told in contests[-1].run(blocks):
            say(f"seed {seed}, {told}")
    if this_process().is_main_process:
        output = Path(experiment.output_dir)
        print("\n" + report_of(contests, output, blocks[0].domain))
        served = contests[0].folder / "ccd" / "student"
        print(f"report.md, stream.json and stream.png are in {output}, the student to serve in {served}.")


if __name__ == "__main__":
    try:
        main()
    except SeqKDError as error:
        sys.exit(f"error: {error}")
    leave_process_group()
