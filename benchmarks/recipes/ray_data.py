"""Ray Data: teachers as actors, each shard by whichever is free; `prockd discover` and `distill` read the shards.

    pip install 'prockd[scale]'
    python benchmarks/recipes/ray_data.py settings.toml --actors 2
    prockd discover -c settings.toml --out bank.safetensors
    python benchmarks/recipes/ray_data.py settings.toml --actors 2 --bank bank.safetensors
    prockd distill -c settings.toml --bank bank.safetensors

The first line makes what `prockd extract` does, the third what `prockd extract --store embedded --bank` does. On
several nodes `$PROCKD_CACHE` and the images lie on a disk that all of them see. Stopped, the same line goes on.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import numpy as np
import ray
import typer

from prockd.cli.options import read_settings
from prockd.prototypes.bank import PrototypeBank
from prockd.runs.world import World, open_world
from prockd.teachers import MissingShardsError, Share
from prockd.teachers.stored import SHARD


def extracted(world: World, name: str, bank: PrototypeBank | None) -> object:
    """What is kept of a set; this process's share of the shards is made where it is not there."""
    return world.source if bank is None else world.embedded(name, bank)


class Extractor:
    """An actor: the teacher, and images that are packed already."""

    def __init__(self, settings: Path, bank: Path | None) -> None:
        self.world = open_world(read_settings(settings, "best", None), progress=False)
        self.bank = None if bank is None else PrototypeBank.load(bank)

    def __call__(self, shards: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Make some shards; the numbers alone travel."""
        for name, number, count in zip(shards["set"], shards["number"], shards["count"], strict=True):
            self.world.share = Share(int(number), int(count))
            with suppress(MissingShardsError):  # the other actors are at them
                extracted(self.world, str(name), self.bank)
        return shards


def main(
    settings: Annotated[Path, typer.Argument(help="TOML file of settings, as for prockd extract -c.")],
    bank: Annotated[Path | None, typer.Option(help="Prototypes, in whose space patches are kept.")] = None,
    actors: Annotated[int, typer.Option(help="Teachers at once; each takes a GPU where there are some.")] = 2,
) -> None:
    """Pack the images here, let actors make the shards, and open them."""
    world = open_world(read_settings(settings, "best", None))
    names = ["source"] if bank is None else ["train", "unlabelled"]
    counts = {name: -(-len(world.images(name)) // SHARD) for name in names}
    rows = [{"set": name, "number": m, "count": count} for name, count in counts.items() for m in range(1, count + 1)]
    own = {name: os.environ[name] for name in ("PROCKD_CACHE", "PYTHONPATH") if name in os.environ}
    ray.init(runtime_env={"env_vars": own})  # nodes of a cluster have their own
    ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Extractor, batch_size=1, compute=ray.data.ActorPoolStrategy(size=actors),
        num_gpus=min(1, ray.cluster_resources().get("GPU", 0)), fn_constructor_args=(settings.resolve(), bank),
    ).materialize()  # fmt: skip
    for name in names:
        print(repr(extracted(world, name, None if bank is None else PrototypeBank.load(bank))))


if __name__ == "__main__":
    typer.run(main)
