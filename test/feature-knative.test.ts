/**
 * Real input: the nine programs that the YAML of `knative.dev/serving` names, built in one call by the original ko and
 * by ours, compared as in `feature-parity.test.ts`.
 */
import { describe, expect, test } from "bun:test";
import { basename } from "node:path";
import { pushBases } from "./helpers/bases.ts";
import { findCounterparts } from "./helpers/counterparts.ts";
import { type KeepOptions, findKnativePrograms, keepOriginal, prepareKnative } from "./helpers/knative.ts";
import { type Outcome, type Request, compareOutcomes, ourCommand, runKo, validateAll } from "./helpers/oracle.ts";
import { isObject } from "./helpers/pull.ts";
import { writeTree } from "./helpers/tree.ts";
import { startRegistry } from "./helpers/registry.ts";

/** Milliseconds: a cold Go build cache costs six minutes of CPU, twice three of wall time, then come the links. */
const TIMEOUT = 30 * 60_000;

const programs = findCounterparts(["docker-registry", "ko", "crane"]);

describe.skipIf(programs === undefined)("ko build, on Knative Serving", () => {
  test(
    "nine programs, one of them a dependency's, equal the original's",
    async () => {
      if (programs === undefined) throw new Error("no counterparts");
      await using registry = await startRegistry();
      using work = writeTree({});
      const { oci: base } = await pushBases(registry.host);
      const tree = await prepareKnative();
      const args = await findKnativePrograms(tree);
      expect(args).toHaveLength(9);
      const request: Request = {
        id: "serving",
        tree,
        args,
        base,
        env: {},
        config: `defaultBaseImage: ${base.reference}\n`,
      };
      const options = { request, host: registry.host, work, cwd: tree };

      const original = await keepOutcome(
        () => runKo([programs.ko, "build", "--sbom=none", ...args], { ...options, prefix: "original" }),
        { ko: programs.ko, host: registry.host, inputs: [base.digest, request.config, ...args] },
      );
      const ours = await runKo([...ourCommand(), "build", ...args], { ...options, prefix: "ours" });

      expect(ours.references.map((reference) => reference.replace(/-[0-9a-f]{32}@/, "@"))).toEqual(
        args.map((path) => `serving/${basename(path)}@DIGEST`),
      );
      expect(await compareOutcomes(ours, original, base)).toEqual([]);
      await validateAll(programs.crane, ours);
    },
    TIMEOUT,
  );
});

/**
 * What the original pushed, kept between runs. A kept outcome has no registry behind it: a layer that differs is told by
 * its diffID alone.
 */
async function keepOutcome(run: () => Promise<Outcome>, options: KeepOptions): Promise<Outcome> {
  let outcome: Outcome | undefined;
  const text = await keepOriginal(async () => {
    outcome = await run();
    const { references, pulled, tags, imageRefs } = outcome;
    return JSON.stringify({ references, pulled, tags, imageRefs });
  }, options);
  if (outcome !== undefined) return outcome;
  const value: unknown = JSON.parse(text);
  if (!isOutcome(value)) throw new Error("what was kept of the original is not what was written");
  return value;
}

/** What {@link keepOutcome} wrote. */
function isOutcome(value: unknown): value is Outcome {
  return isObject(value) && ["references", "pulled", "tags", "imageRefs"].every((key) => Array.isArray(value[key]));
}
