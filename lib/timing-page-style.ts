/** The style sheet of the page of `--timing=FILE.html`: light and dark, narrow and wide, without anything to load. */
import type { Stage } from "./events.ts";

/** Hues of OKLCH, in degrees. Stages that follow each other are far apart; undefined is grey. */
const HUES: Readonly<Record<Stage, number | undefined>> = {
  start: undefined,
  read: 20,
  list: 310,
  base: 90,
  check: undefined,
  compile: 255,
  layer: 55,
  upload: 150,
  manifest: 200,
  load: 130,
  write: 170,
  sbom: 345,
  kubectl: 285,
  rollout: 120,
};

const BARS: string = Object.entries(HUES)
  .map(([stage, hue]) => `.${stage} { --bar: oklch(var(--lightness) ${hue === undefined ? "0 0" : `0.13 ${hue}`}); }\n`)
  .join("");

export const STYLE: string = `:root {
  color-scheme: light dark;
  --lightness: 50%;
  --back: #ffffff;
  --text: #1c1e21;
  --quiet: #5c6166;
  --line: #d9dce0;
  --on-bar: #ffffff;
  --bad: #b3261e;
  --lane-height: 1.45rem;
  font: 15px/1.45 system-ui, sans-serif;
}
@media (prefers-color-scheme: dark) {
  :root {
    --lightness: 74%;
    --back: #15171a;
    --text: #e8eaed;
    --quiet: #a3a9b0;
    --line: #33373c;
    --on-bar: #101214;
    --bad: #ff8a80;
  }
}
${BARS}* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1.5rem 4rem; max-width: 110rem; background: var(--back); color: var(--text); }
h1 { margin: 0; font-size: 1.35rem; font-weight: 600; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 0.5rem; font-size: 1.1rem; }
h3 { margin: 1rem 0 0.25rem; font-size: 0.95rem; color: var(--quiet); font-weight: 600; }
p { margin: 0.4rem 0; overflow-wrap: anywhere; }
h1 span { display: inline-block; max-width: 100%; }
code, pre { font-family: ui-monospace, monospace; }
.wait { white-space: nowrap; }
.help { color: var(--quiet); font-size: 0.85rem; }
.failure {
  padding: 0.6rem 0.8rem;
  border-left: 4px solid var(--bad);
  color: var(--bad);
  white-space: pre-wrap;
  overflow-wrap: anywhere;
}
.legend { display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; margin: 0.4rem 0; padding: 0; list-style: none; }
.swatch {
  display: inline-block;
  width: 0.85em;
  height: 0.85em;
  margin-right: 0.4em;
  border-radius: 2px;
  vertical-align: -0.08em;
  background: var(--bar);
}
.row { display: grid; grid-template-columns: minmax(8rem, 17%) 1fr; gap: 0.75rem; padding: 0.2rem 0; }
.row + .row { border-top: 1px solid var(--line); }
.name { min-width: 0; font-size: 0.9rem; }
.name > * { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.name small { color: var(--quiet); }
.track {
  position: relative;
  height: calc(var(--lanes, 1) * var(--lane-height));
  background: linear-gradient(to right, var(--line) 1px, transparent 1px) 0 0 / var(--step) 100%;
}
.axis .track { height: 1.3rem; }
.axis span { position: absolute; padding-left: 0.25rem; font-size: 0.8rem; color: var(--quiet); white-space: nowrap; }
.bar {
  position: absolute;
  top: calc(var(--lane, 0) * var(--lane-height) + 1px);
  height: calc(var(--lane-height) - 2px);
  min-width: 2px;
  border-radius: 2px;
  background: var(--bar);
  color: var(--on-bar);
  font-size: 0.8rem;
  text-decoration: none;
}
.bar > span { display: block; overflow: hidden; padding: 0 0.35em; white-space: nowrap; }
.path { border-bottom: 3px solid var(--text); }
.swatch.path { border-radius: 0; }
.swatch.open, .open { background-image: repeating-linear-gradient(135deg, transparent 0 4px, var(--back) 4px 6px); }
.swatch.open { background-color: var(--quiet); }
i.life { position: absolute; top: calc(var(--lane-height) / 2 - 1px); height: 2px; background: var(--quiet); }
i.swatch.life { position: static; height: 2px; vertical-align: 0.3em; }
.bar:hover, .bar:focus-visible { z-index: 2; outline: 2px solid var(--text); outline-offset: 1px; }
.bar:hover::after, .bar:focus-visible::after {
  content: attr(aria-label);
  position: absolute;
  z-index: 3;
  top: calc(100% + 5px);
  left: 0;
  width: max-content;
  max-width: min(30rem, 45vw);
  padding: 0.3rem 0.55rem;
  border: 1px solid var(--line);
  border-radius: 4px;
  background: var(--back);
  color: var(--text);
  box-shadow: 0 2px 8px rgb(0 0 0 / 30%);
  overflow-wrap: anywhere;
  white-space: normal;
}
.bar.right::after { left: auto; right: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; }
th, td { padding: 0.2rem 0.8rem 0.2rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; }
th { white-space: nowrap; font-weight: 600; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; text-align: right; }
td:has(> .swatch) { white-space: nowrap; }
tr:target { background: color-mix(in oklch, var(--text) 15%, var(--back)); }
tr { scroll-margin-top: 30vh; }
@media (max-width: 40rem) {
  body { padding: 0.75rem; }
  .row { grid-template-columns: 1fr; gap: 0; }
}
`;
