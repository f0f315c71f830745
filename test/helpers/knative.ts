/** Knative Serving as real input: its sources as a repository. */
import { existsSync } from "node:fs";
import { cp, mkdir, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { KNATIVE, cacheFolder, findKnativeModule } from "./counterparts.ts";
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
