"""The style sheet of the long-tail report: one column on a phone, light or dark as the reader's system has it."""

CSS = """
:root { color-scheme: light dark;
  --paper: #f7f8fa; --card: #ffffff; --ink: #1b2330; --soft: #5b6675; --rule: #dfe3e9; --band: #f0f3f7;
  --s0: #2563c9; --s1: #d9730d; --good: #16813d; --bad: #c4314b; --truth: #ffffff; --heat: 37, 99, 201; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #11151b; --card: #1a2029; --ink: #e6eaf0; --soft: #9aa6b6; --rule: #303947; --band: #222a35;
  --s0: #6ea8ff; --s1: #ffa657; --good: #56d27e; --bad: #ff7b93; --heat: 110, 168, 255; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 20px 16px 60px; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 8px 0 4px; }
h2 { font-size: 1.2rem; margin: 40px 0 6px; }
h3 { font-size: 1rem; margin: 0 0 6px; }
p { margin: 4px 0 12px; max-width: 72ch; }
.soft, .note { color: var(--soft); } .note { font-size: .88rem; }
.grid { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 360px), 1fr)); }
.grid.two { grid-template-columns: repeat(auto-fit, minmax(min(100%, 360px), 1fr)); }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px; min-width: 0; }
.tiles { display: grid; gap: 10px; grid-template-columns: repeat(auto-fit, minmax(120px, 1fr)); margin: 14px 0; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 10px 12px; }
.tile b { display: block; font-size: .82rem; font-weight: 500; color: var(--soft); }
.tile span { font-size: 1.35rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile span + span { margin-left: 10px; }
.tile .delta { display: block; margin: 0; font-size: .88rem; font-weight: 500; }
.s0t { color: var(--s0); } .s1t { color: var(--s1); } .up { color: var(--good); } .down { color: var(--bad); }
/* a shadow at the edge behind which there is more */
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; --edge: color-mix(in srgb, var(--soft) 50%, transparent);
  background: linear-gradient(to right, var(--card) 40%, transparent) left / 30px 100% no-repeat local,
    linear-gradient(to left, var(--card) 40%, transparent) right / 30px 100% no-repeat local,
    linear-gradient(to right, var(--edge), transparent) left / 12px 100% no-repeat,
    linear-gradient(to left, var(--edge), transparent) right / 12px 100% no-repeat; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 8px; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child, .text { text-align: left; }
td.name { white-space: normal; overflow-wrap: anywhere; min-width: 7em; }
th.over { text-align: center; border-bottom: 0; padding-bottom: 0; }
table.tight { font-size: .84rem; } .tight th, .tight td { padding: 4px; }
.heatmap th:not(:first-child) { text-align: center; }
td.heat { text-align: center; background: rgba(var(--heat), calc(var(--part) * .55)); }
svg.chart { display: block; width: 100%; height: auto; }
.tick, .label, .value { font: 11px system-ui, "DejaVu Sans", sans-serif; fill: var(--soft); }
.label { font-weight: 600; } .value { fill: var(--ink); text-anchor: middle; }
line.grid { stroke: var(--rule); stroke-width: 1; display: inline; } .band { fill: var(--band); }
.axis, .diagonal { stroke: var(--soft); stroke-width: 1; fill: none; } .diagonal { stroke-dasharray: 3 4; }
.bar.s0, .dot.s0 { fill: var(--s0); } .bar.s1, .dot.s1 { fill: var(--s1); }
.dot { fill-opacity: .45; } .dot.big { fill-opacity: 1; }
.dot.hollow { fill: none; stroke-width: 1; stroke-opacity: .6; }
.dot.hollow.s0 { stroke: var(--s0); } .dot.hollow.s1 { stroke: var(--s1); }
.line { fill: none; stroke-width: 2.2; stroke-linejoin: round; } .line.dashed { stroke-dasharray: 5 4; }
.line.s0 { stroke: var(--s0); } .line.s1 { stroke: var(--s1); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: .86rem; color: var(--soft); margin-top: 6px; }
.key { display: inline-flex; align-items: center; gap: 6px; }
.key i { width: 18px; height: 0; border-top: 4px solid; border-radius: 2px; }
.key i.dashed { border-top-style: dotted; }
i.s0 { color: var(--s0); } i.s1 { color: var(--s1); }
.examples { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 250px), 1fr)); }
.examples figure { margin: 0; } .examples figcaption { font-size: .86rem; overflow-wrap: anywhere; margin-top: 6px; }
.examples svg { width: 100%; height: auto; max-height: 300px; background: #39424f; border-radius: 6px; display: block; }
.examples svg + svg { margin-top: 4px; }
.box { fill: none; stroke-width: 2; } .box.truth { stroke: var(--truth); stroke-dasharray: 5 3; }
.box.right { stroke: #4ade80; } .box.wrong { stroke: #ff8a3d; } .box.other { stroke: #f0abfc; }
.tag { font: 600 17px system-ui, "DejaVu Sans", sans-serif; paint-order: stroke; stroke: #000; stroke-width: 4px; }
.tag.right { fill: #86efac; } .tag.wrong { fill: #ffb483; } .tag.other { fill: #f5c8fd; }
.chip { display: inline-block; border: 1px solid var(--rule); border-radius: 9px; padding: 0 7px; font-size: .74rem;
  color: var(--soft); white-space: nowrap; }
details { margin-top: 12px; } summary { cursor: pointer; font-weight: 600; }
@media (max-width: 480px) { main { padding: 12px 12px 40px; } .card { padding: 10px; } h1 { font-size: 1.35rem; }
  .examples { grid-template-columns: 1fr 1fr; gap: 10px; }
  table, table.tight { font-size: .8rem; } th, td { padding: 4px; } }
@media print { body { background: #fff; } details { display: none; } }
"""
