/** `ko apply` on a node that runs Pods: the image that was pushed runs and answers, and `--wait` says when. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { listAt, parseJson, textAt } from "../../lib/json.ts";
import { goMod } from "../helpers/go.ts";
import { makeBench } from "../helpers/world-bench.ts";
import { startWorld, webDeployment, webServer, type World } from "./world.ts";

let world: World;

beforeAll(async () => {
  world = await startWorld({
    "go.mod": goMod("example.com/web"),
    "main.go": webServer("version 1"),
    "config/web.yaml": webDeployment({ replicas: 1 }),
  });
});

afterAll(() => world?.[Symbol.asyncDispose]());

/** For a while: kubectl shows nothing of a program that ends while it attaches. */
const TICKER = `package main

import "time"

func main() {
	for range 30 {
		println("hello, Pod")
		time.Sleep(100 * time.Millisecond)
	}
}
`;

/** The address of the only Pod with a label. */
async function addressOf(app: string): Promise<string> {
  const { stdout } = await world.node.server.kubectl(["get", "pods", "-l", `app=${app}`, "-o", "json"]);
  const pods = listAt(parseJson(stdout), "items");
  return textAt(pods[0], "status", "podIP");
}

test("a Deployment runs the program that was built", async () => {
  const { code, stderr } = await world.bench.ours(["apply", "--wait", "-f", "config/"], { env: world.env });
  expect(stderr).toMatch(/deployment\/web is ready after [\d.]+s\n$/);
  expect(code).toBe(0);
  expect(await (await fetch(`http://${await addressOf("web")}:8080/`)).text()).toBe("version 1");
});

test("`ko delete` ends it", async () => {
  const { code, stdout } = await world.bench.ours(["delete", "--wait=true", "-f", "config/"], { env: world.env });
  expect([code, stdout]).toEqual([0, expect.stringContaining('deployment.apps "web" deleted')]);
});

test("`ko run` shows what the program prints", async () => {
  const files = { "go.mod": goMod("example.com/hello", { go: "1.22" }), "main.go": TICKER };
  using hello = makeBench(files, { host: world.registry.host });
  const { code, stderr, stdout } = await hello.ours(["run", ".", "--", "--attach", "--rm", "--restart=Never"], {
    env: world.env,
  });
  expect(`${stdout}${stderr}`).toContain("hello, Pod");
  expect(code).toBe(0);
});
