/**
 * The page of `--timing=FILE.html` and the pictures of the documentation in a real browser: Debian's chromium without a window, over its DevTools protocol.
 *
 * https://chromedevtools.github.io/devtools-protocol/
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { findCounterparts } from "./helpers/counterparts.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";
import { waitUntil } from "./helpers/world-programs.ts";

const programs = findCounterparts(["chromium"]);

const DOCS = join(import.meta.dir, "..", "docs");
const PICTURES = readdirSync(DOCS).filter((name) => name.endsWith(".svg"));

/** A page in the browser, and all that happened in it. */
interface OpenedPage extends AsyncDisposable {
  /** Messages of the console and of the browser, refusals by the policy among them. */
  readonly said: readonly string[];
  /** Requested URLs. */
  readonly requested: readonly string[];
  send(method: string, params?: object): Promise<unknown>;
  /** The value of an expression, as JSON keeps it. */
  evaluate(expression: string): Promise<unknown>;
  /** Waits until the page is loaded. */
  goTo(url: string): Promise<void>;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}

function at(value: unknown, ...keys: readonly string[]): unknown {
  return keys.reduce((inner, key) => (isRecord(inner) ? inner[key] : undefined), value);
}

async function openBrowser(chromium: string, profile: string): Promise<OpenedPage> {
  const flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"];
  const child = Bun.spawn(
    [chromium, ...flags, `--user-data-dir=${profile}`, "--remote-debugging-port=0", "about:blank"],
    {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    },
  );
  const origin = await findOrigin(child.stderr);
  let target: unknown;
  await waitUntil(async () => {
    const targets: unknown = await (await fetch(`http://${origin}/json/list`)).json();
    target = Array.isArray(targets) ? targets.find((each) => at(each, "type") === "page") : undefined;
    return target !== undefined;
  });
  const socket = new WebSocket(String(at(target, "webSocketDebuggerUrl")));
  await new Promise((resolve) => socket.addEventListener("open", resolve, { once: true }));
  const waiting = new Map<unknown, (answer: unknown) => void>();
  const said: string[] = [];
  const requested: string[] = [];
  socket.addEventListener("message", ({ data }) => {
    const message: unknown = JSON.parse(String(data));
    const method = at(message, "method");
    waiting.get(at(message, "id"))?.(message);
    if (method === "Network.requestWillBeSent") requested.push(String(at(message, "params", "request", "url")));
    if (method === "Log.entryAdded") said.push(String(at(message, "params", "entry", "text")));
    if (method === "Runtime.consoleAPICalled" || method === "Runtime.exceptionThrown")
      said.push(JSON.stringify(message));
  });
  let ids = 0;
  const send = async (method: string, params: object = {}): Promise<unknown> => {
    const id = ++ids;
    const answer = new Promise((resolve) => waiting.set(id, resolve));
    socket.send(JSON.stringify({ id, method, params }));
    const message = await answer;
    if (at(message, "error") !== undefined) throw new Error(`${method}: ${JSON.stringify(at(message, "error"))}`);
    return at(message, "result");
  };
  for (const domain of ["Page", "Network", "Log", "Runtime"]) await send(`${domain}.enable`);
  const evaluate = async (expression: string): Promise<unknown> => {
    const answer = await send("Runtime.evaluate", { expression, returnByValue: true });
    if (at(answer, "exceptionDetails") !== undefined) throw new Error(JSON.stringify(answer));
    return at(answer, "result", "value");
  };
  return {
    said,
    requested,
    send,
    evaluate,
    goTo: async (url) => {
      // The answer comes when the new document has replaced the old one.
      await send("Page.navigate", { url });
      await waitUntil(async () => (await evaluate(`document.readyState + " " + location.href`)) === `complete ${url}`);
    },
    [Symbol.asyncDispose]: async () => {
      socket.close();
      child.kill();
      await child.exited;
    },
  };
}

/** The host and port of the DevTools, which chromium prints. */
async function findOrigin(stderr: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  const decoder = new TextDecoder();
  const reader = stderr.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error(`chromium ended: ${text}`);
    text += decoder.decode(value, { stream: true });
    const [, origin] = /DevTools listening on ws:\/\/([^/\s]+)/.exec(text) ?? [];
    if (origin === undefined) continue;
    // A full pipe would stop it.
    void (async () => {
      while (!(await reader.read()).done);
    })().catch(() => {});
    return origin;
  }
}

