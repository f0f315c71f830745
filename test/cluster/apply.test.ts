/** `ko apply` on a node that runs Pods: the image that was pushed runs and answers, and `--wait` says when. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { listAt, parseJson, textAt } from "../../lib/json.ts";
import { goMod } from "../helpers/go.ts";
import { startRegistry, type TestRegistry } from "../helpers/registry.ts";
import { type Bench, makeBench } from "../helpers/world-bench.ts";
import { type Node, startNode } from "./node.ts";

const SERVER = `package main

import (
	"fmt"
	"net/http"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "version 1") })
	http.ListenAndServe(":8080", nil)
}
`;
const WEB = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: ko://example.com/web
          readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
`;

let node: Node;
let registry: TestRegistry;
let bench: Bench;

beforeAll(async () => {
  [node, registry] = await Promise.all([startNode(), startRegistry()]);
  const files = { "go.mod": goMod("example.com/web"), "main.go": SERVER, "config/web.yaml": WEB };
  bench = makeBench(files, { host: registry.host });
});

afterAll(async () => {
  bench?.[Symbol.dispose]();
  await node?.[Symbol.asyncDispose]();
  await registry?.[Symbol.asyncDispose]();
});

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
  const { stdout } = await node.server.kubectl(["get", "pods", "-l", `app=${app}`, "-o", "json"]);
  const pods = listAt(parseJson(stdout), "items");
  return textAt(pods[0], "status", "podIP");
}

test("a Deployment runs the program that was built", async () => {
  const { code, stderr } = await bench.ours(["apply", "--wait", "-f", "config/"], {
    env: { KUBECONFIG: node.server.kubeconfig },
  });
  expect(stderr).toMatch(/deployment\/web is ready after [\d.]+s\n$/);
  expect(code).toBe(0);
  expect(await (await fetch(`http://${await addressOf("web")}:8080/`)).text()).toBe("version 1");
});

test("`ko delete` ends it", async () => {
  const env = { KUBECONFIG: node.server.kubeconfig };
  const { code, stdout } = await bench.ours(["delete", "--wait=true", "-f", "config/"], { env });
  expect([code, stdout]).toEqual([0, expect.stringContaining('deployment.apps "web" deleted')]);
});

test("`ko run` shows what the program prints", async () => {
  const files = { "go.mod": goMod("example.com/hello", { go: "1.22" }), "main.go": TICKER };
  using hello = makeBench(files, { host: registry.host });
  const { code, stderr, stdout } = await hello.ours(["run", ".", "--", "--attach", "--rm", "--restart=Never"], {
    env: { KUBECONFIG: node.server.kubeconfig },
  });
  expect(`${stdout}${stderr}`).toContain("hello, Pod");
  expect(code).toBe(0);
});
