import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.reporting import curation_tables as fake

from vxl_lightning.curation import schema
from vxl_lightning.reporting import curation_plots
from vxl_lightning.reporting.curation import _errors, write_curation_report
from vxl_lightning.reporting.curation_tables import Tables, failing
from vxl_lightning.reporting.thumbnails import Thumbnails

SECTIONS = ("funnel", "rules", "scores", "examples", "duplicates", "errors", "strata", "throughput", "recipe")


class Page(HTMLParser):
    """Elements and visible text of a page, without its scripts."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.ids, self.attributes, self.text, self._in = [], [], [], "", None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self._in = tag
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_data(self, data):
        if self._in not in ("script", "style"):
            self.text += data

    def handle_endtag(self, tag):
        self._in = None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("pruned")
    names = fake.write_media(root / "media", 9)
    fake.write_tables(root / "tables", names, 120)
    write_curation_report(root / "report.html", root / "tables", root / "media", fake.RECIPE, fake.TIMINGS)
    return root


@pytest.fixture(scope="module")
def page(run):
    return Page((run / "report.html").read_text(encoding="utf-8"))


def counted(run, decision):
    return pq.read_table(run / "tables/decisions.parquet")["decision"].to_pylist().count(decision)


def test_the_page_shows_every_section_and_nothing_is_lost(run, page):
    assert [i for i in page.ids if i in SECTIONS] == list(SECTIONS)
    kept, dropped, out = (counted(run, d) for d in ("keep", "drop", "quarantine"))
    assert f"{kept} kept + {dropped} dropped + {out} quarantined = 120 ✓" in page.text
    for text in (
        "above 0.5",
        "quantile 0.2",
        "../outside.mp4",
        "moov atom not found",
        "bare decoding",
        "94%",
        "budget: 0.5",
    ):
        assert text in page.text, text
    assert "1,200" in page.text and "built-in method" not in page.text


def test_a_lost_sample_is_called_out(run, tmp_path):
    shutil.copytree(run / "tables", tmp_path / "tables")
    decisions = pq.read_table(tmp_path / "tables/decisions.parquet")
    schema.write_table(tmp_path / "tables/decisions.parquet", decisions.slice(0, 119))
    write_curation_report(tmp_path / "r.html", tmp_path / "tables", run / "media", fake.RECIPE)
    assert "✗ but 120 were read" in Page((tmp_path / "r.html").read_text()).text


def test_text_of_annotations_is_never_markup(run, page):
    html = (run / "report.html").read_text(encoding="utf-8")
    assert fake.HOSTILE.split(" \ud800")[0] in page.text, "it is shown, as text"
    assert "svg" not in page.tags and "onerror" not in dict(page.attributes)
    own = html[: html.index("<script>")] + html[html.index("<main>") :]
    assert "<img src=x" not in own and "<svg onload" not in own and "<i>talk" not in own
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", own, re.S)
    assert any("&lt;i&gt;talk" in s for s in scripts), "plotly reads tags in labels"
    assert "\ud800" not in html


def test_the_page_needs_no_network(run):
    html = (run / "report.html").read_text(encoding="utf-8")
    own = html[: html.index("<script>")] + html[html.index("<main>") :]
    assert not re.findall(r"""(?:src|href|action)\s*=\s*["']?(?:https?:)?//""", own)
    assert not re.findall(r"@import|url\(|<link|<iframe", own)
    assert "default-src 'none'" in html and html.count("plotly.js v") == 1


def test_pictures_are_those_of_the_rules(run, page):
    pictures = [value for name, value in page.attributes if name == "src" and value.startswith("data:image/webp")]
    assert len(pictures) > 20
    assert page.text.count("quarantined by") >= 2 and "kept twin" in page.text and "duplicate overlap 70%" in page.text
    assert str(run) not in (run / "report.html").read_text(encoding="utf-8")


def test_same_tables_same_bytes(run, tmp_path):
    write_curation_report(tmp_path / "again.html", run / "tables", run / "media", fake.RECIPE, fake.TIMINGS)
    assert (tmp_path / "again.html").read_bytes() == (run / "report.html").read_bytes()


