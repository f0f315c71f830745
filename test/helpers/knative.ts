/**
 * Knative Serving as real input: its sources as a repository, and what the original makes of them, kept between runs.
 */
import { existsSync } from "node:fs";
import { cp, mkdir, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { KNATIVE, ORIGINAL, cacheFolder, findKnativeModule } from "./counterparts.ts";
import { commitTree, output } from "./oracle.ts";

/** The module as a repository with one commit, made once and kept; its absolute path. */
export async function prepareKnative(): Promise<string> {
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

/** The import paths after `ko://` in the YAML of `config/`, each once, sorted. */
export async function findKnativePrograms(tree: string): Promise<readonly string[]> {
  const found = new Set<string>();
  for await (const path of new Bun.Glob("**/*.yaml").scan({ cwd: join(tree, "config"), absolute: true })) {
    for (const [, program] of (await Bun.file(path).text()).matchAll(/ko:\/\/([^"\s]+)/g)) {
      if (program !== undefined) found.add(program);
    }
  }
  return [...found].sort();
}

export interface KeepOptions {
  /** The original's executable. */
  readonly ko: string;
  /** The registry, `127.0.0.1:PORT`: another one each time, and no part of what decides. */
  readonly host: string;
  /** All else that decides the result: arguments, configuration, digest of the base. */
  readonly inputs: readonly string[];
}

/**
 * A text that the original makes of Knative, from the cache folder if it was made before.
 *
 * Sound, because the file's name is a hash of all that decides the text: the original's own executable, the sources
 * (module and version; the commit has fixed dates), the inputs, and everything that `go env` reports. The original run
 * twice on these gives the same bytes; it keeps no state of its own.
 */
export async function keepOriginal(make: () => Promise<string>, options: KeepOptions): Promise<string> {
  const { ko, host, inputs } = options;
  const goEnv = await output(["go", "env", "-json"], { cwd: "/", env: process.env });
  // Each call of `go env` names another temporary folder there.
  const stable = goEnv.replace(/^\t"GOGCCFLAGS":.*$/m, "");
  const key = new Bun.CryptoHasher("sha256");
  const own = inputs.map((input) => input.replaceAll(host, "HOST"));
  key.update(JSON.stringify([ORIGINAL, KNATIVE, stable, await hashOf(ko), ...own]));
  const file = join(cacheFolder(), "original", key.digest("hex"));
  if (existsSync(file)) return (await Bun.file(file).text()).replaceAll("HOST:PORT", host);
  const text = await make();
  await Bun.write(`${file}.${process.pid}`, text.replaceAll(host, "HOST:PORT"));
  // A file that is there is complete.
  await rename(`${file}.${process.pid}`, file);
  return text;
}

async function hashOf(path: string): Promise<string> {
  return new Bun.CryptoHasher("sha256").update(await Bun.file(path).bytes()).digest("hex");
}
