/**
 * `ko apply -W` with a real API server, registry, Go and kubectl: the state of the cluster after one edit, and after many.
 *
 * `KO_WATCH_EDITS=1000` makes more random edits. In CI all of them are made.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { type ApiServer, startApiServer } from "./helpers/cluster.ts";
import { findCounterparts } from "./helpers/counterparts.ts";
import { goMod, libraryGo, mainGo } from "./helpers/go.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import type { Files } from "./helpers/world-folders.ts";
import { waitUntil } from "./helpers/world-programs.ts";
import { causeOf, outcomeOf, startWatching, type Watching } from "./helpers/world-watch.ts";

const programs = findCounterparts(["docker-registry", "etcd", "kube-apiserver", "kubectl"]);

const ALL_EDITS = 200;
const EDITS = Number(process.env["KO_WATCH_EDITS"] || (process.env["CI"] ? ALL_EDITS : 60));

type Edit = readonly [path: string, text: string];

const NAMES = ["foo", "bar", "baz"] as const;

/** The original's own example: two Deployments of one package, one that has nothing to do with it. */
const APP: Files = {
  "go.mod": goMod("example.com/app"),
  "cmd/foo/main.go": mainGo("foo", ["example.com/app/pkg/shared"]),
  "cmd/bar/main.go": mainGo("bar", ["example.com/app/pkg/shared"]),
  "cmd/baz/main.go": mainGo("baz", ["example.com/app/pkg/own"]),
  "pkg/shared/shared.go": libraryGo("shared", "1"),
  "pkg/own/own.go": libraryGo("own", "1"),
  "pkg/unused/unused.go": libraryGo("unused", "1"),
  ...Object.fromEntries(NAMES.map((name) => [`config/${name}.yaml`, deployment(name, "1")])),
};

function deployment(name: string, label: string): string {
  const image = `ko://example.com/app/cmd/${name}`;
  const template = `{metadata: {labels: {app: ${name}}}, spec: {containers: [{name: c, image: "${image}"}]}}`;
  return `apiVersion: apps/v1
kind: Deployment
metadata: {name: ${name}, labels: {v: v${label}}}
spec: {selector: {matchLabels: {app: ${name}}}, template: ${template}}
`;
}

function configMap(name: string): string {
  return `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}}\n`;
}

