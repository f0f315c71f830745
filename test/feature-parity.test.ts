/**
 * The proof: each case is built by the original ko and by ours, pushed to a real registry, read back and compared.
 * A difference is told by the path of the field.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { findCounterparts } from "./helpers/counterparts.ts";
import { HELLO } from "./helpers/go.ts";
import { type Bases, pushBases } from "./helpers/oracle-bases.ts";
import { differencesOf, type Request, runKo } from "./helpers/oracle.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { writeTree } from "./helpers/world-folders.ts";
import { ourCommand } from "./helpers/world-programs.ts";
import { BASE_CASES, PLATFORM_CASES } from "./parity/bases.ts";
import { KODATA_CASES } from "./parity/kodata.ts";
import { MODULE_CASES } from "./parity/modules.ts";

const programs = findCounterparts(["docker-registry", "ko", "crane"]);
/** Milliseconds: the first build for a platform compiles the runtime for it. */
const CASE_TIMEOUT = 180_000;
const cases = [...MODULE_CASES, ...KODATA_CASES, ...BASE_CASES, ...PLATFORM_CASES];

describe.skipIf(programs === undefined)("ko build, beside the original", () => {
  let registry: TestRegistry;
  let bases: Bases;

  beforeAll(async () => {
    registry = await startRegistry();
    bases = await pushBases(registry.host);
  });

  afterAll(async () => {
    await registry?.[Symbol.asyncDispose]();
  });

  test.each(cases.map((item, i) => [item.name, item, i] as const))(
    "%s",
    async (_name, item, i) => {
      if (programs === undefined) throw new Error("no counterparts");
      const options = { host: registry.host, ko: programs.ko, crane: programs.crane, bases, id: `case-${i}` };
      expect(await differencesOf(item, options)).toEqual([]);
    },
    CASE_TIMEOUT,
  );

  test(
    "two builds in two folders, with two caches, have the same digests",
    async () => {
      const digests = [];
      for (const prefix of ["ours-first", "ours-second"]) {
        using tree = writeTree({ ...HELLO, "kodata/a/f": "data\n" });
        using work = writeTree({});
        const base = bases.index;
        const config = `defaultBaseImage: ${base.reference}\n`;
        const args = [".", "--platform=linux/amd64,linux/arm64"];
        const request: Request = { id: "twice", tree: tree.path, base, config, env: {}, args };
        const options = { request, host: registry.host, prefix, work, cwd: tree.path };
        const { pulled } = await runKo([...ourCommand(), "build", "--sbom=none", ...args], options);
        digests.push(pulled.map(({ digest }) => digest));
      }
      expect(digests[0]).toHaveLength(1);
      expect(digests[1]).toEqual(digests[0]);
    },
    CASE_TIMEOUT,
  );
});
