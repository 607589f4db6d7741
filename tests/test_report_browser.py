"""The report in a headless Chromium, on a wide and on a narrow screen; and its contrast, which needs no
browser.
"""

import json
import re
import shutil
import subprocess

import pytest
from _report_trees import judged_tree, whole
from matplotlib.colors import to_hex

from nfd_jax.report import _plot
from nfd_jax.report._draw import draw_all
from nfd_jax.report._figures import drawings
from nfd_jax.report._page import sweep_page
from nfd_jax.report._style import STYLE

CHROMIUM = shutil.which("chromium")
NEEDS = "needs chromium (Debian: apt-get install chromium)"

PROBE = """
<script>
addEventListener("load", () => {
  const open = %s;
  if (open) document.querySelectorAll("details").forEach(d => d.open = true);
  const boxes = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, parent = node.parentElement;
    if (!node.data.trim() || parent.closest("script, style, pre")) continue;
    if (parent.closest("details:not([open])") && !parent.closest("summary")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const r of range.getClientRects())
      if (r.width > 1 && r.height > 1) boxes.push([r.left, r.top, r.right, r.bottom, node.data.trim().slice(0,
      30), parent]);
  }
  const overlaps = [];
  for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
    const a = boxes[i], b = boxes[j];
    const w = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), h = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
    if (w > 3 && h > 6) overlaps.push([a[4], b[4]]);
  }
  const images = [...document.images];
  const bottom = s => Math.max(...[...document.querySelectorAll(s)].map(e =>
  e.getBoundingClientRect().bottom));
  const found = {
    width: document.documentElement.scrollWidth, screen: innerWidth, overlaps: overlaps.slice(0, 8), texts:
    boxes.length,
    images: images.length, broken: images.filter(i => !i.naturalWidth).length,
    fetched: performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:")),
    first: {lead: bottom(".lead"), plots: bottom(".front img"), cards: bottom(".card")},
    count: {plots: document.querySelectorAll(".front img").length, cards:
    document.querySelectorAll(".card").length},
  };
  document.body.innerHTML = "<pre id=found>" + JSON.stringify(found).replace(/</g, "&lt;") + "</pre>";
});
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    tree = judged_tree(whole())
    return folder, sweep_page(tree, draw_all(folder / "figures", drawings(tree)))


@pytest.mark.skipif(CHROMIUM is None, reason=NEEDS)
@pytest.mark.parametrize(("width", "height", "opened"), [(1400, 950, False), (500, 900, True)])
def test_the_page_in_a_browser(page, width, height, opened):
    folder, text = page
    path = folder / f"{width}-{opened}.html"
    path.write_text(text.replace("</body>", PROBE % str(opened).lower() + "</body>"), encoding="utf-8")
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--virtual-time-budget=4000",
        # fmt: skip
        f"--window-size={width},{height}",
        f"--user-data-dir={folder / 'profile'}",
        "--dump-dom",
        path.as_uri(),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    dumped = re.search(r"<pre id=\"found\">(.*?)</pre>", run.stdout, re.DOTALL)
    assert dumped is not None, run.stderr[-500:]
    found = json.loads(dumped[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert found["width"] <= found["screen"] == width
    assert found["overlaps"] == [] and found["texts"] > 100
    assert found["broken"] == 0 and found["images"] > 20 and found["fetched"] == []
    assert found["count"] == {"plots": 2, "cards": 6}
    if width > 1000:
        assert max(found["first"].values()) < height


def luminance(color: str) -> float:
    parts = [int(to_hex(color)[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_and_lines_stand_out():
    """WCAG AA: 4.5 for text on both grounds of every scheme, 3 for lines and markers on a figure's white."""
    schemes = [
        dict(re.findall(r"--(\w+): (#\w+)", block))
        for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    ]
    assert len(schemes) == 3
    for scheme in schemes:
        for name in ("ink", "dim", "link", "yes", "no", "open"):
            for ground in ("paper", "soft"):
                color = scheme.get(name, schemes[0].get(name))
                assert contrast(color, scheme[ground]) >= 4.5, (name, ground, scheme)
    lines = [_plot.GUIDE, *_plot.SERIES, *_plot.levels(5), *(line.color for line in _plot.PAIRS.values())]
    for color in lines:
        assert contrast(color, "#ffffff") >= 3, color
