/**
 * The development loop on a real node: from the save of a file to the first answer of the new program. Plain `go build`, the
 * original ko and ours by hand, `ko apply -W`, and `ko apply -W --swap` take turns in one run. Prints Markdown for
 * docs/performance.md, and each single round on stderr.
 *
 *     npm run build && bun .ci/setup.ts --node && npx bun test/bench/loop.ts [ROUNDS] [small|large]
 *
 * Needs root and what `npm run test:cluster` needs. The large program is a server with all packages of Knative's controller.
 */
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { listAt, textAt } from "../../lib/json.ts";
import { startNode } from "../cluster/node.ts";
import { findCounterparts, prepareKnative } from "../helpers/counterparts.ts";
import { goMod } from "../helpers/go.ts";
import { pushBases } from "../helpers/oracle-bases.ts";
import { startRegistry } from "../helpers/registry.ts";
import { makeFolder } from "../helpers/world-folders.ts";
import { cleanEnvironment, runToEnd, start, waitUntil } from "../helpers/world-programs.ts";
import { formatTime, median } from "./measure.ts";

interface Work {
  readonly title: string;
  /** Absolute path of the module. */
  readonly module: string;
  readonly importPath: string;
  /** The file that is edited, below the module. */
  readonly source: string;
}

/** A contender with a copy of the sources and a Deployment of its own. */
interface Side {
  readonly name: string;
  readonly app: string;
  readonly folder: string;
  /** Brings a saved change to the cluster. A watch needs nothing. */
  readonly bring: () => Promise<void>;
}

const OURS = resolve(import.meta.dir, "../../ko");
const rounds = Number(process.argv[2] ?? 7);
const only = process.argv[3];
const programs = findCounterparts(["docker-registry", "ko"]);
if (programs === undefined) throw new Error("docker-registry and the original ko are needed: see .ci/run");
const original = programs.ko;

await using node = await startNode();
await using registry = await startRegistry();
await using folder = await makeFolder();
const bases = await pushBases(registry.host);
const env: Readonly<Record<string, string>> = {
  ...cleanEnvironment(folder.path),
  CGO_ENABLED: "0",
  GOFLAGS: "-buildvcs=false",
  KO_CONFIG_PATH: "",
  KO_DEFAULTBASEIMAGE: bases.amd64.reference,
  KUBECONFIG: node.server.kubeconfig,
};

if (only !== "large") await bench(await prepareSmall());
if (only !== "small") await bench(await prepareLarge());

/** A server of net/http alone. */
async function prepareSmall(): Promise<Work> {
  const module = join(folder.path, "small");
  await write(join(module, "go.mod"), goMod("example.com/small"));
  await write(join(module, "main.go"), server(""));
  return { title: "a small server (net/http)", module, importPath: "example.com/small", source: "main.go" };
}

/** A server that is linked with everything that Knative's controller imports. */
async function prepareLarge(): Promise<Work> {
  const module = await prepareKnative();
  const controller = await readFile(join(module, "cmd/controller/main.go"), "utf8");
  const imports = [...controller.matchAll(/"((?:knative\.dev|k8s\.io)\/[^"]+)"/g)].map(([, path]) => `\t_ "${path}"\n`);
  const copy = join(folder.path, "large");
  await cp(module, copy, { recursive: true, filter: (path) => !path.endsWith("/.git") });
  await write(join(copy, "cmd/loop/main.go"), server(imports.join("")));
  return {
    title: "a large server",
    module: copy,
    importPath: "knative.dev/serving/cmd/loop",
    source: "cmd/loop/main.go",
  };
}

function server(imports: string): string {
  return `package main

import (
	"fmt"
	"net/http"
${imports})

const version = "none"

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, version) })
	http.ListenAndServe(":8080", nil)
}
`;
}

