/**
 * From an edit to an image in the daemon: `ko build -L` against the original's `-L` and against plain `go build`, in one
 * run. Prints Markdown for docs/performance.md.
 *
 *     npm run build && npx bun test/bench/local.ts [ROUNDS]
 *
 * Needs root and dockerd (Debian's, and the current one for the containerd store), docker-registry and the original ko,
 * as the tests do. The program is Knative's controller.
 */
import { cp, mkdir, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { findCounterparts, findKnativeModule } from "../helpers/counterparts.ts";
import { type DaemonKind, tryStartDaemon } from "../helpers/daemon.ts";
import { pushBases } from "../helpers/oracle-bases.ts";
import { startRegistry } from "../helpers/registry.ts";
import { makeFolder } from "../helpers/world-folders.ts";
import { compare, type Contender, formatTable } from "./measure.ts";

const OURS = resolve(import.meta.dir, "../../ko");
const IMPORT_PATH = "knative.dev/serving/cmd/controller";
const rounds = Number(process.argv[2] ?? 5);
const counterparts = findCounterparts(["ko", "docker-registry"]);
if (counterparts === undefined) throw new Error("docker-registry and the original ko are needed: see .ci/run");
const original = counterparts.ko;
const knative = findKnativeModule();
if (knative === undefined) throw new Error("Knative's module cannot be had");

await using registry = await startRegistry();
const base = (await pushBases(registry.host)).oci;
await using folder = await makeFolder();
const at = (name: string): string => join(folder.path, name);
const module = at("module");
await cp(knative, module, { recursive: true });
await Bun.spawn(["chmod", "-R", "u+w", module]).exited;
await mkdir(at("config"));
await writeFile(at("config/.ko.yaml"), `defaultBaseImage: ${base.reference}\n`);
const common: Record<string, string> = {};
for (const [key, value] of Object.entries(process.env)) {
  if (value !== undefined && !/^(?:KO|GOOS|GOARCH|DOCKER_)/.test(key)) common[key] = value;
}

let edits = 0;

/** Changes the program: each time to something that was never built. */
async function edit(): Promise<void> {
  const text = `package main\n\nfunc init() { println("edit ${Date.now()} ${edits++}") }\n`;
  await writeFile(join(module, "cmd/controller/edit.go"), text);
}

for (const kind of ["classic", "containerd"] as const) await benchDaemon(kind);

async function benchDaemon(kind: DaemonKind): Promise<void> {
  await using daemon = await tryStartDaemon(kind);
  if (daemon === undefined) return;
  const env = {
    ...common,
    KO_CONFIG_PATH: at("config"),
    KOCACHE: at("cache"),
    DOCKER_CONFIG: at("config"),
    DOCKER_HOST: `unix://${daemon.socket}`,
    TZ: "UTC",
  };
  const out = at("out");
  const contenders: readonly Contender[] = [
    {
      name: "go build",
      argv: () => ["go", "build", "-trimpath", "-o", `${out}/`, IMPORT_PATH],
      cwd: module,
      env: () => ({ ...common, CGO_ENABLED: "0", GOOS: "linux" }),
    },
    { name: "ko -L", argv: () => [OURS, "build", "-L", IMPORT_PATH], cwd: module, env: () => env },
    {
      name: "original -L",
      argv: () => [original, "build", "-L", "--sbom=none", IMPORT_PATH],
      cwd: module,
      env: () => env,
    },
  ];
  await mkdir(out, { recursive: true });
  // One untimed round fills Go's build cache and the daemon.
  await compare(contenders, 1);
  const edited = [
    ...contenders.map((contender) => ({ ...contender, prepare: edit })),
    await loadAlone(daemon.socket, { cwd: module, env }),
  ];
  console.log(formatTable(`${kind} store: after an edit`, await compare(edited, rounds), "go build"));
  await compare(contenders, 1);
  console.log(formatTable(`${kind} store: nothing changed`, await compare(contenders, rounds), "go build"));
  await rm(out, { recursive: true, force: true });
}

/** What the daemon itself needs: the image of such a program, sent by curl. */
async function loadAlone(
  socket: string,
  { cwd, env }: { readonly cwd: string; readonly env: Readonly<Record<string, string>> },
): Promise<Contender> {
  const run = async (...argv: readonly string[]): Promise<string> => {
    const child = Bun.spawn([...argv], { cwd, env, stdin: "ignore", stdout: "pipe", stderr: "ignore" });
    const text = await child.stdout.text();
    if ((await child.exited) !== 0) throw new Error(`${argv.join(" ")} failed`);
    return text.trim();
  };
  await edit();
  const reference = await run(OURS, "build", "-q", "-L", IMPORT_PATH);
  const archive = at("saved.tar");
  await run("docker", "save", "--output", archive, reference);
  const post = ["--request", "POST", "--header", "Content-Type: application/x-tar", "--upload-file", archive] as const;
  return {
    name: "the daemon alone (curl sends it the image)",
    prepare: async () => {
      await run("docker", "image", "rm", "--force", reference, reference.replace(/:\w+$/, ":latest"));
    },
    argv: () => ["curl", "--silent", "--fail", "--unix-socket", socket, ...post, "http://docker/images/load?quiet=1"],
    cwd,
    env: () => env,
  };
}
