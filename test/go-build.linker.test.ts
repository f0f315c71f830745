import { describe, expect, test } from "bun:test";
import { statSync, utimesSync } from "node:fs";
import { LinkWatch } from "../lib/go-build.ts";
import type { Program } from "../lib/go-programs.ts";
import { writeTree } from "./helpers/world-folders.ts";
import { waitUntil } from "./helpers/world-programs.ts";

const program: Program = { importPath: "example.com/a", dir: "/", workDir: "/", module: undefined, text: "a" };

describe("LinkWatch", () => {
  test("tells of the linker's output when it did not change for a while, once", async () => {
    using tree = writeTree({ "go-build12/b002/x.a": "1" });
    const told: unknown[] = [];
    const first = Promise.withResolvers<void>();
    let now = 0;
    let looks = 0;
    using _watch = new LinkWatch(tree.path, {
      now: () => {
        looks++;
        return now;
      },
      program,
      push: (event) => {
        told.push(event);
        first.resolve();
      },
    });
    tree.write({ "go-build12/b001/exe/a.out": "program" });
    const path = tree.at("go-build12/b001/exe/a.out");
    utimesSync(path, new Date(10_000), new Date(10_000));
    now = statSync(path).mtimeMs + 5;
    // It is looked at, and too new.
    await waitUntil(() => looks >= 3);
    expect(told).toEqual([]);
    now += 1000;
    await first.promise;
    tree.write({ "go-build12/b001/exe/a.out": "another" });
    const after = looks;
    await Bun.sleep(60);
    expect([told, looks]).toEqual([[{ kind: "linked", program, path, size: 7 }], after]);
  });

  test("says nothing of what is no output, and stops", async () => {
    using tree = writeTree({ "go-build1/b001/exe/a.out/x": "1", other: "1" });
    const told: unknown[] = [];
    let looks = 0;
    {
      using _watch = new LinkWatch(tree.path, { now: () => (looks++, Infinity), program, push: () => told.push(1) });
      await Bun.sleep(60);
      tree.write({ "go-build1/b001/exe/a.out": null });
      await Bun.sleep(60);
    }
    using _gone = new LinkWatch(tree.at("nowhere"), { now: () => Infinity, program, push: () => told.push(2) });
    await Bun.sleep(60);
    expect([told, looks]).toEqual([[], 0]);
  });
});
