/**
 * `ko apply -W` against doing it by hand: from the save to the end of kubectl, beside `go build` of the same program plus
 * `kubectl apply` of one Deployment. Then a watch of 1,500 packages at rest: CPU and memory. Prints Markdown for
 * docs/performance.md.
 *
 *     npm run build && npx bun test/bench/watch.ts [ROUNDS]
 *
 * Needs docker-registry, etcd, kube-apiserver and kubectl (as the tests do). The large program is Knative's controller.
 */
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { startApiServer } from "../helpers/cluster.ts";
import { findCounterparts, findKnativeModule } from "../helpers/counterparts.ts";
import { goMod } from "../helpers/go.ts";
import { pushBases } from "../helpers/oracle-bases.ts";
import { startRegistry } from "../helpers/registry.ts";
import { type Running, runToEnd, start, waitUntil } from "../helpers/world-programs.ts";

const OURS = resolve(import.meta.dir, "../../ko");
const rounds = Number(process.argv[2] ?? 7);
const counterparts = findCounterparts(["docker-registry", "etcd", "kube-apiserver", "kubectl"]);
if (counterparts === undefined)
  throw new Error("docker-registry, etcd, kube-apiserver and kubectl are needed: see .ci/run");
const { kubectl } = counterparts;

interface Program {
  readonly title: string;
  /** The module; left alone: copies are edited. */
  readonly module: string;
  readonly importPath: string;
  /** The file that is edited, below the module. */
  readonly source: string;
}

