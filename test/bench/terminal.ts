/**
 * The pictures of README.md and docs/cache-and-ci.md, made by running: docs/first-build.svg is a terminal with a first build
 * of a shop and an unchanged one, docs/timing.png the page of `--timing` of such a build.
 *
 *     npm run build && npx bun test/bench/terminal.ts
 */
import { join } from "node:path";
import { findCounterparts } from "../helpers/counterparts.ts";
import { goMod } from "../helpers/go.ts";
import { startRegistry } from "../helpers/registry.ts";
import { type Bench, makeBench } from "../helpers/world-bench.ts";
import type { Files } from "../helpers/world-folders.ts";
import { openScreen, type StyledText } from "../helpers/world-host.ts";
import { ourCommand, output } from "../helpers/world-programs.ts";

const DOCS = join(import.meta.dir, "..", "..", "docs");
const COLUMNS = 76;
const COMMAND = "ko resolve -f config/ > release.yaml";

/** Pixels of a character in 14 px of a monospaced font. */
const CELL = { width: 8.43, height: 20 };
const MARGIN = 16;
const CAPTION = 30;

/** The colours of a terminal, from black to white, for readers with a light and with a dark page. */
const LIGHT = "#57606a #cf222e #1a7f37 #9a6700 #0969da #8250df #1b7c83 #6e7781".split(" ");
const DARK = "#9198a1 #ff7b72 #3fb950 #d29922 #58a6ff #bc8cff #39c5cf #b1bac4".split(" ");

/** What each program imports, so that some are ready before others. */
const IMPORTS: Readonly<Record<string, readonly string[]>> = {
  admin: ["net/http", "html/template"],
  job: ["fmt"],
  mailer: ["net/smtp", "text/template"],
  store: ["net/http", "encoding/json", "database/sql"],
};

const SHOP: Files = {
  "go.mod": goMod("example.com/shop"),
  ...Object.fromEntries(
    Object.entries(IMPORTS).flatMap(([name, imports]) => [
      [`cmd/${name}/main.go`, program(imports)],
      [`config/${name}.yaml`, `image: ko://example.com/shop/cmd/${name}\n`],
    ]),
  ),
};

type Lines = readonly (readonly StyledText[])[];

const programs = findCounterparts(["docker-registry", "chromium"]);
if (programs === undefined) process.exit(1);
await using registry = await startRegistry();
{
  using bench = makeBench(SHOP, { host: registry.host, plainGo: true });
  const first = await runOnTerminal(bench);
  const second = await runOnTerminal(bench);
  const svg = formatSvg([
    { caption: "A first build, while it runs", lines: first.busiest },
    { caption: "At its end", lines: first.last },
    { caption: "Again, with nothing changed", lines: second.last },
  ]);
  await Bun.write(join(DOCS, "first-build.svg"), svg);
}
{
  using bench = makeBench(SHOP, { host: registry.host, plainGo: true });
  const page = bench.tree.at("times.html");
  const built = await bench.start(["resolve", "-f", "config/", "--timing=times.html"]).result;
  if (built.code !== 0) throw new Error(built.stderr);
  const flags = ["--headless=new", "--no-sandbox", "--disable-gpu", `--user-data-dir=${bench.work.at("profile")}`];
  const picture = ["--window-size=1000,860", "--hide-scrollbars", `--screenshot=${join(DOCS, "timing.png")}`];
  await output([programs.chromium, ...flags, ...picture, Bun.pathToFileURL(page).href], {
    cwd: bench.work.path,
    env: bench.env,
  });
}