const SIZES = [800, 1600].flatMap((width) => (["light", "dark"] as const).map((scheme) => ({ width, scheme })));

/** In the page: text that is not readable, as its element and its contrast with the colour behind it (WCAG 2.2, 1.4.3). */
const FAINT = `(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const luminance = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = Array.from(canvas.getImageData(0, 0, 1, 1).data, (x) => x / 255)
      .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = (element) => {
    for (let at = element; at !== null; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (color !== "rgba(0, 0, 0, 0)") return color;
    }
    return "white";
  };
  const texts = [...document.querySelectorAll("body *")].filter((each) =>
    [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim() !== ""));
  return texts.flatMap((each) => {
    const [a, b] = [luminance(getComputedStyle(each).color), luminance(back(each))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    return contrast < 4.5 ? [each.outerHTML.slice(0, 80) + " " + contrast.toFixed(2)] : [];
  });
})()`;

/** In the page: bars that are outside of their row or cannot be seen. */
const LOST = `[...document.querySelectorAll(".bar")].filter((bar) => {
  const [a, b] = [bar.getBoundingClientRect(), bar.parentElement.getBoundingClientRect()];
  return a.width < 2 || a.height < 5 || a.left < b.left - 0.5 || a.right > b.right + 0.5 || a.bottom > b.bottom + 0.5;
}).map((bar) => bar.outerHTML)`;

