"""The page's style sheet: two families of type, one accent colour, light and dark, narrow and wide screens."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fcfcfa; --raised: #f4f3ef; --ink: #1b1c1e; --muted: #62656b; --faint: #9b9da2; --hair: #e3e1da;
  --accent: #1a5fb4; --wrong: #b1402c; --wrong-soft: #faece8;
  --serif: Charter, "Bitstream Charter", "Iowan Old Style", "Palatino Linotype", Georgia, "Noto Serif", serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Helvetica Neue", Arial, sans-serif;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #141517; --raised: #1d1f22; --ink: #e7e6e2; --muted: #a3a5a9; --faint: #74777d; --hair: #303338;
    --accent: #83b4f5; --wrong: #f19380; --wrong-soft: #2f1f1c;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 76rem; padding: clamp(1.5rem, 5vw, 4.5rem) clamp(1rem, 4vw, 3rem) 6rem;
  background: var(--paper); color: var(--ink); font: 1.0625rem/1.6 var(--serif); font-variant-numeric: lining-nums;
}
h1, h2, h3, p, ul, ol, table, figure, dl { margin: 0; padding: 0; }
h1, h2, h3 { font-weight: 600; line-height: 1.2; text-wrap: balance; }
h1 { font-size: clamp(1.8rem, 1.2rem + 2.4vw, 2.7rem); letter-spacing: -.015em; max-width: 32ch; }
h2 { font-size: 1.3rem; letter-spacing: -.005em; }
h3 { font: 600 .84rem/1.4 var(--sans); }
p, .notes li { max-width: 66ch; text-wrap: pretty; }
a { color: var(--accent); text-underline-offset: .18em; text-decoration-thickness: 1px; }
code { font: .86em/1.4 ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
small { font-size: .86em; color: var(--muted); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; border-radius: 2px; }

.kicker { font: 600 .8rem/1.4 var(--sans); color: var(--muted); margin-bottom: .9rem; }
.lede { font-size: clamp(1.08rem, 1rem + .35vw, 1.25rem); line-height: 1.55; margin-top: 1.4rem; max-width: 62ch; }
.caveat { margin-top: 1.1rem; padding-left: 1rem; border-left: 2px solid var(--faint); color: var(--muted); }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1.3rem; list-style: none; margin-top: 2.2rem; }
nav { font: .86rem/1.5 var(--sans); }
nav a { color: var(--muted); text-decoration: none; border-bottom: 1px solid var(--hair); }
nav a:hover { color: var(--accent); border-color: currentColor; }

.stats {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: 0 2.5rem; margin-top: 2.6rem;
}
.stats > div { border-top: 1px solid var(--ink); padding: .8rem 0 1.6rem; }
.stats > .ours { border-top: 3px solid var(--accent); padding-top: calc(.8rem - 2px); }
.stats dt { font: 600 .86rem/1.4 var(--sans); }
.stats dd { margin: 0; }
.stats .value {
  font-size: clamp(2.3rem, 1.8rem + 2vw, 3.1rem); line-height: 1.2; letter-spacing: -.02em;
  font-variant-numeric: lining-nums tabular-nums;
}
.stats .ours .value { color: var(--accent); }
.stats .under { font: .86rem/1.5 var(--sans); color: var(--muted); max-width: 32ch; }

section { border-top: 1px solid var(--hair); margin-top: clamp(2.6rem, 5vw, 4rem); padding-top: 1.5rem; }
section > header p { font: .88rem/1.55 var(--sans); color: var(--muted); margin-top: .6rem; max-width: 52ch; }
section > .body { margin-top: 1.6rem; min-width: 0; }
.body > * + * { margin-top: 1.9rem; }
@media (min-width: 62rem) {
  section { display: grid; grid-template-columns: 15rem minmax(0, 1fr); column-gap: 3.5rem; }
  section > .body { margin-top: .15rem; }
}

.pair { display: grid; gap: 2.2rem 3rem; grid-template-columns: minmax(0, 1fr); }
@media (min-width: 46rem) { .pair { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
figure { max-width: 34rem; }
figcaption, caption { font: 600 .86rem/1.45 var(--sans); text-align: left; padding-bottom: .7rem; max-width: 72ch; }
figcaption span, caption span { font-weight: 400; color: var(--muted); }
.y-name { font: .76rem/1.3 var(--sans); color: var(--muted); }

.chart { display: block; width: 100%; height: auto; overflow: visible; }
.chart text { font-family: var(--sans); font-size: 12px; fill: var(--muted); font-variant-numeric: tabular-nums; }
@media (min-width: 62rem) { .chart text { font-size: 11px; } }
.chart .end { text-anchor: end; }
.chart .middle { text-anchor: middle; }
.chart line { stroke: var(--hair); stroke-width: 1; }
.chart line.axis { stroke: var(--faint); }
.chart line.leader { stroke: var(--faint); stroke-width: .7; }
.chart line.mark { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 2 3; }
.chart text.mark-name { fill: var(--ink); }
.chart .line { fill: none; stroke: var(--faint); stroke-width: 1.6; stroke-linejoin: round; stroke-linecap: round; }
.chart .dot { fill: var(--faint); stroke: var(--paper); stroke-width: 1; }
.chart .line.majority { stroke: var(--ink); }
.chart .dot.majority { fill: var(--ink); }
.chart .line-name.majority { fill: var(--ink); }
.chart .line.oracle, .chart .line.error-found { stroke-dasharray: 5 4; }
.chart .line.likelihood, .chart .line.right-passed { stroke-dasharray: 1 4; stroke-width: 2; }
.chart .line.prm_at_init { stroke-dasharray: 7 3 1 3; }
.chart .line.prm { stroke: var(--accent); stroke-width: 2.6; }
.chart .line.how-min, .chart .line.how-product, .chart .line.how-mean { stroke-width: 1.6; }
.chart .line.how-min { stroke-dasharray: 1 4; }
.chart .line.how-product { stroke-dasharray: 7 3 1 3; }
.chart .line.how-mean { stroke-dasharray: 5 4; }
.chart .line.position_only, .chart .line.length_only { stroke-width: 1; }
.chart .dot.prm { fill: var(--accent); }
.chart .line-name.prm { fill: var(--accent); font-weight: 600; }
.chart .disc { fill: var(--accent); fill-opacity: .55; stroke: var(--accent); }

table { border-collapse: collapse; font: .88rem/1.45 var(--sans); font-variant-numeric: lining-nums tabular-nums; }
th { font-weight: 500; text-align: left; }
.scroll {
  overflow-x: auto; background:
    linear-gradient(90deg, var(--paper) 30%, transparent) 0 0 / 2rem 100% local,
    linear-gradient(270deg, var(--paper) 30%, transparent) 100% 0 / 2rem 100% local,
    linear-gradient(90deg, var(--hair), transparent) 0 0 / .8rem 100% scroll,
    linear-gradient(270deg, var(--hair), transparent) 100% 0 / .8rem 100% scroll;
  background-repeat: no-repeat;
}
.scroll table { min-width: 100%; }
.scroll th, .scroll td { padding: .5rem .9rem .5rem 0; border-bottom: 1px solid var(--hair); vertical-align: baseline; }
.scroll td, .scroll thead th + th { text-align: right; padding-right: 0; padding-left: 1.1rem; }
.scroll td { white-space: nowrap; }
.scroll thead th { color: var(--muted); font-weight: 400; vertical-align: bottom; border-bottom-color: var(--faint); }
.scroll tbody th { min-width: 8.5rem; }
.scroll tr.prm > * { color: var(--accent); font-weight: 600; }
.scroll tr.total > * { border-bottom: 0; font-weight: 600; }
.scroll tr.group > th { padding-top: 1.2rem; color: var(--muted); font-weight: 400; }
.bars, .intervals { width: 100%; max-width: 44rem; }
.bars th, .intervals th { padding: .36rem 1rem .36rem 0; width: 13rem; line-height: 1.3; }
.bars .track, .intervals .track { padding: 0; }
.bars .track i {
  display: block; height: .95rem; min-width: 1px; background: var(--faint); opacity: .75;
  border-radius: 0 2px 2px 0;
}
.bars .prm .track i { background: var(--accent); opacity: 1; }
.bars .majority .track i { background: var(--ink); opacity: .8; }
.bars .oracle .track i { background: none; border: 1px dashed var(--faint); opacity: 1; }
.bars .prm > * { color: var(--accent); font-weight: 600; }
.num { text-align: right; white-space: nowrap; padding-left: 1rem; width: 4.8rem; }
.bars .num { width: 11.5rem; }
.intervals .num { width: 14.5rem; }
.intervals .track div { position: relative; height: 1.5rem; }
.intervals i { position: absolute; }
.intervals .zero { top: 0; bottom: 0; border-left: 1px dashed var(--faint); }
.intervals .span { top: calc(50% - 1.5px); height: 3px; background: var(--accent); opacity: .45; border-radius: 2px; }
.intervals .point {
  top: calc(50% - 5px); width: 10px; height: 10px; margin-left: -5px; border-radius: 50%; background: var(--accent);
}
@media (max-width: 40rem) {
  .bars, .bars tbody, .intervals, .intervals tbody { display: block; }
  .bars caption, .intervals caption { display: block; }
  .bars tr, .intervals tr { display: grid; grid-template-columns: minmax(0, 1fr) auto; padding: .4rem 0; }
  .bars th, .intervals th { width: auto; padding: 0 0 .15rem; }
  .bars .track, .intervals .track { grid-row: 2; grid-column: 1 / -1; }
  .num, .intervals .num { width: auto; }
  .scroll table { font-size: .8rem; }
  .scroll td, .scroll thead th + th { padding-left: .7rem; }
  .scroll tbody th { min-width: 6rem; }
}

details summary { cursor: pointer; }
details.data { margin-top: .5rem; font: .82rem/1.5 var(--sans); }
details.data summary { color: var(--muted); width: max-content; }
details.data table { font-size: .8rem; margin-top: .4rem; }
.absent { color: var(--muted); }
.why-absent { font: .82rem/1.5 var(--sans); color: var(--muted); max-width: 76ch; overflow-wrap: anywhere; }

.solution { border-top: 1px solid var(--hair); }
.solution:last-of-type { border-bottom: 1px solid var(--hair); }
.body > .solution + .solution { margin-top: 0; }
.solution > summary { padding: .85rem 0; list-style-position: outside; margin-left: 1.1rem; }
.solution > summary .question { display: block; font-size: 1rem; line-height: 1.45; }
.solution > summary small { font: .82rem/1.5 var(--sans); }
.solution > .inside { padding: .3rem 0 2rem; }
.model { overflow-wrap: anywhere; unicode-bidi: isolate; white-space: pre-wrap; }
.given { display: grid; gap: 1.3rem 2.5rem; grid-template-columns: minmax(0, 1fr); margin-bottom: 1.5rem; }
@media (min-width: 46rem) { .given { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
.given ol { list-style: none; font-size: .95rem; line-height: 1.5; margin-top: .3rem; }
.given li, .step .said { display: grid; grid-template-columns: 2.3rem minmax(0, 1fr); }
.id { font: .78rem/1.9 var(--sans); color: var(--muted); font-variant-numeric: tabular-nums; }
.steps { list-style: none; display: grid; gap: .7rem; }
.step {
  padding: .65rem .9rem .75rem; background: var(--raised);
  border-left: 4px solid var(--faint); border-radius: 0 4px 4px 0;
}
.step.right { border-left-color: var(--accent); }
.step.wrong { border-left-color: var(--wrong); background: var(--wrong-soft); }
.verdicts {
  display: flex; flex-wrap: wrap; gap: .2rem 1.3rem; margin: .4rem 0 0 2.3rem;
  font: .82rem/1.6 var(--sans); color: var(--muted);
}
.solution b { font-weight: 600; }
.inside h3 { margin-bottom: .4rem; }
b.right { color: var(--accent); }
b.wrong { color: var(--wrong); }
.verdicts .differ { color: var(--ink); border-bottom: 1px dashed currentColor; }
.meter {
  display: inline-block; width: 3.6rem; height: .5rem; margin-right: .4rem; vertical-align: .05em;
  background: var(--hair); border-radius: 3px; overflow: hidden;
}
.meter i { display: block; height: 100%; background: var(--muted); }
.explanation { margin: .35rem 0 0 2.3rem; font-size: .95rem; line-height: 1.5; }
.aligned { margin: .25rem 0 0 2.3rem; font: .8rem/1.6 var(--sans); color: var(--muted); max-width: none; }
.aligned span + span::before { content: " · "; }
.notes ul { padding-left: 1.1rem; }
.notes li + li { margin-top: .5rem; }
footer { margin-top: 4rem; font: .82rem/1.6 var(--sans); color: var(--muted); }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, details.data { display: none; }
  .step, figure, tr { break-inside: avoid; }
}
"""