await using registry = await startRegistry();
await using server = await startApiServer();
const bases = await pushBases(registry.host);
const folder = await mkdtemp(join(tmpdir(), "ko-bench-"));
try {
  const common: Record<string, string> = {};
  for (const [key, value] of Object.entries(process.env)) {
    if (value !== undefined && !key.startsWith("KO") && !key.startsWith("GOOS")) common[key] = value;
  }
  const env = {
    ...common,
    CGO_ENABLED: "0",
    KO_DEFAULTBASEIMAGE: bases.oci.reference,
    KO_DOCKER_REPO: `${registry.host}/watch`,
    KOCACHE: join(folder, "cache"),
    KUBECONFIG: server.kubeconfig,
  };

  const small = join(folder, "small");
  await write(join(small, "go.mod"), goMod("example.com/small"));
  await write(
    join(small, "main.go"),
    'package main\n\nimport "net/http"\n\nfunc main() { _ = http.ListenAndServe(":8080", nil) }\n',
  );
  await benchProgram({ title: "small", module: small, importPath: "example.com/small", source: "main.go" });
  const knative = findKnativeModule();
  if (knative !== undefined) {
    const source = "cmd/controller/main.go";
    await benchProgram({ title: "large", module: knative, importPath: "knative.dev/serving/cmd/controller", source });
  }
  await benchRest();

  async function benchProgram({ title, module, importPath, source }: Program): Promise<void> {
    const [byHand, watched] = [join(folder, `${title}-hand`), join(folder, `${title}-watched`)];
    for (const copy of [byHand, watched]) {
      await cp(module, copy, { recursive: true });
      await Bun.spawn(["chmod", "-R", "u+w", copy]).exited;
    }
    const image = `ko://${importPath}`;
    await write(join(watched, "deployment.yaml"), deployment(`${title}-watched`, image));
    const out = join(folder, `${title}-out`);
    const build = ["go", "build", "-trimpath", "-o", `${out}/`, importPath];
    await run(build, byHand, env);
    await using watching = await watch(["apply", "-W", "-f", "deployment.yaml"], watched, env);
    const times: { readonly hand: number; readonly watch: number }[] = [];
    for (let round = 0; round < rounds; round++) {
      // Other edits for each, so that neither finds the other's work in Go's cache.
      await edit(join(byHand, source), `byHand${round}`);
      let begin = performance.now();
      await run(build, byHand, env);
      const yaml = deployment(`${title}-hand`, `registry.example/x:v${round}`);
      await runToEnd([kubectl, "apply", "-f", "-"], { cwd: byHand, env, stdin: yaml });
      const hand = performance.now() - begin;
      const before = watching.applied();
      begin = performance.now();
      await edit(join(watched, source), `watched${round}`);
      await waitUntil(() => watching.applied() > before, watching.running);
      times.push({ hand, watch: performance.now() - begin });
    }
    const [hand, ours] = [median(times.map((each) => each.hand)), median(times.map((each) => each.watch))];
    const difference = median(times.map((each) => each.watch - each.hand));
    console.log(`### ${title}: from the save to the end of kubectl\n
| | time |
| - | - |
| go build, kubectl apply | ${hand.toFixed(0)} ms |
| ko apply -W | ${ours.toFixed(0)} ms |
| difference, round by round | ${difference.toFixed(0)} ms |
`);
    console.log(`${/(?:.*\n){2}(?=watching|$)/.exec(watching.running.stderr())?.[0] ?? ""}\n`);
  }

  /** 1,500 packages that one program imports, watched, with nothing going on. */
  async function benchRest(): Promise<void> {
    const module = join(folder, "rest");
    const names = Array.from({ length: 1500 }, (_, i) => `p${i % 30}/q${i}`);
    await write(join(module, "go.mod"), goMod("example.com/rest"));
    for (const [i, name] of names.entries()) await write(join(module, name, "x.go"), `package q${i}\n\nvar V = 1\n`);
    const imports = names.map((name) => `\t_ "example.com/rest/${name}"\n`).join("");
    await write(join(module, "cmd", "main.go"), `package main\n\nimport (\n${imports})\n\nfunc main() {}\n`);
    await using watching = await watch(["build", "-W", "--push=false", "./cmd"], module, env);
    const { pid } = watching.running;
    const ticks = (): number => {
      const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(" ");
      return Number(fields[13]) + Number(fields[14]);
    };
    await Bun.sleep(2000);
    const before = ticks();
    await Bun.sleep(20_000);
    const cpu = (ticks() - before) / 20;
    const resident = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024;
    console.log(`### at rest, 1,501 packages: ${cpu.toFixed(2)} % CPU, ${resident.toFixed(0)} MB resident`);
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}

interface Watched extends AsyncDisposable {
  readonly running: Running;
  /** How many rounds have ended well. */
  applied(): number;
}

async function watch(args: readonly string[], cwd: string, env: Readonly<Record<string, string>>): Promise<Watched> {
  const running = start([OURS, ...args], { cwd, env });
  try {
    await waitUntil(() => /^watching /m.test(running.stderr()), running, { patience: 600_000 });
  } catch (error) {
    process.kill(running.pid, "SIGKILL");
    throw error;
  }
  return {
    running,
    applied: () => running.stderr().match(/^ {2}applied /gm)?.length ?? 0,
    [Symbol.asyncDispose]: async () => {
      process.kill(running.pid, "SIGINT");
      await running.result;
    },
  };
}

/** Changes what a source compiles to. */
async function edit(path: string, name: string): Promise<void> {
  const text = (await readFile(path, "utf8")).replace(/\nfunc init\(\) \{ println\("[^"]*"\) \}\n$/, "");
  await writeFile(path, `${text}\nfunc init() { println("${name}") }\n`);
}

async function write(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
}

async function run(argv: readonly string[], cwd: string, env: Readonly<Record<string, string>>): Promise<void> {
  const { code, stderr } = await runToEnd(argv, { cwd, env });
  if (code !== 0) throw new Error(stderr);
}

function deployment(name: string, image: string): string {
  const template = `{metadata: {labels: {app: ${name}}}, spec: {containers: [{name: c, image: "${image}"}]}}`;
  return `apiVersion: apps/v1
kind: Deployment
metadata: {name: ${name}}
spec: {selector: {matchLabels: {app: ${name}}}, template: ${template}}
`;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}