describe.skipIf(programs === undefined)("the page of --timing in a browser", () => {
  let bench: Bench;
  let profile: Tree;
  let page: OpenedPage;
  /** Of a first build. */
  let url: string;
  beforeAll(async () => {
    bench = makeBench(
      {
        "go.mod": goMod("example.com/app"),
        "cmd/web/main.go": mainGo("web"),
        "cmd/web/kodata/index.html": "hello\n",
        "cmd/worker/main.go": mainGo("worker"),
        "broken/main.go": "package main\n\nfunc main() { missing() }\n",
      },
      { host: "registry.invalid" },
    );
    profile = writeTree({});
    const built = await bench.ours(["build", "-B", "--push=false", "--timing=first.html", "./cmd/..."]);
    if (built.code !== 0) throw new Error(built.stderr);
    url = Bun.pathToFileURL(bench.tree.at("first.html")).href;
    page = await openBrowser(programs?.chromium ?? "", profile.path);
  });
  afterAll(async () => {
    await page[Symbol.asyncDispose]();
    profile[Symbol.dispose]();
    bench[Symbol.dispose]();
  });

  const names = (): Promise<unknown> =>
    page.evaluate(`[...document.querySelectorAll(".row .name")].map(({ title, innerText }) => [title, innerText])`);

  test("shows a run: its rows, without a message, a request or an overflow, in both themes and widths", async () => {
    await page.goTo(url);
    const rows = await names();
    expect(rows).toContainEqual(["example.com/app/cmd/web", "web\nrebuilt, first build here"]);
    expect(rows).toContainEqual(["example.com/app/cmd/worker", "worker\nrebuilt, first build here"]);
    for (const stage of ["start", "list", "base"]) expect(rows).toContainEqual([stage, stage]);
    expect(await page.evaluate(`document.title`)).toContain(" --push=false --timing=first.html ./cmd/...: ");
    const stages = (program: string): Promise<unknown> =>
      page.evaluate(
        `[...document.querySelector('.name[title$="${program}"]').parentElement.querySelectorAll(".bar")].map((bar) => bar.classList[1])`,
      );
    expect(await stages("/web")).toEqual(expect.arrayContaining(["check", "compile", "layer"]));
    for (const { scheme, width } of SIZES) {
      await page.send("Emulation.setDeviceMetricsOverride", {
        width,
        height: 900,
        deviceScaleFactor: 1,
        mobile: false,
      });
      await page.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
      const overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
      expect([scheme, width, await page.evaluate(overflow)]).toEqual([scheme, width, 0]);
      expect(await page.evaluate(LOST)).toEqual([]);
      expect(await page.evaluate(FAINT)).toEqual([]);
    }
    expect([page.said, page.requested]).toEqual([[], [url]]);
  });

  test("shows the name of a bar that the keyboard reaches, and leads to its line in the table", async () => {
    await page.goTo(url);
    const press = async (key: string, code: number): Promise<void> => {
      const text = key === "Enter" ? { text: "\r" } : {};
      await page.send("Input.dispatchKeyEvent", { type: "keyDown", key, windowsVirtualKeyCode: code, ...text });
      await page.send("Input.dispatchKeyEvent", { type: "keyUp", key, windowsVirtualKeyCode: code });
    };
    await press("Tab", 9);
    expect(await page.evaluate(`getComputedStyle(document.activeElement, "::after").content`)).toMatch(
      /^"start: [\d.]+ m?s from 0\.0 ms"$/,
    );
    await press("Enter", 13);
    expect(await page.evaluate(`document.querySelector("tr:target").innerText`)).toMatch(
      /^0\.000 s\t[\d.]+ s\tstart\trun/,
    );
  });

  test("shows the error of a run that failed, and that the program was not published", async () => {
    const built = await bench.ours(["build", "-B", "--push=false", "--timing=failed.html", "./broken"]);
    expect(built.code).toBe(1);
    await page.goTo(Bun.pathToFileURL(bench.tree.at("failed.html")).href);
    expect(await page.evaluate(`document.querySelector(".failure").innerText`)).toContain("undefined: missing");
    expect(await names()).toContainEqual(["example.com/app/broken", "broken\nnot published"]);
    expect(page.said).toEqual([]);
  });

  test.each(PICTURES)("shows %s as text that stays inside of its panel", async (name) => {
    await page.goTo(Bun.pathToFileURL(join(DOCS, name)).href);
    expect(
      await page.evaluate(`[document.documentElement.nodeName, document.querySelectorAll("parsererror").length]`),
    ).toEqual(["svg", 0]);
    const boxes = `[...document.querySelectorAll("text")].map((text) => text.getBBox())`;
    expect(await page.evaluate(`${boxes}.length`)).toBeGreaterThan(10);
    const size = `{ width, height } = document.documentElement.viewBox.baseVal`;
    const outside = `(() => { const ${size}; return ${boxes}.filter((box) =>
      box.x < 0 || box.y < 0 || box.x + box.width > width || box.y + box.height > height).length; })()`;
    expect(await page.evaluate(outside)).toBe(0);
    expect(page.said).toEqual([]);
  });

  // Without it, the other tests could see nothing.
  test("notices messages and requests of another page", async () => {
    using tree = writeTree({
      "a.html": `<!doctype html><meta http-equiv="Content-Security-Policy" content="default-src 'none'">
        <title>x</title><script>alert(1)</script><img src="b.png"><p style="color: #ddd; width: 3000px">faint`,
    });
    await page.goTo(Bun.pathToFileURL(tree.at("a.html")).href);
    expect(page.said.join("\n")).toContain("Content Security Policy");
    expect(
      await page.evaluate(`document.querySelector("p").style.width = "3000px"; document.documentElement.scrollWidth`),
    ).toBeGreaterThan(3000);
    expect(await page.evaluate(`document.querySelector("p").style.color = "#ddd"; ${FAINT}`)).toHaveLength(1);
  });
});

describe("the pictures of the documentation", () => {
  test.each(PICTURES)("%s names nothing of the machine that made it", (name) => {
    const text = readFileSync(join(DOCS, name), "utf8");
    expect(
      text.match(/\/(?:tmp|root|home|work|Users|var)\b|127\.0\.0\.1|localhost|<(?:script|image|foreignObject)\b/g),
    ).toBe(null);
    expect(text).toContain("unchanged");
  });

  test("are small", () => {
    const pictures = readdirSync(DOCS).filter((name) => /\.(?:svg|png)$/.test(name));
    expect(pictures).toContain("timing.png");
    expect(pictures.filter((name) => statSync(join(DOCS, name)).size > 150_000)).toEqual([]);
  });
});
