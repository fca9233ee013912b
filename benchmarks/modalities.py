"""What each modality is worth to UniM²Rec, on UniSRec's own Scientific sample with real text and image vectors.

    python benchmarks/modalities.py --seeds 0 1 2
    python benchmarks/modalities.py --seeds 0 1 2 --transductive

1,585 items, each with a CLIP vector of its text (feat1CLS) and of its image (feat3CLS), and the sample's own split.
Text only, image only, both, and both with half of the images removed; each with and without learned ids. Results go to
benchmarks/results/modalities/<domain>.jsonl.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from journal import Journal

from seqkd.config import read_experiment
from seqkd.pipeline import Domain, load_domains, train_teacher

CONFIG = "configs/teachers/unim2rec_scientific.yaml"
FOLDER = Path("benchmarks/results/modalities")
VARIANTS = {
    "text": (["text"], 1.0),
    "image": (["image"], 1.0),
    "text + image": (["text", "image"], 1.0),
    "text + half of the images": (["text", "image"], 0.5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--transductive", action="store_true", help="with a learned vector per item beside its content")
    options, overrides = parser.parse_known_args()
    torch.set_num_threads(1)
    experiment = read_experiment(["--config", CONFIG, *overrides])
    experiment.training |= {"disable_tqdm": True, "use_cpu": True}
    (domain,) = load_domains(experiment).values()
    journal = Journal(FOLDER / f"{domain.name}.jsonl", domain)
    config = experiment.teachers["unim2rec"]
    for seed in options.seeds:
        for name in options.variants:
            modalities, share = VARIANTS[name]
            label = f"UniM²Rec {'with ids, ' if options.transductive else ''}{name}"
            if (label, seed) in journal:
                continue
            started = time.time()
            model = {**config.model, "modalities": modalities, "use_item_embedding": options.transductive}
            changed = replace(experiment, teachers={"unim2rec": replace(config, model=model)})
            teacher = train_teacher(changed, without_images(domain, 1 - share, seed), "unim2rec", seed)[0]
            journal.record(teacher, label, "teacher", seed, started)


def without_images(domain: Domain, share: float, seed: int) -> Domain:
    """The domain with that share of its images gone, drawn by the seed."""
    images = np.asarray(domain.items["image_features"][:], dtype=np.float32)
    gone = np.random.default_rng(seed).permutation(len(images))[: round(share * len(images))]
    images[gone] = 0.0
    items = domain.items.remove_columns("image_features").add_column("image_features", images.tolist())
    return replace(domain, items=items)


if __name__ == "__main__":
    main()
