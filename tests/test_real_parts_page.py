"""benchmarks/real_parts.py: its page says better than place only where an interval does, from lines made by hand."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

POINTS, FRAMES = 120, 40


@pytest.fixture(scope="module")
def real_parts():
    path = Path(__file__).parents[1] / "benchmarks" / "real_parts.py"
    spec = importlib.util.spec_from_file_location("real_parts", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines_of(module, shares: dict[str, float], *, alike: int = 1) -> list[dict]:
    """Lines of all runs: what each tells is right in some share of the points, ``alike`` neighbours alike."""
    rng = np.random.default_rng(0)

    def right(name: str) -> list[str]:
        drawn = np.repeat(rng.random(POINTS // alike) < shares.get(name, 0.3), alike)
        return [module.packed(drawn)]

    lines = [
        {"kind": "points", "named_on": video, "view": view, "right": {module.COMMONEST: right(module.COMMONEST)},
         "part": (np.arange(POINTS) % 6).tolist(), "frame": (np.arange(POINTS) * FRAMES // POINTS).tolist()}
        for video in module.POINTED for view in module.VIEWS
    ]  # fmt: skip
    for teacher in module.TEACHERS:
        names = {"discovery": ["prototypes", module.NEAREST, module.PLACE], "pooled": [module.POOLED]}
        for kind, video in ((kind, video) for kind in names for video in module.POINTED):
            told = {view: {name: right(name) for name in names[kind]} for view in module.VIEWS}
            lines.append({"kind": kind, "teacher": teacher, "named_on": video, "right": told, "in_one_video": [0.9]})
        adapted = (module.NN_FROZEN, module.NN_ADAPTED, module.BALANCED)
        for held_out in (*module.POINTED, ""):
            videos = [module.other(held_out)] if held_out else module.POINTED
            told = {video: {view: {name: right(name) for name in adapted} for view in module.VIEWS} for video in videos}
            lines.append(
                {"kind": "adapted", "teacher": teacher, "held_out": held_out, "right": told, "adapting_cpu_s": 100}
            )
        lines[-1] |= {"in_one_video": 0.05, "found_again_in_one_video": 0.8}
    return [line | {"cpu_s": 60.0} for line in lines]


def test_prototypes_are_parts_only_where_intervals_put_them_above_place(real_parts):
    better = real_parts.page(lines_of(real_parts, {"prototypes": 0.9}))
    assert "Prototypes found on one video tell parts better than place, as is and mirrored: MobileNetV2" in better
    assert "above 5 nearest places and above place in the image" in better
    alike = real_parts.page(lines_of(real_parts, {"prototypes": 0.45, real_parts.NEAREST: 0.4, real_parts.PLACE: 0.4}))
    assert "not shown to be parts here" in alike
    assert "not told apart from 5 nearest places" in alike
    below = real_parts.page(lines_of(real_parts, {real_parts.NEAREST: 0.9}))
    assert "below 5 nearest places" in below


def test_frames_that_are_copies_are_no_evidence(real_parts):
    shares = {"prototypes": 0.6, real_parts.NEAREST: 0.3, real_parts.PLACE: 0.3}
    apart = real_parts.all_told(lines_of(real_parts, shares))["cows", "as is"]
    alike = real_parts.all_told(lines_of(real_parts, shares, alike=30))["cows", "as is"]
    widths = [
        np.ptp(told.gains(("MobileNetV2", "prototypes"), ("", real_parts.NEAREST))[0][1:]) for told in (apart, alike)
    ]
    assert widths[1] > 1.5 * widths[0]


def test_adapting_helps_where_its_gain_is_clear_and_its_price_is_told(real_parts):
    helped = real_parts.page(lines_of(real_parts, {real_parts.NN_ADAPTED: 0.7}))
    assert "MobileNetV2: adapting **helps**, at 100 to 100 CPU s" in helped
    assert "90 % of prototypes have more than 80 % of their patches in one" in helped
    assert "those it adapted with on the three 5 %" in helped
    assert "adapting **is not shown to help**" in real_parts.page(lines_of(real_parts, {}))


def test_which_points_were_told_is_kept_as_text(real_parts):
    right = np.random.default_rng(0).random(37) < 0.5
    np.testing.assert_array_equal(real_parts.unpacked(real_parts.packed(right), 37), right)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.skipif("PROCKD_REAL_DATA" not in os.environ, reason="PROCKD_REAL_DATA names no folder of photographs")
def test_a_line_of_discovery_tells_prototypes_beside_place_as_is_and_mirrored(real_parts, monkeypatch, tmp_path):
    monkeypatch.setattr(real_parts, "RESULTS", tmp_path)
    root = Path(os.environ["PROCKD_REAL_DATA"])
    points = [real_parts.points_line(root, "cows", view) for view in real_parts.VIEWS]
    assert len(points[0]["part"]) > 170, "nearly all visible points lie inside the squares"
    assert points[0]["part"] == points[1]["part"]
    line = real_parts.discovery_line(root, "MobileNetV2", "cows", 0)
    for view in real_parts.VIEWS:
        told = {
            name: real_parts.unpacked(texts[0], len(points[0]["part"])).mean()
            for name, texts in line["right"][view].items()
        }
        assert told["prototypes"] > told["raw pixels"]
    assert (tmp_path / "real_parts_cows.png").stat().st_size < 200_000