/** Runs the command on a terminal. @returns the screen at its end, and when most programs were in different stages */
async function runOnTerminal(bench: Bench): Promise<{ readonly busiest: Lines; readonly last: Lines }> {
  const screen = await openScreen(COLUMNS, 24);
  await screen.write(`$ ${COMMAND}\n`);
  // A reader's registry is another.
  const readScreen = (): Lines =>
    screen
      .styled()
      .map((line) =>
        line.map((each) => ({ ...each, text: each.text.replaceAll(registry.host, "registry.example.com") })),
      );
  let busiest: Lines = [];
  let most = 0;
  const look = (): void => {
    const lines = readScreen();
    const text = lines.map((line) => line.map((each) => each.text).join("")).join("\n");
    const active = new Set(text.match(/\b(?:compiling|packing|uploading|tagging)\b/g));
    const kinds = active.size + (active.has("compiling") ? 1 : 0) + (/uploading [\d.]+ MB/.test(text) ? 1 : 0);
    if (kinds < most) return;
    most = kinds;
    busiest = lines;
  };
  let writes = Promise.resolve();
  const [ko = "", ...more] = ourCommand();
  const script = `ko() { "$KO" ${more.map((word) => `'${word}'`).join(" ")} "$@"; }; ${COMMAND}`;
  const child = Bun.spawn(["sh", "-c", script], {
    cwd: bench.tree.path,
    env: { ...bench.env, KO: ko, TERM: "xterm-256color" },
    terminal: {
      cols: COLUMNS,
      rows: 24,
      data: (_, data) => {
        const copy = data.slice();
        writes = writes.then(() => screen.write(copy)).then(look);
      },
    },
  });
  const code = await child.exited;
  child.terminal?.close();
  await writes;
  const last = readScreen();
  if (code !== 0) throw new Error(`it exited with ${code}: ${screen.history().join("\n")}`);
  return { busiest, last };
}

interface Panel {
  readonly caption: string;
  readonly lines: Lines;
}

/** The panels below each other, as text in the reader's colours: light or dark. */
function formatSvg(panels: readonly Panel[]): string {
  const width = Math.ceil(COLUMNS * CELL.width + 2 * MARGIN);
  const parts: string[] = [];
  let y = 0;
  for (const { caption, lines } of panels) {
    const height = lines.length * CELL.height + MARGIN;
    parts.push(`<text class="caption" x="2" y="${y + CAPTION - 9}">${escapeXml(caption)}</text>`);
    parts.push(`<rect x="0.5" y="${y + CAPTION + 0.5}" width="${width - 1}" height="${height - 1}" rx="6"/>`);
    for (const [i, line] of lines.entries()) {
      parts.push(...formatLine(line, y + CAPTION + MARGIN / 2 + i * CELL.height + 15));
    }
    y += CAPTION + height;
  }
  const alt = panels.map(({ caption, lines }) => {
    const text = lines.map((line) => line.map((each) => each.text).join("")).join("; ");
    return `${caption}: ${text}`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${y + 1}" viewBox="0 0 ${width} ${y + 1}" role="img">
<title>${escapeXml(`${COMMAND}: a first build and an unchanged one`)}</title>
<desc>${escapeXml(alt.join(". "))}</desc>
<style>
rect { fill: #f6f8fa; stroke: #d1d9e0; }
text { fill: #1f2328; font: 14px ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre; }
.caption { fill: #59636e; font: 13px system-ui, sans-serif; }
${colors(LIGHT)}
@media (prefers-color-scheme: dark) {
  rect { fill: #151b23; stroke: #3d444d; }
  text { fill: #f0f6fc; }
  .caption { fill: #9198a1; }
  ${colors(DARK)}
}
</style>
${parts.join("\n")}
</svg>
`;
}

function colors(palette: readonly string[]): string {
  return palette.map((color, i) => `.c${i} { fill: ${color}; }`).join(" ");
}

function formatLine(line: readonly StyledText[], y: number): readonly string[] {
  let column = 0;
  return line.flatMap(({ color, isBold, text }) => {
    const x = MARGIN + column * CELL.width;
    column += text.length;
    if (text.trim() === "") return [];
    const style = `${color === undefined ? "" : ` class="c${color}"`}${isBold ? ' font-weight="bold"' : ""}`;
    // Each font has the columns of the terminal.
    const length = (text.length * CELL.width).toFixed(1);
    return `<text x="${x.toFixed(1)}" y="${y}" textLength="${length}" lengthAdjust="spacingAndGlyphs"${style}>${escapeXml(text)}</text>`;
  });
}

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function program(imports: readonly string[]): string {
  return `package main\n\nimport (\n${imports.map((path) => `\t_ "${path}"\n`).join("")})\n\nfunc main() {}\n`;
}
