/**
 * `builds:` beside the original: each case is built by both, and images, layers, the words of each `go build` and its
 * environment are compared.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { findCounterparts } from "./helpers/counterparts.ts";
import { differencesOf } from "./helpers/oracle.ts";
import { type Bases, pushBases } from "./helpers/oracle-bases.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { BUILD_CASES } from "./parity/builds.ts";
import { CONFIGURATION_CASES } from "./parity/configurations.ts";

const programs = findCounterparts(["docker-registry", "ko", "crane"]);
/** Milliseconds: the first build for a platform compiles the runtime for it. */
const CASE_TIMEOUT = 180_000;

describe.skipIf(programs === undefined)("builds: of .ko.yaml, beside the original", () => {
  let registry: TestRegistry;
  let bases: Bases;

  beforeAll(async () => {
    registry = await startRegistry();
    bases = await pushBases(registry.host);
  });

  afterAll(async () => {
    await registry?.[Symbol.asyncDispose]();
  });

  test.each([...BUILD_CASES, ...CONFIGURATION_CASES].map((item, i) => [item.name, item, i] as const))(
    "%s",
    async (_name, item, i) => {
      if (programs === undefined) throw new Error("no counterparts");
      const options = { host: registry.host, ko: programs.ko, crane: programs.crane, bases, id: `case-${i}` };
      expect(await differencesOf(item, options)).toEqual([]);
    },
    CASE_TIMEOUT,
  );
});
