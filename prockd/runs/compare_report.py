"""The files that a contest leaves: results.json, compare.png and report.html, made of its lines at any time."""

import json
from pathlib import Path
from typing import Any

from prockd.runs.contest import Contest
from prockd.runs.plan import Plan
from prockd.settings.compare import CompareConfig
from prockd.settings.knobs import Knobs, differences
from prockd.settings.toml import in_line
from prockd.writing import write_json

TITLE = "prockd compare"


def write_contest(contest: Contest, folder: Path, *, title: str = TITLE, settings: Plan | None = None) -> None:
    """Write table, sentences and every last number as JSON, then the figure and the report.

    Args:
        contest: its lines.
        folder: where.
        title: of the report.
        settings: the :class:`prockd.runs.plan.Plan`, whose settings the report tells; None for none.
    """
    runs = {arm: {str(s): dict(row) for s, row in contest.told(arm).items()} for arm in contest.there}
    arms = {arm: {"told": contest.arms[arm].told, "paper": contest.arms[arm].paper} for arm in contest.there}
    told = {"sentences": contest.sentences(), "table": contest.table(), "costs": contest.costs()}
    more = {"readings": contest.readings(), "tuning": contest.tuning(), "arms": arms, "runs": runs}
    write_json(folder / "results.json", told | more)
    if contest.there:
        write_report_of(contest, folder, title, settings)


def write_report_of(contest: Contest, folder: Path, title: str, settings: Plan | None) -> None:
    """The figure and the report."""
    import matplotlib.pyplot as plt

    from prockd import plots
    from prockd.runs.html import Section, save_png, write_report
    from prockd.runs.report import figure_of

    figure = figure_of(plots.plot_contest(figure_rows(contest), contest.metric))
    try:
        save_png(figure, folder / "compare.png", dpi=130)
        shown = [(figure, "Every seed of every arm, means and intervals")]
        sections = [Section("What came out", "\n\n".join(contest.sentences()), shown)]
        marks = "▲: clearly above ours. Differences are paired by seed, with their 95 % interval (Student's t)."
        sections.append(Section("Scores", marks, table=contest.table()))
        if readings := contest.readings():
            text = (
                "Every reading is fitted in the same closed form, to the same images and targets, of the same students."
            )
            sections.append(Section("What the augmentation adds", text, table=readings))
        sections.append(Section("What it costs", COSTS, table=contest.costs()))
        arms = [{"arm": a, "group": arm.group, "what it is": arm.told, "from": arm.paper or None}
                for a, arm in contest.arms.items() if a in contest.there]  # fmt: skip
        sections.append(Section("The arms", "What an arm does not say is as in the settings.", table=arms))
        if tuning := contest.tuning():
            sections.append(Section("Tuning", TUNING.format(budget=contest.budget), table=tuning))
        if settings is not None:
            sections.append(Section("Settings", "What differs from the usual settings.", table=setting_rows(settings)))
        write_report(folder / "report.html", title, sections)
    finally:
        plt.close(figure)


COSTS = """Medians over seeds, one CPU thread a run. A teacher pass is one view of one image through the teacher,
once for all steps and seeds that read it; the cache is what a run reads of it. Parameters are the
student's at inference."""
TUNING = """Every arm has {budget} tuning runs on validation images, whose seeds are in no last number: first each
learning rate, then as many more settings, of its weight at its best rate, or of an arm without one more
learning rates."""


def figure_rows(contest: Contest) -> list[dict[str, Any]]:
    """What :func:`prockd.plots.plot_contest` draws."""
    rows: list[dict[str, Any]] = []
    for arm in contest.there:
        runs = list(contest.told(arm).values())
        plus = [run["z_plus"] for run in runs] if contest.best_key(arm) == "z_plus" else None
        rows.append(
            {"name": arm, "group": contest.arms[arm].group, "values": [r["z"] for r in runs], "augmented": plus}
        )
    for name, lines in contest.references().items():
        each = list(lines.values())
        rows.append({"name": name, "group": each[0]["group"], "values": [r["z"] for r in each], "augmented": None})
    return rows


def setting_rows(plan: Plan) -> list[dict[str, object]]:
    """One row a setting that is not the usual one, those of the contest too."""
    sections: dict[str, Knobs] = plan.config.sections() | {"compare": plan.compare}
    usual: dict[str, Knobs] = {name: type(knobs)() for name, knobs in sections.items()} | {"compare": CompareConfig()}
    return [
        {"section": section, "setting": name, "value": in_line(value), "usual": in_line(before)}
        for section, knobs in sections.items()
        for name, (value, before) in differences(knobs, usual[section]).items()
    ]


def quick_line(contest: Contest, seconds: float) -> str:
    """The main figures as one line of JSON."""
    rows = {str(row["arm"]): {"z": row["z"], "z_plus": row.get("z⁺")} for row in contest.table()}
    return json.dumps({"arms": rows, "seconds": round(seconds, 1)}, ensure_ascii=False)
