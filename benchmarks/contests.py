"""The page of all contests: benchmarks/results/compare/README.md, from the results.json of each `prockd compare`.

python benchmarks/contests.py
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prockd.evaluation.tables import table_cells

RESULTS = Path(__file__).parent / "results" / "compare"
HEAD = """# Contests: does the teacher help?

Made by `python benchmarks/contests.py` from what `prockd compare -c benchmarks/compare/NAME.toml` left in each
folder: a line a run in `runs.jsonl`. Equal starts, steps, images a step, order and tuning budgets for every arm; the
number is of the test images after the last step, told once; settings were chosen on validation images with other
seeds. Brackets are 95 % intervals, paired by seed (Student's t). ▲ is an arm that is clearly above ours.
"""


def markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as a table."""
    columns, cells, _ = table_cells(rows)
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def section(folder: Path) -> str:
    """One contest."""
    told: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    parts = [f"## {folder.name}", "\n\n".join(told["sentences"]), markdown(told["table"])]
    if (folder / "compare.png").is_file():
        parts.append(f"![Every seed of every arm]({folder.name}/compare.png)")
    if told["readings"]:
        parts += [
            "What the augmentation adds: every reading is fitted alike to the same students.",
            markdown(told["readings"]),
        ]
    parts += ["What it costs, medians over seeds, one CPU thread:", markdown(told["costs"])]
    return "\n\n".join(parts)


if __name__ == "__main__":
    folders = [folder for folder in sorted(RESULTS.iterdir()) if (folder / "results.json").is_file()]
    (RESULTS / "README.md").write_text("\n\n".join([HEAD.strip(), *map(section, folders)]) + "\n", encoding="utf-8")
