import base64
import io
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from prockd.runs.html import Section, write_report

ROWS = [{"arm": "plain", "labels": 5, "z": 0.16342}, {"arm": "prototypes", "z": 0.5, "z+": np.float32(0.25)}]


def picture(noise: bool = False) -> Figure:
    figure = Figure(figsize=(3, 2))
    ax = figure.subplots()
    if noise:
        ax.imshow(np.random.default_rng(0).random((300, 300, 3)))
    return figure


def test_letters_that_the_font_of_figures_lacks_do_not_fill_the_terminal_with_warnings(tmp_path):
    figure = picture()
    figure.suptitle("牛 ポニー")
    page = write_report(tmp_path / "r.html", "牛", [Section("ポニー", figures=[(figure, "牛")])])  # warnings are errors
    assert "ポニー" in page.read_text(encoding="utf-8")


def test_the_report_holds_its_figures_and_asks_nothing_of_the_network(tmp_path):
    sections = [Section("First", "One.\n\nTwo\nlines.", [(picture(), "A plot of 3 things")], ROWS), Section("Second")]
    page = write_report(tmp_path / "deep" / "report.html", "Title", sections).read_text(encoding="utf-8")
    assert "<p>One.</p>\n<p>Two lines.</p>" in page
    assert page.index("First") < page.index("<table") < page.index("<img") < page.index('id="s1"')
    (alt, data) = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', page)[0]
    assert alt == "A plot of 3 things"
    assert Image.open(io.BytesIO(base64.b64decode(data))).format == "PNG"
    assert "<figcaption>A plot of 3 things</figcaption>" in page
    assert '<td class="number">0.163</td>' in page
    without_data = re.sub(r'data:image/png;base64,[^"]*', "", page)
    assert not re.search(r"https?:|//\w|@import|url\(|<script|<link", without_data)
    assert "prefers-color-scheme: dark" in page


def test_text_is_shown_and_never_run(tmp_path):
    bad = '<script>alert("x")</script>'
    section = Section(bad, bad, [(picture(), bad)], [{bad: bad}])
    page = write_report(tmp_path / "r.html", bad, [section]).read_text(encoding="utf-8")
    assert "<script" not in page
    escaped = "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;"
    assert page.count(escaped) == 9  # title, h1, contents, h2, paragraph, th, td, alt, caption


def test_a_report_that_would_be_too_large_gets_smaller_figures_or_is_refused(tmp_path):
    sections = [Section("s", figures=[(picture(noise=True), "noise")])]
    large = write_report(tmp_path / "large.html", "t", sections).stat().st_size
    small = write_report(tmp_path / "small.html", "t", sections, max_bytes=large - 1).stat().st_size
    assert small < large
    with pytest.raises(ValueError, match="1 figures make"):
        write_report(tmp_path / "none.html", "t", sections, max_bytes=1000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["large.html", "small.html"]
