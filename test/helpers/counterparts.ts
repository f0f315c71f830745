/**
 * The real programs that the tests run beside ours: Debian's docker-registry, skopeo and umoci, and two Go programs,
 * the original ko and crane, at the versions that `test/counterparts.json` pins.
 *
 * Go programs stay in a cache folder between runs. What a binary is, its own build info says (`go version -m`): a
 * stamp beside it could lie. `.ci/setup.ts` calls {@link installGoPrograms}; tests only look.
 */
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import pins from "../counterparts.json" with { type: "json" };

/** A program that is built from a Go module. */
export type GoProgram = "ko" | "crane";
/** A program that Debian's packages bring. */
export type DebianProgram = "docker-registry" | "skopeo" | "umoci";
export type Counterpart = GoProgram | DebianProgram;

/** The module that is the real input of `knative.test.ts`, as `module@version`. */
export const KNATIVE: string = `${pins.knative.module}@${pins.knative.version}`;
/** The original, as `module@version`. */
export const ORIGINAL: string = `${pins.ko.package}@${pins.ko.version}`;

const GO_PROGRAMS: Readonly<Record<GoProgram, { readonly package: string; readonly module: string; version: string }>> =
  {
    ko: { ...pins.ko, module: pins.ko.package },
    crane: pins.crane,
  };

/** Absolute path of the folder that keeps built programs and slow results between runs: `$KO_TEST_CACHE`, else under HOME. */
export function cacheFolder(): string {
  return process.env["KO_TEST_CACHE"] || join(homedir(), ".cache", "ko-test");
}

/** The absolute path of `name` at the pinned version, or undefined. */
export function findCounterpart(name: Counterpart): string | undefined {
  if (name !== "ko" && name !== "crane") return Bun.which(name) ?? undefined;
  const path = join(cacheFolder(), "bin", name);
  return existsSync(path) && isPinned(name, path) ? path : undefined;
}

/**
 * The absolute paths of all `names`, or undefined after saying on stderr which are missing: the caller then skips.
 *
 * @throws {Error} If one is missing and `CI` is set: there a skip would hide that nothing was compared.
 */
export function findCounterparts<N extends Counterpart>(names: readonly N[]): Readonly<Record<N, string>> | undefined {
  const found: Partial<Record<N, string>> = {};
  for (const name of names) {
    const path = findCounterpart(name);
    if (path !== undefined) found[name] = path;
  }
  if (hasAll(found, names)) return found;
  const missing = names.filter((name) => found[name] === undefined).join(", ");
  const message = `the tests need ${missing}: run "bash .ci/run", or "bun .ci/setup.ts" for the Go programs`;
  if (process.env["CI"]) throw new Error(message);
  console.warn(`skipped: ${message}`);
  return undefined;
}

/** Builds the Go programs that are not in the cache folder yet; a minute or three each. */
export async function installGoPrograms(): Promise<void> {
  const bin = join(cacheFolder(), "bin");
  await mkdir(bin, { recursive: true });
  for (const name of ["ko", "crane"] as const) {
    if (findCounterpart(name) !== undefined) continue;
    const { package: path, version } = GO_PROGRAMS[name];
    const env = { ...process.env, GOBIN: bin };
    const { exitCode } = Bun.spawnSync(["go", "install", `${path}@${version}`], { env, stdio: ["ignore", 2, 2] });
    if (exitCode !== 0) throw new Error(`go install ${path}@${version} failed with exit code ${exitCode}`);
  }
}

/** The folder of the knative module in the Go module cache, downloaded if need be; undefined when it cannot be had. */
export function findKnativeModule(): string | undefined {
  const { exitCode, stdout } = Bun.spawnSync(["go", "mod", "download", "-json", KNATIVE], {
    env: { ...process.env, GOFLAGS: "-mod=mod" },
    cwd: "/",
    stdio: ["ignore", "pipe", 2],
  });
  if (exitCode !== 0) return undefined;
  const answer: unknown = JSON.parse(stdout.toString());
  const folder = typeof answer === "object" && answer !== null && "Dir" in answer ? answer.Dir : undefined;
  return typeof folder === "string" ? folder : undefined;
}

function hasAll<N extends string>(found: Partial<Record<N, string>>, names: readonly N[]): found is Record<N, string> {
  return names.every((name) => found[name] !== undefined);
}

function isPinned(name: GoProgram, path: string): boolean {
  const { module, version } = GO_PROGRAMS[name];
  const { exitCode, stdout } = Bun.spawnSync(["go", "version", "-m", path], { stdio: ["ignore", "pipe", "ignore"] });
  return exitCode === 0 && stdout.toString().includes(`\tmod\t${module}\t${version}\t`);
}