async function bench({ importPath, module, source, title }: Work): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const copy = async (name: string): Promise<string> => {
    const path = join(folder.path, `${name}-copy`);
    await cp(module, path, { recursive: true });
    await write(join(path, "config/app.yaml"), deployment(name, `ko://${importPath}`));
    return path;
  };
  const own = (name: string): Record<string, string> => ({
    ...env,
    KO_DOCKER_REPO: `${registry.host}/${name}`,
    KOCACHE: join(folder.path, `${name}-cache`),
  });
  const byHand = async (name: string, ko: string): Promise<Side> => {
    const path = await copy(name);
    const bring = (): Promise<void> => run([ko, "apply", "-f", "config/"], path, own(name));
    await bring();
    return { name: `${name}: ko apply`, app: name, folder: path, bring };
  };
  const watched = async (name: string, flags: readonly string[]): Promise<Side> => {
    const path = await copy(name);
    const running = start([OURS, "apply", "-W", ...flags, "-f", "config/"], { cwd: path, env: own(name) });
    stack.defer(async () => {
      process.kill(running.pid, "SIGINT");
      await running.result;
    });
    await waitUntil(() => /^watching /m.test(running.stderr()), running, { patience: 600_000 });
    return {
      name: `ko apply -W${flags.map((flag) => ` ${flag}`).join("")}`,
      app: name,
      folder: path,
      bring: async () => {},
    };
  };
  const plain = await copy("plain");
  const build = ["go", "build", "-trimpath", "-o", join(folder.path, "out"), importPath];
  await run(build, plain, env);
  const sides = [
    await byHand("original", original),
    await byHand("ours", OURS),
    await watched("watch", []),
    await watched("swap", ["--swap"]),
  ];
  for (const { app } of sides) await firstAnswer(app, "none");
  const times = new Map<string, number[]>();
  const note = (name: string, ms: number): void => {
    times.set(name, [...(times.get(name) ?? []), ms]);
    console.error(`  ${name}: ${formatTime(ms)}`);
  };
  for (let round = 0; round < rounds; round++) {
    await edit(join(plain, source), `plain ${round}`);
    const begin = performance.now();
    await run(build, plain, env);
    note("go build", performance.now() - begin);
    for (const side of sides) {
      const version = `${side.app} ${round}`;
      const saved = performance.now();
      await edit(join(side.folder, source), version);
      await side.bring();
      await firstAnswer(side.app, version);
      note(side.name, performance.now() - saved);
      await settle(side.app, version);
    }
  }
  const one = median(times.get("go build") ?? []);
  const lines = Array.from(times, ([name, all]) => {
    const ms = median(all);
    return `| ${name} | ${formatTime(ms)} | ${formatTime(ms - one)} | ${(ms / one).toFixed(1)} |`;
  });
  console.log(
    [
      `### ${title}`,
      "",
      "| | save to first answer | over go build | ratio |",
      "| --- | --- | --- | --- |",
      ...lines,
      "",
    ].join("\n"),
  );
  for (const { app } of sides) await node.server.kubectl(["delete", "deployment", app, "--wait=false"]);
}

/** The addresses of the Pods of a Deployment that are not ending. */
async function addresses(app: string): Promise<readonly string[]> {
  const pods = listAt(
    await node.server.request("GET", `/api/v1/namespaces/default/pods?labelSelector=app%3D${app}`),
    "items",
  );
  return pods.flatMap((pod) => {
    const address = textAt(pod, "status", "podIP");
    return address === "" || textAt(pod, "metadata", "deletionTimestamp") !== "" ? [] : [address];
  });
}

async function answersOf(app: string): Promise<readonly string[]> {
  return Promise.all(
    (await addresses(app)).map((address) =>
      fetch(`http://${address}:8080/`, { keepalive: false, signal: AbortSignal.timeout(500) }).then(
        (response) => response.text(),
        () => "",
      ),
    ),
  );
}

async function firstAnswer(app: string, version: string): Promise<void> {
  for (const begin = performance.now(); ;) {
    if ((await answersOf(app)).includes(version)) return;
    if (performance.now() - begin > 300_000) throw new Error(`${app} does not answer "${version}"`);
    await Bun.sleep(20);
  }
}

/** Until the old Pods are gone, which take processor time from the next contender. */
async function settle(app: string, version: string): Promise<void> {
  for (const begin = performance.now(); performance.now() - begin < 60_000;) {
    const all = await answersOf(app);
    if (all.length === 1 && all[0] === version) break;
    await Bun.sleep(200);
  }
  await Bun.sleep(2000);
}

async function edit(path: string, version: string): Promise<void> {
  const text = await readFile(path, "utf8");
  await writeFile(path, text.replace(/^const version = .*$/m, `const version = ${JSON.stringify(version)}`));
}

async function write(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
}

async function run(argv: readonly string[], cwd: string, variables: Readonly<Record<string, string>>): Promise<void> {
  const { code, stderr } = await runToEnd(argv, { cwd, env: variables });
  if (code !== 0) throw new Error(stderr);
}

function deployment(name: string, image: string): string {
  return `apiVersion: apps/v1
kind: Deployment
metadata: {name: ${name}}
spec:
  selector: {matchLabels: {app: ${name}}}
  template:
    metadata: {labels: {app: ${name}}}
    spec:
      containers:
        - name: app
          image: ${image}
          readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
`;
}