@pytest.mark.parametrize("empty", [False, True], ids=["absent", "empty"])
def test_a_recipe_of_fewer_stages(run, tmp_path, empty):
    names = [f"clip_{v:03d}.mp4" for v in range(9)]
    fake.write_tables(tmp_path / "tables", names, 20, optional=False)
    if empty:
        for name, columns in (("scores", fake.SCORES), ("strata", fake.STRATA), ("duplicates", fake.DUPLICATES)):
            schema.write_table(tmp_path / f"tables/{name}.parquet", columns.empty_table())
    else:
        for name in ("media", "probe", "errors"):
            (tmp_path / f"tables/{name}.parquet").unlink()
    write_curation_report(tmp_path / "r.html", tmp_path / "tables", run / "media", {"name": "few"})
    page = Page((tmp_path / "r.html").read_text())
    missing = {"scores", "duplicates", "strata", "throughput"}
    assert set(SECTIONS) - set(page.ids) == missing
    assert "= 20 ✓" in page.text


def test_no_sample_at_all(run, tmp_path):
    fake.write_tables(tmp_path / "tables", ["a.mp4", "b.mp4", "c.mp4", "d.mp4"], 0)
    write_curation_report(tmp_path / "r.html", tmp_path / "tables", run / "media", fake.RECIPE)
    assert "= 0 ✓" in Page((tmp_path / "r.html").read_text()).text


def test_the_funnel_ends_at_what_is_kept(run):
    data = Tables(run / "tables")
    steps = data.steps()
    taken = sum(s.count for s in steps if s.effect != "would drop")
    assert data.read - taken == steps[-1].left == data.counts["keep"]
    assert {s.effect for s in steps} == {"dropped", "quarantined", "would drop"}
    assert [s.rule for s in steps] == [r["rule"] for r in data.rules if r["rule"] in {s.rule for s in steps}]


def test_a_score_at_the_threshold_fails_where_the_count_says_so():
    scores = np.array([0.1, 0.5, 0.5, 0.9])
    rule = {"threshold": 0.5, "higher_is_worse": True}
    assert failing(scores, rule | {"failed": 1}).tolist() == [False, False, False, True]
    assert failing(scores, rule | {"failed": 3}).tolist() == [False, True, True, True]
    assert failing(scores, rule | {"failed": 1, "higher_is_worse": False}).tolist() == [True, False, False, False]


@pytest.mark.parametrize("threshold", [None, 0.002, 0.3, 5.0, -1.0])
def test_bins_hold_every_score_and_divide_at_the_threshold(threshold):
    scores = np.concatenate([np.zeros(3), np.random.default_rng(0).gamma(2.0, 0.1, 500)])
    edges, log = curation_plots._edges(scores, threshold)
    assert (np.diff(edges) > 0).all() and len(edges) < 3 * curation_plots.BINS
    assert np.histogram(np.clip(scores, edges[0], edges[-1]), edges)[0].sum() == len(scores)
    assert log == (threshold == 0.002)
    if threshold is not None:
        assert threshold in edges


def test_thumbnails_say_why_there_is_none(tmp_path):
    root = tmp_path / "media"
    fake.write_media(root, 3)
    (root / "frames").mkdir()
    for i in range(5):
        Image.new("RGB", (40, 30), (i * 50, 0, 0)).save(root / "frames" / f"{i}.png")
    (root / "empty").mkdir()
    (root / "broken.png").write_bytes((root / "frames/0.png").read_bytes()[:40])
    (tmp_path / "secret.png").write_bytes((root / "frames/0.png").read_bytes())
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    thumbnails = Thumbnails(root, {"clip_002.mp4": {"problem": "damaged", "detail": "by the probe"}})
    for good in ("clip_000.mp4", "frames", "frames/3.png"):
        assert thumbnails.strip(good).picture and not thumbnails.strip(good).reason
    for bad, reason in {
        "clip_001.mp4": "cannot be decoded", "clip_002.mp4": "damaged: by the probe", "none.mp4": "no such video file",
        "broken.png": "", "empty": "without images", "link.png": "leaves", "../secret.png": "leaves",
        "": "names no media",
    }.items():  # fmt: skip
        strip = thumbnails.strip(bad)
        assert not strip.picture and strip.reason and reason in strip.reason and str(tmp_path) not in strip.reason


