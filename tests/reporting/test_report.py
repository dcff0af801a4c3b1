import json
import re
import shutil
import subprocess

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tests.ablation import synthetic

from vxl_lightning.ablation.tables import BASELINES, caption, write_tables
from vxl_lightning.reporting.manifest import manifest, write_manifest
from vxl_lightning.reporting.pictures import kept_picture, save_picture
from vxl_lightning.reporting.report import Picture, write_report


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    rows = synthetic.rows()
    records = write_tables(out, rows, synthetic.predictions(rows))
    frames = torch.randint(0, 255, (8, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    save_picture(kept_picture(frames, torch.zeros(8, 4, 4, dtype=torch.long)), out / "dts.webp")
    content = manifest({"note": "<script>alert('x')</script>"}, [0], [], {"test": "abc"})
    write_manifest(out / "manifest.json", content)
    write_report(
        out / "report.html", name="tiny", results=records, timings=synthetic.timings(rows),
        comparisons=pq.read_table(out / "comparisons.parquet").to_pylist(),
        pictures=[Picture("dts", "8 tokens", out / "dts.webp")], manifest=content,
        caption=caption(records), baselines=BASELINES,
    )  # fmt: skip
    return out / "report.html"


def test_report_is_one_offline_file(report):
    html = report.read_text()
    assert html.count("<script>") - html.count("<script>alert") >= 2
    assert "<script>alert('x')" not in html, "what a configuration says is text, not markup"
    own = html[: html.index("<script>")] + html[html.index("<main>") :]
    assert not re.findall(r"""(?:src|href|action)\s*=\s*["']?(?:https?:)?//""", own)
    assert not re.findall(r"@import|url\(\s*[\"']?(?:https?:)?//|<link|<iframe", own)
    assert 'src="data:image/webp;base64,' in own
    assert html.count("plotly.js v") == 1, "plotly is inlined once"


def test_report_shows_rows_tests_costs_and_manifest(report):
    html = report.read_text()
    for text in ("dts_recot", "commonest answer", "held-out questions", "KV length", "Reconstruction gain", "abc"):
        assert text in html


def test_manifest_says_what_ran(report):
    content = json.loads((report.parent / "manifest.json").read_text())
    assert set(content) == {"config", "seeds", "plugins", "data", "versions", "commit", "device"}
    assert content["versions"]["torch"] == torch.__version__ and content["device"]["cores"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("width", [1300, 420])
def test_report_draws_in_a_browser_without_network(report, tmp_path, width):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium on this machine")
    picture = tmp_path / "page.png"
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=8000", f"--screenshot={picture}", f"--window-size={width},5200", report.as_uri(),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    colours = {tuple(c) for c in pixels.reshape(-1, 3)[::7]}
    assert (0, 114, 178) in colours, "the figures' markers are drawn"
