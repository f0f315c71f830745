/** `ko apply -W --swap` on a node: 100 saves, a kill in between, and what is left in the cluster. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { fieldAt, isObject, listAt, parseJson, textAt } from "../../lib/json.ts";
import { goMod } from "../helpers/go.ts";
import { waitUntil } from "../helpers/world-programs.ts";
import { startWatching, type Watching } from "../helpers/world-watch.ts";
import { startWorld, webDeployment, webServer, type World } from "./world.ts";

const SAVES = Number(process.env["KO_SWAPS"] || 100);

let world: World;

beforeAll(async () => {
  world = await startWorld({
    "go.mod": goMod("example.com/web"),
    "main.go": server(0),
    "config/web.yaml": webDeployment({ replicas: 2 }),
  });
});

afterAll(() => world?.[Symbol.asyncDispose]());

function server(version: number): string {
  return webServer(`version ${version}`);
}

async function read(...args: readonly string[]): Promise<unknown> {
  const { stdout } = await world.node.server.kubectl(["get", ...args, "-o", "json"]);
  return parseJson(stdout);
}

/** The Pods that are not ending. */
async function pods(): Promise<readonly unknown[]> {
  const all = listAt(await read("pods", "-l", "app=web"), "items");
  return all.filter((pod) => fieldAt(pod, "metadata", "deletionTimestamp") === undefined);
}

/** What all Pods answer; "" if one does not. */
async function answers(): Promise<string> {
  const texts = await Promise.all(
    (await pods()).map((pod) =>
      fetch(`http://${textAt(pod, "status", "podIP")}:8080/`, { keepalive: false }).then(
        (response) => response.text(),
        () => "",
      ),
    ),
  );
  return texts.every((text) => text === texts[0]) ? (texts[0] ?? "") : "";
}

/** The fields of a Deployment that `kubectl apply` decides. */
async function applied(): Promise<unknown> {
  const deployment = await read("deployment", "web");
  return {
    spec: fieldAt(deployment, "spec"),
    annotations: fieldAt(deployment, "metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration"),
  };
}

/** The images that Pods have, and the one of the Deployment. */
async function images(): Promise<ReadonlySet<string>> {
  const all = [fieldAt(await read("deployment", "web"), "spec", "template"), ...(await pods())];
  return new Set(all.flatMap((each) => listAt(each, "spec", "containers")).map((each) => textAt(each, "image")));
}

const start = (): Watching =>
  startWatching(world.bench, ["apply", "-W", "--swap", "-f", "config/"], { env: world.env });

async function save(version: number, watching: Watching): Promise<void> {
  world.bench.tree.write({ "main.go": server(version) });
  await waitUntil(async () => (await answers()) === `version ${version}`, watching.running);
}

test(
  "a save replaces the program in the Pods; a killed watch leaves nothing that the next apply does not mend",
  async () => {
    let watching = start();
    await watching.said(/deployment\/web is ready after/);
    const before = await pods();
    for (let version = 1; version <= SAVES; version++) await save(version, watching);
    const uids = (all: readonly unknown[]): readonly string[] =>
      all.map((pod) => textAt(pod, "metadata", "uid")).sort();
    expect(uids(await pods())).toEqual(uids(before));
    await watching.end("SIGKILL");
    // The program of before the first swap: kubectl has nothing to change, and the Pods have another program.
    world.bench.tree.write({ "main.go": server(0) });
    const { code, stderr, stdout } = await world.bench.ours(["apply", "-f", "config/"], { env: world.env });
    expect([code, stdout]).toEqual([0, "deployment.apps/web unchanged\n"]);
    expect(stderr).toContain("deployment/web: 2 Pods had the program of a swap that was killed\n");
    await waitUntil(async () => (await answers()) === "version 0");
    expect((await images()).size).toBe(1);

    watching = start();
    await watching.said(/deployment\/web is ready after/);
    await save(SAVES + 1, watching);
    // A Pod that is made during the watch gets the program of the last save.
    await world.node.server.kubectl(["scale", "deployment/web", "--replicas=3"]);
    await waitUntil(async () => (await pods()).length === 3 && (await answers()) === `version ${SAVES + 1}`);
    await world.node.server.kubectl(["scale", "deployment/web", "--replicas=2"]);
    const { stdout: last } = await watching.end("SIGINT");
    expect(last).toEndWith("deployment.apps/web configured\n");
    const swapped = await applied();
    await world.bench.ours(["apply", "--wait", "-f", "config/"], { env: world.env });
    expect(await applied()).toEqual(swapped);
    expect((await images()).size).toBe(1);
    expect(await answers()).toBe(`version ${SAVES + 1}`);
  },
  20 * 60_000,
);

test("a program that crashes after a swap is explained, and the next save mends it", async () => {
  await using watching = start();
  await watching.said(/deployment\/web is ready after/);
  world.bench.tree.write({ "main.go": 'package main\n\nfunc main() {\n\tpanic("no database")\n}\n' });
  await watching.said(
    /deployment\/web does not run: container web ends with exit code 2.*panic: no database at main\.go:4/,
  );
  await save(7, watching);
  await watching.end("SIGINT");
  expect(isObject(await applied())).toBe(true);
});
