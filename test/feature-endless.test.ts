/**
 * Input whose work grows faster than its size: it ends with an error, or at once after a signal.
 *
 * A loop that gives no turn to signals lets the timer that aborts it run only when it is over, so that it is not aborted.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync, symlinkSync } from "node:fs";
import { messageOf } from "../lib/errors.ts";
import { silentLog } from "../lib/log.ts";
import { resolveInputs } from "../lib/resolve.ts";
import { findObjects } from "../lib/yaml-objects.ts";
import { splitDocuments } from "../lib/yaml.ts";
import { goMod, HELLO } from "./helpers/go.ts";
import { makeBench } from "./helpers/world-bench.ts";
import { waitUntil } from "./helpers/world-programs.ts";

const OBJECT = "apiVersion: v1\nkind: ConfigMap\n";

function resolveText(text: string, selector = "", signal?: AbortSignal): Promise<string> {
  return resolveInputs([{ name: "a.yaml", bytes: new TextEncoder().encode(text) }], {
    log: silentLog,
    records: undefined,
    selector,
    strict: true,
    signal,
    openPipeline: () => Promise.reject(new Error("nothing is built here")),
  });
}

/** Milliseconds that a process has worked. */
function processorTime(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /s, "")
    .split(" ");
  return Number(fields[11] ?? "0") * 10;
}

/** Keys that merge the map before them twice: 2^levels merges. */
function mergeBomb(levels: number): string {
  const lines = Array.from({ length: levels }, (_, i) => {
    return i === 0 ? "x0: &a0 {q: 1}" : `x${i}: &a${i} {<<: [*a${i - 1}, *a${i - 1}]}`;
  });
  return `${OBJECT}metadata: {name: a}\n${lines.join("\n")}\n<<: [*a${levels - 1}, *a${levels - 1}]\n`;
}

/** Lists whose items are the list before them, twice. */
function listBomb(levels: number): string {
  const lists = Array.from({ length: levels }, (_, i) => {
    const items = i === 0 ? `[{${OBJECT.trim().replace("\n", ", ")}}]` : `[*l${i - 1}, *l${i - 1}]`;
    return `x${i}: &l${i} {apiVersion: v1, kind: List, items: ${items}}`;
  });
  return `apiVersion: v1\nkind: List\n${lists.join("\n")}\nitems: [*l${levels - 1}, *l${levels - 1}]\n`;
}

describe("YAML that repeats itself", () => {
  test.each<[string, string, string]>([
    ["merges", mergeBomb(60), "app!=z"],
    [
      "merges of labels",
      `${mergeBomb(60)}metadata: {labels: {<<: *a59}}\n`.replace("metadata: {name: a}\n", ""),
      "app!=z",
    ],
    ["lists of lists", listBomb(60), "app!=z"],
  ])("is selected from in one pass: %s", async (_name, text, selector) => {
    expect(await resolveText(text, selector)).toBe(text);
  });

  test.each([
    ["merges", mergeBomb(60)],
    ["lists of lists", listBomb(60)],
    [
      "aliases of aliases",
      `a0: &a0 [x]\n${Array.from({ length: 60 }, (_, i) => `a${i + 1}: &a${i + 1} [*a${i}, *a${i}]\n`).join("")}`,
    ],
    ["fifty thousand aliases", `a: &a x\nb:\n${"- *a\n".repeat(50_000)}`],
  ])("is passed on: %s", async (_name, text) => {
    expect(await resolveText(text)).toBe(text);
  });

  test("has no names for messages", async () => {
    const [document] = splitDocuments(new TextEncoder().encode(listBomb(60)), "a.yaml");
    expect(document === undefined ? undefined : await findObjects(document)).toEqual([]);
  });
});

