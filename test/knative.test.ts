/**
 * Real input: the nine programs that the YAML of `knative.dev/serving` names, built in one call by the original ko and
 * by ours, compared as in `parity.test.ts`.
 */
import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { cp, mkdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { pushBases } from "./helpers/bases.ts";
import { KNATIVE, ORIGINAL, cacheFolder, findCounterparts, findKnativeModule } from "./helpers/counterparts.ts";
import {
  type Outcome,
  type Request,
  commitTree,
  compareOutcomes,
  ourCommand,
  output,
  runKo,
  validateAll,
} from "./helpers/oracle.ts";
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
      const tree = await prepareTree();
      const args = await findPrograms(join(tree, "config"));
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
        { host: registry.host, inputs: [await hashOf(programs.ko), base.digest, request.config, ...args] },
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

/** The module as a repository with one commit, made once and kept; its absolute path. */
async function prepareTree(): Promise<string> {
  const kept = join(cacheFolder(), KNATIVE.replaceAll(/[/@]/g, "-"));
  if (existsSync(kept)) return kept;
  const module = findKnativeModule();
  if (module === undefined) throw new Error(`${KNATIVE} cannot be downloaded`);
  const making = `${kept}.${process.pid}`;
  await rm(making, { recursive: true, force: true });
  await mkdir(dirname(making), { recursive: true });
  await cp(module, making, { recursive: true });
  // The module cache is read-only.
  await output(["chmod", "-R", "u+w", making], { cwd: "/", env: process.env });
  await commitTree(making);
  await rename(making, kept);
  return kept;
}

/** The import paths after `ko://` in the YAML below `folder`, each once, sorted. */
async function findPrograms(folder: string): Promise<string[]> {
  const found = new Set<string>();
  for await (const path of new Bun.Glob("**/*.yaml").scan({ cwd: folder, absolute: true })) {
    for (const [, program] of (await Bun.file(path).text()).matchAll(/ko:\/\/([^"\s]+)/g)) {
      if (program !== undefined) found.add(program);
    }
  }
  return [...found].sort();
}

/**
 * What the original makes of Knative, from the cache folder if it was made before.
 *
 * Sound, because the file's name is a hash of all that decides the outcome: the original's own executable, the sources
 * (module and version; the commit has fixed dates), the base, the arguments and configuration, and everything that
 * `go env` reports. The original run twice on these gives the same bytes; it keeps no state of its own.
 * An outcome that was kept has no registry behind it: a layer that differs is told by its diffID alone.
 */
async function keepOutcome(
  run: () => Promise<Outcome>,
  { host, inputs }: { readonly host: string; readonly inputs: readonly string[] },
): Promise<Outcome> {
  const goEnv = await output(["go", "env", "-json"], { cwd: "/", env: process.env });
  // Each call of `go env` names another temporary folder there.
  const stable = goEnv.replace(/^\t"GOGCCFLAGS":.*$/m, "");
  const key = new Bun.CryptoHasher("sha256");
  const own = inputs.map((input) => input.replaceAll(host, "HOST"));
  key.update(JSON.stringify([ORIGINAL, KNATIVE, stable, ...own]));
  const file = join(cacheFolder(), "original", `${key.digest("hex")}.json`);
  if (existsSync(file)) {
    const value: unknown = JSON.parse((await Bun.file(file).text()).replaceAll("HOST:PORT", host));
    if (isOutcome(value)) return value;
  }
  const { references, pulled, tags, imageRefs } = await run();
  const outcome: Outcome = { references, pulled, tags, imageRefs };
  await Bun.write(`${file}.${process.pid}`, JSON.stringify(outcome).replaceAll(host, "HOST:PORT"));
  await rename(`${file}.${process.pid}`, file);
  return outcome;
}

/** What {@link keepOutcome} wrote, and no half of it: the file was renamed when complete. */
function isOutcome(value: unknown): value is Outcome {
  return isObject(value) && ["references", "pulled", "tags", "imageRefs"].every((key) => Array.isArray(value[key]));
}

async function hashOf(path: string): Promise<string> {
  return new Bun.CryptoHasher("sha256").update(await Bun.file(path).bytes()).digest("hex");
}