describe.skipIf(programs === undefined)("ko apply -W on a real API server", () => {
  let registry: TestRegistry;
  let server: ApiServer;

  beforeAll(async () => {
    [registry, server] = await Promise.all([startRegistry(), startApiServer()]);
  });

  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
    await registry?.[Symbol.asyncDispose]();
  });

  async function start(bench: Bench, namespace: string): Promise<Watching> {
    const { code, stderr } = await server.kubectl(["create", "namespace", namespace]);
    if (code !== 0) throw new Error(stderr);
    const args = ["apply", "-W", "-f", "config", "-n", namespace];
    return startWatching(bench, args, { env: { KUBECONFIG: server.kubeconfig } });
  }

  async function versions(namespace: string): Promise<Readonly<Record<string, string>>> {
    const form = "jsonpath={range .items[*]}{.metadata.name}={.metadata.generation}{'\\n'}{end}";
    const { stdout } = await server.kubectl(["get", "deployments", "-n", namespace, `--output=${form}`]);
    return Object.fromEntries(
      stdout
        .trimEnd()
        .split("\n")
        .map((line) => line.split("=")),
    );
  }

  test("an edit of a shared package applies exactly the two Deployments that use it; of an unused one, none", async () => {
    using bench = makeBench(APP, { host: registry.host });
    await using watching = await start(bench, "shared");
    await watching.round();
    expect(watching.printed().split("\n").sort().join("\n").trim()).toBe(
      [...NAMES]
        .sort()
        .map((name) => `deployment.apps/${name} created`)
        .join("\n"),
    );
    expect(await versions("shared")).toEqual({ foo: "1", bar: "1", baz: "1" });

    bench.tree.write({ "pkg/unused/unused.go": libraryGo("unused", "2") });
    bench.tree.write({ "pkg/shared/shared.go": libraryGo("shared", "2") });
    const block = await watching.round();
    expect([causeOf(block), outcomeOf(block)]).toEqual(["pkg/shared/shared.go", "applied 2 documents"]);
    expect(watching.printed()).toBe("deployment.apps/bar configured\ndeployment.apps/foo configured\n");
    expect(await versions("shared")).toEqual({ foo: "2", bar: "2", baz: "1" });

    // The object of a removed document stays in the cluster.
    rmSync(bench.tree.at("config/baz.yaml"));
    expect(await watching.round()).toContain(
      'Deployment "baz" is no longer in config/baz.yaml: it is left in the cluster',
    );
    expect(await versions("shared")).toEqual({ foo: "2", bar: "2", baz: "1" });
  });

  test("a refusal of the server is shown once, and the repaired document applied", async () => {
    using bench = makeBench(APP, { host: registry.host });
    await using watching = await start(bench, "refused");
    await watching.round();
    watching.printed();
    const good = deployment("baz", "2");
    bench.tree.write({ "config/baz.yaml": good.replace("matchLabels: {app: baz", "matchLabels: {app: other") });
    const block = await watching.round();
    expect(block).toContain('The Deployment "baz" is invalid');
    expect(block).toContain("Error: kubectl apply failed with exit code 1\n");
    bench.tree.write({ "config/baz.yaml": good });
    expect(outcomeOf(await watching.round())).toBe("applied 1 document");
    expect(watching.running.stderr().match(/is invalid/g)).toHaveLength(1);
  });

  test(
    `after ${EDITS} random edits${EDITS < ALL_EDITS ? ` (in CI ${ALL_EDITS})` : ""}, broken ones among them, the cluster is as one fresh ko apply leaves it`,
    async () => {
      using bench = makeBench(APP, { host: registry.host });
      await using watching = await start(bench, "random");
      await watching.round();
      const random = createRandom(20_261_126);
      const pick = <T>(items: readonly [T, ...T[]]): T => items[Math.floor(random() * items.length)] ?? items[0];
      let serial = 1;
      const broken = new Map<string, string>();
      const edit = (): void => {
        serial++;
        const mend = pick([true, false]) ? [...broken].at(0) : undefined;
        if (mend !== undefined) {
          broken.delete(mend[0]);
          bench.tree.write({ [mend[0]]: mend[1] });
          return;
        }
        const name = pick(NAMES);
        const edits: readonly [Edit, ...Edit[]] = [
          ["pkg/shared/shared.go", libraryGo("shared", String(serial))],
          ["pkg/own/own.go", libraryGo("own", String(serial))],
          ["pkg/unused/unused.go", libraryGo("unused", String(serial))],
          [`cmd/${name}/main.go`, mainGo(`${name}${serial}`, [`example.com/app/pkg/${pick(["shared", "own"])}`])],
          [`config/${name}.yaml`, deployment(name, String(serial))],
          [`cmd/${name}/kodata/file.txt`, String(serial)],
        ];
        const [path, text] = pick(edits);
        const isBreaking = random() < 0.25 && !path.includes("kodata");
        if (isBreaking) broken.set(path, text);
        else broken.delete(path);
        bench.tree.write({ [path]: isBreaking ? `${text}\n}{ broken ${serial}` : text });
      };
      for (let i = 0; i < EDITS; i++) {
        edit();
        // Some edits come one by one, some during a round: a change of this file always makes a round.
        if (random() < 0.3) {
          bench.tree.write({ "config/mark.yaml": configMap(`mark-${i}`) });
          await watching.said(/^\d\d:\d\d:\d\d /m);
        }
      }
      for (const [path, text] of broken) bench.tree.write({ [path]: text });
      // The end mark: kubectl gets it last.
      bench.tree.write({ "config/zzz.yaml": configMap("end") });
      await waitUntil(() => watching.running.stdout().includes("configmap/end created\n"), watching.running);
      await watching.end();
      const { code, stdout, stderr } = await bench.ours(["resolve", "-q", "-f", "config"]);
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      expect(await server.kubectl(["diff", "-n", "random", "-f", "-"], { stdin: stdout })).toEqual({
        code: 0,
        stdout: "",
        stderr: "",
      });
    },
    EDITS * 5000,
  );
});

/** The same numbers for the same seed: mulberry32. */
function createRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