describe("large YAML", () => {
  test.each<[string, string]>([
    ["a ConfigMap with a megabyte of text", `${OBJECT}data:\n  a: |\n${`    ${"x".repeat(99)}\n`.repeat(10_000)}`],
    ["a scalar of 20 MB", `${OBJECT}data: {a: "${"x".repeat(20_000_000)}"}\n`],
    ["a block scalar of 20 MB", `${OBJECT}data:\n  a: |\n${`    ${"x".repeat(99)}\n`.repeat(200_000)}`],
    ["a bundle of 20 MB", `${OBJECT}metadata: {name: a}\nspec:\n  a: b\n---\n`.repeat(300_000)],
    ["a list of 10 MB", `apiVersion: v1\nkind: List\nitems:\n${"- apiVersion: v1\n  kind: Service\n".repeat(300_000)}`],
    ["JSON of 10 MB", `{"items":[${'{"a":[1,{"b":"c"}]},\n'.repeat(500_000)}1]}`],
  ])("passes: %s", async (_name, text) => {
    const out = await resolveText(text);
    expect(out.length).toBeGreaterThan(text.length - 10);
  });

  test.each([
    [
      "too large for the yaml package",
      `a: !x 1\n${"b: c\n".repeat(2_000_000)}`,
      '"a.yaml:1:1" as YAML: it is not valid YAML here, or too unusual for a document of 10000008 characters, at most 8388608 are possible',
    ],
    [
      "broken at the end of 10 MB",
      `${"b: c\n".repeat(2_000_000)}- d\n`,
      '"a.yaml:2000001:1" as YAML: it is not valid YAML here',
    ],
    ["10 MB of brackets", "[".repeat(10_000_000), '"a.yaml:1:10002" as YAML: it is nested too deeply'],
    ["a megabyte of brackets", "[".repeat(1_000_000), "as YAML: it is nested too deeply"],
  ])("is refused: %s", async (_name, text, message) => {
    expect(await messageOfFailure(resolveText(text))).toContain(message);
  });

  test.each(["", "a=b"])("is refused after a hundred broken documents, selector %p", async (selector) => {
    const message = await messageOfFailure(resolveText("a: b: c\n---\n".repeat(100_000), selector));
    expect(message.split("\n").slice(-2)).toEqual([
      'Cannot read "a.yaml:199:4" as YAML: Nested mappings are not allowed in compact mappings',
      "Cannot read more YAML: 100 documents are broken",
    ]);
  });

  test("is refused for -l if it is too large", async () => {
    expect(await messageOfFailure(resolveText(`${OBJECT}data:\n${"  b: c\n".repeat(2_000_000)}`, "a"))).toContain(
      '"a.yaml:1:1" as YAML: it is a document of 14000037 characters, at most 8388608 are possible',
    );
  });
});

async function messageOfFailure(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => "no failure",
    (error: unknown) => messageOf(error),
  );
}

describe("a signal ends the reading of YAML", () => {
  test.each<[string, () => string, string]>([
    ["when a stream is split", () => `${OBJECT}---\n`.repeat(700_000), ""],
    ["when documents are scanned", () => `a:\n${"- b: [c, d, e]\n".repeat(40)}---\n`.repeat(40_000), ""],
    ["when one document is scanned", () => `a:\n${"- b: [c, d, e]\n".repeat(2_000_000)}`, ""],
    ["when JSON is scanned", () => `[${'{"a":[1,2,{"b":null}]},'.repeat(1_500_000)}1]`, ""],
    ["when the yaml package reads a document", () => `a: !x 1\n${"b: {c: [d]}\n".repeat(100_000)}`, ""],
    ["when documents are selected", () => `${OBJECT}---\n`.repeat(60_000), "a!=b"],
    [
      "when a document is selected from",
      () => `apiVersion: v1\nkind: List\nitems:\n${"- {apiVersion: v1, kind: A}\n".repeat(100_000)}`,
      "a!=b",
    ],
  ])("%s", async (_name, makeText, selector) => {
    const controller = new AbortController();
    const text = makeText();
    const stop = new Error("stopped");
    const work = resolveText(text, selector, controller.signal);
    setTimeout(() => controller.abort(stop), 10);
    expect(await messageOfFailure(work)).toBe("stopped");
  });

  test("when kodata is listed, in a real process", async () => {
    using bench = makeBench(HELLO, { host: "registry.example.com" });
    bench.tree.write({ ...Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`kodata/files/${i}`, ""])) });
    for (let i = 0; i < 900; i++) symlinkSync("files", bench.tree.at(`kodata/${i}`));
    const running = bench.start(["build", "--push=false", "."], { env: { KO_DEFAULTBASEIMAGE: "ko.builtin/static" } });
    // More than it takes to start, and less than it takes to list them.
    await waitUntil(() => processorTime(running.pid) > 1500, running);
    const start = performance.now();
    process.kill(running.pid, "SIGINT");
    expect((await running.result).code).toBe(130);
    expect(performance.now() - start).toBeLessThan(10_000);
  });

  test("in a real process, at once", async () => {
    using bench = makeBench(HELLO, { host: "registry.example.com" });
    bench.tree.write({
      "go.mod": goMod("example.com"),
      "a.yaml": `apiVersion: v1\nkind: List\nitems:\n${"- {apiVersion: v1, kind: A}\n".repeat(200_000)}`,
    });
    const running = bench.start(["resolve", "-l", "a!=b", "-f", "a.yaml"]);
    // More than it takes to start.
    await waitUntil(() => processorTime(running.pid) > 800, running);
    const start = performance.now();
    process.kill(running.pid, "SIGTERM");
    expect((await running.result).code).toBe(143);
    expect(performance.now() - start).toBeLessThan(10_000);
  });
});
