import { describe, expect, test } from "bun:test";
import { joinInputs, SharedInputs, tableOf } from "../lib/build-shared.ts";
import type { FolderState, Inputs } from "../lib/fingerprint-prover.ts";
import { RACY } from "../lib/fingerprint.ts";
import { makeCacheBox } from "./helpers/world-cache.ts";

const folder = (dir: string, mark = 1): FolderState => ({ dir, kind: "indexed", mark, names: ["a.go"], marks: [mark] });
const inputs = (folders: readonly FolderState[], racy: Inputs["racy"] = []): Inputs => ({ folders, files: [], racy });

const COMMON = ["/go/src", "/mod"];
const [FMT, API, LOG, LIB] = ["/go/src/fmt", "/mod/api", "/mod/log", "/app/lib"].map((dir) => folder(dir));
if (FMT === undefined || API === undefined || LOG === undefined || LIB === undefined) throw new RangeError("no folder");
const ONE = { common: COMMON, inputs: inputs([FMT, API, LIB]) };
const TWO = { common: COMMON, inputs: inputs([FMT, LOG]) };

describe("SharedInputs", () => {
  test("keeps the shared folders of several programs once, and gives each its part", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    const shared = new SharedInputs(cache);
    const together = () => tableOf([ONE, TWO]);
    const [one, two] = [ONE, TWO].map((program) => shared.write(program, together));
    expect(one).toEqual({ inputs: inputs([LIB]), shared: { table: one?.shared.table ?? "", folders: [0, 1] } });
    expect(two).toEqual({ inputs: inputs([]), shared: { table: one?.shared.table ?? "", folders: [0, 2] } });
    const later = new SharedInputs(cache);
    const part = one && later.read(one.shared);
    expect(part && joinInputs(one.inputs, part).folders).toEqual([LIB, FMT, API]);
  });

  test("takes the table of an earlier run if it has the same folders, else makes another", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    const first = new SharedInputs(cache).write(ONE, () => tableOf([ONE, TWO]));
    const later = new SharedInputs(cache);
    later.read(first.shared);
    const never = (): never => {
      throw new Error("a table is made");
    };
    expect(later.write(TWO, never).shared).toEqual({ table: first.shared.table, folders: [0, 2] });
    const edited = { common: COMMON, inputs: inputs([FMT, folder("/mod/log", 2)]) };
    expect(later.write(edited, () => tableOf([edited])).shared.table).not.toBe(first.shared.table);
  });

  test("keeps two states of a folder, which programs of two workspaces may have", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    const shared = new SharedInputs(cache);
    const other = { common: COMMON, inputs: inputs([folder("/mod/api", 2)]) };
    const part = shared.write(other, () => tableOf([ONE, other])).shared;
    expect(shared.read(part)?.folders).toEqual([folder("/mod/api", 2)]);
  });

  test("has no part of a table that is missing, or too short", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    const shared = new SharedInputs(cache);
    expect(shared.read({ table: "0".repeat(40), folders: [] })).toBeUndefined();
    const { table } = shared.write(ONE, () => tableOf([ONE])).shared;
    expect(shared.read({ table, folders: [7] })).toBeUndefined();
  });

  test("gives racy files with each part, and looks at them again once", async () => {
    using box = makeCacheBox();
    await using cache = box.open();
    const shared = new SharedInputs(cache);
    const racy = { common: COMMON, inputs: inputs([folder("/mod/api", RACY)], [["/mod/api/a.go", "x"]]) };
    const { inputs: own, shared: part } = shared.write(racy, () => tableOf([racy]));
    expect([own.racy, shared.read(part)?.racy]).toEqual([[], [["/mod/api/a.go", "x"]]]);
    // The folder does not exist.
    expect(shared.refresh(part, Date.now())).toBeUndefined();
  });
});
