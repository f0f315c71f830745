/**
 * Ours against the original where the compiler has no part: start-up, and 1 GB of kodata. Prints Markdown for
 * docs/performance.md.
 *
 *     npm run build && npx bun test/bench/build.ts [ROUNDS]
 *
 * Needs docker-registry and the original ko, as the tests do. What builds cost is in incremental.ts.
 */
import { mkdir, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { findCounterparts } from "../helpers/counterparts.ts";
import { goMod } from "../helpers/go.ts";
import { pushBases } from "../helpers/oracle-bases.ts";
import { startRegistry } from "../helpers/registry.ts";
import { makeFolder } from "../helpers/world-folders.ts";
import { cleanEnvironment } from "../helpers/world-programs.ts";
import { compare, type Contender, formatTable } from "./measure.ts";

const OURS = resolve(import.meta.dir, "../../ko");
const rounds = Number(process.argv[2] ?? 5);
const counterparts = findCounterparts(["ko", "docker-registry"]);
if (counterparts === undefined) throw new Error("docker-registry and the original ko are needed: see .ci/run");
const original = counterparts.ko;

await using registry = await startRegistry();
const { oci: base } = await pushBases(registry.host);
await using folder = await makeFolder();
const at = (name: string): string => join(folder.path, name);
await mkdir(at("docker"));
await Bun.write(at("config/.ko.yaml"), `defaultBaseImage: ${base.reference}\n`);
const env = cleanEnvironment(folder.path);

const start: readonly Contender[] = [
  { name: "ko", argv: () => [OURS, "version"], cwd: folder.path, env: () => env },
  { name: "original", argv: () => [original, "version"], cwd: folder.path, env: () => env },
];
console.log(formatTable("start: `ko version`", await compare(start, rounds * 6), "original"));

const app = at("app");
await mkdir(join(app, "kodata"), { recursive: true });
await Bun.write(join(app, "go.mod"), goMod("example.com/kodata"));
await Bun.write(join(app, "main.go"), "package main\n\nfunc main() {}\n");
await fillFile(join(app, "kodata/big"), 1024);

let repositories = 0;
const again = [kodata("ko", [OURS, "build", "--sbom=none"]), kodata("original", [original, "build", "--sbom=none"])];
const first = again.map((contender): Contender => ({ ...contender, prepare: forget }));
console.log(formatTable("1 GB of kodata: first build", await compare(first, rounds), "original"));
// One untimed round fills what the next ones find.
await compare(again, 1);
console.log(formatTable("1 GB of kodata: nothing changed", await compare(again, rounds), "original"));

/** Empties the caches of both, and lets the next build go to a fresh repository. */
async function forget(): Promise<void> {
  await rm(at("cache"), { recursive: true, force: true });
  repositories++;
}

function kodata(name: string, argv: readonly [string, ...string[]]): Contender {
  const own = { KOCACHE: at(`cache/${name}`) };
  const repository = (): string => `${registry.host}/${name}/${repositories}`;
  return { name, argv: () => [...argv, "."], cwd: app, env: () => ({ ...env, ...own, KO_DOCKER_REPO: repository() }) };
}

/** Bytes that compress about as a program does: blocks that repeat after a while. */
async function fillFile(path: string, megabytes: number): Promise<void> {
  const block = new Uint8Array(1024 * 1024);
  for (let i = 0; i < block.length; i += 64) crypto.getRandomValues(block.subarray(i, i + 32));
  const writer = Bun.file(path).writer();
  for (let i = 0; i < megabytes; i++) {
    block[0] = i & 255;
    await writer.write(block);
    await writer.flush();
  }
  await writer.end();
}
