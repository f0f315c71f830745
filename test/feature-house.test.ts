/**
 * The rules of the house, checked against the sources: imports form no cycle, and only `lib/host.ts` touches the outside
 * world.
 */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..");

const sources = new Map(
  readdirSync(join(ROOT, "lib"))
    .filter((name) => name.endsWith(".ts") && !name.endsWith(".d.ts"))
    .sort()
    .map((name) => [name, readFileSync(join(ROOT, "lib", name), "utf8")]),
);
const real = new Map([...sources].map(([name, source]) => [name, findImports(source)]));

/** What may touch `process`, start programs or read the clock besides `host.ts`, and why. */
const OUTSIDERS: Readonly<Record<string, string>> = {
  "host.ts": "it is the outside",
};

describe("findImports()", () => {
  test("sees static, type-only and dynamic imports, but no workers and none in comments", () => {
    const source = `
import { a } from "./a.ts";
import type { B } from "./b.ts";
import {
  type C,
} from "./c.ts";
export { d } from "./d.ts";
const e = await import("./e.ts");
let f: import("./f.ts").F;
new Worker(new URL("./g.worker.ts", import.meta.url));
import(
  "./h.ts"
);
import "node:fs";
// import { x } from "./x.ts";
/**
 * import { y } from "./y.ts";
 */`;
    expect(findImports(source)).toEqual(["a", "b", "c", "d", "e", "f", "h"].map((name) => `${name}.ts`));
  });
});

describe("lib/", () => {
  test.each([...sources.keys()])("%s is in no import cycle", (name) => {
    const seen = new Set<string>();
    const visit = (at: string): void => {
      for (const target of real.get(at) ?? []) {
        if (seen.has(target)) continue;
        seen.add(target);
        visit(target);
      }
    };
    visit(name);
    expect([...seen]).not.toContain(name);
  });

  test.each([...sources].filter(([name]) => OUTSIDERS[name] === undefined))(
    "%s leaves the outside to host.ts",
    (_name, source) => {
      const outside = /\bprocess\.\w|\bBun\.spawn|node:child_process|node:process/;
      expect(codeLines(source).filter((line) => outside.test(line))).toEqual([]);
    },
  );
});

/** The modules of lib/ that a source imports, each once, sorted. A worker is started by path: that is no import. */
function findImports(source: string): string[] {
  const found = new Set<string>();
  const code = codeLines(source).join("\n");
  for (const [, name] of code.matchAll(/\b(?:from|import)\s*\(?\s*["']\.\/([\w.-]+\.ts)["']/g)) {
    if (name !== undefined) found.add(name);
  }
  return [...found].sort();
}

/** The lines that are no comments, by their first characters. */
function codeLines(source: string): string[] {
  return source.split("\n").filter((line) => !/^\s*(\/\/|\/\*|\*)/.test(line));
}