def test_errors_are_counted_whole_and_each_detail_is_shown_once(tmp_path):
    rows = [
        {"row": r, "stage": "probe", "problem": "damaged" if r % 4 else "missing", "detail": f"reason {r % 3}"}
        for r in range(schema.ROW_GROUP + 100)
    ] + [{"row": 10**6, "stage": "annotations", "problem": "malformed", "detail": None}]
    schema.write_table(tmp_path / "errors.parquet", pa.Table.from_pylist(rows, schema.ERRORS))
    damaged, missing, malformed = _errors(tmp_path / "errors.parquet")
    assert (damaged["problem"], damaged["count"], damaged["more"]) == ("damaged", "6,219", 6216)
    assert sorted(r["detail"] for r in missing["rows"]) == ["reason 0", "reason 1", "reason 2"]
    assert malformed["rows"][0]["detail"] == "" and malformed["more"] == 0


def test_durations_keep_their_order_and_small_strata_are_added_up():
    many = {f"folder/{'deep/' * 9}{i}.json": 100 - i for i in range(30)}
    figure = curation_plots.strata("source", many, dict.fromkeys(many, 1))
    assert f"{30 - curation_plots.MOST_BARS} more" in figure and "u002f0.json" in figure
    durations = {"over 1 h": 9, "3 to 10 min": 5, "under 30 s": 7}
    figure = curation_plots.strata("duration", durations, durations)
    assert sorted(durations, key=figure.index) == ["under 30 s", "3 to 10 min", "over 1 h"]


def test_odd_records_are_shown_as_they_are(run, tmp_path):
    shutil.copytree(run / "tables", tmp_path / "tables")
    samples = pq.read_table(tmp_path / "tables/samples.parquet")
    odd = ["", "{not json", "[1]", '{"conversations": [{"value": {"a": 1}}, 7]}', "[" * 5000, '"\\ud800"']
    records = pa.array([odd[i % len(odd)] for i in range(len(samples))])
    column = samples.schema.get_field_index("record")
    schema.write_table(tmp_path / "tables/samples.parquet", samples.set_column(column, "record", records))
    write_curation_report(tmp_path / "r.html", tmp_path / "tables", run / "media", fake.RECIPE)
    text = Page((tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "{not json" in text and '{"a": 1}' in text


# In a frame, because a window is never narrower than 500 pixels; the page tells the one around it how it came out.
MEASURE = """<script>
addEventListener("load", () => document.body.style.marginRight = "15px"); // as a scroll bar that appears late does
addEventListener("load", () => setTimeout(() => {
  const plots = [...document.querySelectorAll(".plotly-graph-div")];
  parent.postMessage({
    width: document.documentElement.scrollWidth,
    plots: plots.length,
    drawn: plots.filter(p => p.querySelector(".trace path")).length,
    fitting: plots.filter(p => Math.abs(p.querySelector(".main-svg").clientWidth - p.clientWidth) < 2).length,
    pictures: [...document.images].filter(i => i.complete && i.naturalWidth).length,
    broken: [...document.images].filter(i => i.complete && !i.naturalWidth).length,
    sections: [...document.querySelectorAll("section")].filter(s => s.clientHeight > 60).map(s => s.id),
    strata: document.querySelector("#strata svg").textContent,
  }, "*");
}, 1500));
</script>"""
FRAME = """<meta charset="utf-8"><script>
addEventListener("message", e => document.querySelector("pre").append(JSON.stringify(e.data)));
</script><iframe width="WIDTH" height="900" src="report.html"></iframe><pre></pre>"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 400])
def test_the_page_draws_in_a_browser_without_network(run, tmp_path, width):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium on this machine")
    html = (run / "report.html").read_text(encoding="utf-8")
    (tmp_path / "report.html").write_text(html.replace("</body>", MEASURE + "</body>"), encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
        "--virtual-time-budget=10000", "--window-size=1300,1000", "--dump-dom", (tmp_path / "frame.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, timeout=120, text=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    found = json.loads(unescape(re.search(r"<pre>(.+?)</pre>", done.stdout)[1]))
    assert found["width"] <= width, "nothing sticks out of the page"
    assert found["plots"] == found["drawn"] == found["fitting"] >= 9
    assert found["sections"] == list(SECTIONS)
    assert found["pictures"] > 20 and found["broken"] == 0
    assert "<i>talk</i>.jsonl" in found["strata"], "plotly shows a tag as text"
