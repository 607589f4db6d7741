"""The page's style sheet. Text has a contrast of 4.5 or more to what it stands on, in light and dark."""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --soft: #f3f4f6; --line: #c9ccd1;
  --dim: #555b63;
  --link: #0b57a4; --yes: #00694b; --no: #a83c00; --open: #5a5f66; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #16181c; --soft: #23262c; --line: #4a4e57; --dim: #b3b7bd; --link: #8cc2ff;
    --yes: #5fd0a8; --no: #ff9d66; --open: #b3b7bd; }
}
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink);
  background: var(--paper); max-width: 76rem; margin: 0 auto; padding: .7rem 1.1rem 4rem;
  overflow-wrap: break-word; }
h1 { font-size: 1.25rem; margin: .1rem 0 .2rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.1rem 0 .3rem; }
p { max-width: 56rem; margin: .45rem 0; } a { color: var(--link); }
.lead { font-size: 1.06rem; max-width: none; margin: .1rem 0 .5rem; }
.small { font-size: .84rem; color: var(--dim); max-width: none; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .6rem 0; font-size: .87rem; }
th, td { text-align: left; vertical-align: top; padding: .28rem .6rem; border-bottom: 1px solid var(--line); }
th { background: var(--soft); } td.n { font-variant-numeric: tabular-nums; white-space: nowrap; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
figure { margin: 1rem 0; break-inside: avoid; }
.message { font-size: .98rem; font-weight: 650; margin: 0 0 .35rem; }
.sheet { background: #fff; color: #1b1b1b; border: 1px solid var(--line); border-radius: 5px;
  padding: .3rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fit,
  minmax(min(100%, max(17rem, 100% / (var(--columns) + .6))), 1fr)); }
.panels img { width: 100%; height: auto; display: block; max-width: 27rem; margin: 0 auto; }
.front .panels img { max-width: none; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: .1rem .5rem .3rem;
  padding: 0;
  font-size: .82rem; justify-content: center; }
.legend li { display: flex; align-items: center; gap: .4rem; } .swatch { flex: none; }
figcaption { font-size: .84rem; color: var(--dim); max-width: 66rem; margin-top: .3rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
  gap: .3rem 1.2rem; }
.pair figure { margin: .2rem 0; display: grid; grid-row: span 3; grid-template-rows: subgrid; gap: 0;
  grid-template-columns: minmax(0, 1fr); }
.pair .message { align-self: end; }
.pair figure:only-child { max-width: 46rem; }
.front .message { font-size: .92rem; } .front figcaption { font-size: .78rem; }
.cards { list-style: none; margin: .5rem 0; padding: 0; border-top: 1px solid var(--line); }
.card { display: grid; grid-template-columns: 9.2rem minmax(0, 19rem) minmax(0, 1.5fr) minmax(0, 1fr);
  gap: 0 .9rem;
  padding: .2rem .2rem; border-bottom: 1px solid var(--line); font-size: .86rem; line-height: 1.32; }
.card .then { color: var(--dim); }
.mark { font-weight: 700; white-space: nowrap; } .mark b { display: inline-block; width: 1.1em;
  text-align: center; }
.holds { color: var(--yes); } .fails { color: var(--no); } .open { color: var(--open); }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr));
  gap: .4rem 1.6rem; }
.drawing svg { width: 100%; height: auto; max-width: 34rem; display: block; margin: 0 auto; }
details { margin: .5rem 0; } summary { cursor: pointer; font-weight: 600; padding: .2rem 0; }
.note { border: 1px solid var(--line); border-left-width: 6px; background: var(--soft); padding: .4rem .8rem;
  margin: .5rem 0; }
.dim { color: var(--dim); }
pre { background: var(--soft); padding: .7rem; overflow-x: auto; font-size: .8rem; line-height: 1.4; }
dt { font-weight: 600; } dd { margin: 0 0 .4rem 1.2rem; max-width: 56rem; }
@media (max-width: 900px) {
  .card { grid-template-columns: minmax(0, 1fr); gap: .1rem; padding: .5rem .2rem; }
}
@media print {
  :root { --ink: #000; --paper: #fff; --soft: #f3f3f3; --line: #999; --dim: #333; --yes: #004d37;
  --no: #7a2c00; }
  body { font-size: 10pt; max-width: none; padding: 0; }
  table { font-size: 7.5pt; } h2 { break-after: avoid; } tr { break-inside: avoid; }
  .wide { overflow: visible; } pre { white-space: pre-wrap; }
}
"""
