/** The commands that a run with `--debug` shows, for each command of ko. */
import { afterEach, beforeAll, describe, expect, test } from "bun:test";
import { findDelve, goMod, mainGo } from "./helpers/go.ts";
import { makeScene, type Scene } from "./helpers/world-bench.ts";

const YAML = `kind: Deployment
metadata: {name: web, namespace: team}
spec: {image: ko://example.com/app/cmd/web}
---
kind: CronJob
metadata: {name: night}
spec: {image: ko://example.com/app/cmd/web}
---
kind: Pod
metadata: {name: other}
spec: {image: ko://example.com/app/cmd/other}
`;

let delve: string | undefined;
let scene: Scene | undefined;

beforeAll(async () => {
  delve = await findDelve();
}, 900_000);

afterEach(() => {
  scene?.[Symbol.dispose]();
  scene = undefined;
});

function open(): Scene {
  scene = makeScene(
    {
      "app/go.mod": goMod("example.com/app"),
      "app/cmd/web/main.go": mainGo("web"),
      "app/cmd/other/main.go": mainGo("other"),
      "app/all.yaml": YAML,
    },
    { env: { GOFLAGS: "-buildvcs=false", TEST_DELVE: delve ?? "" } },
  );
  scene.work.write({ "stubs/kubectl": { executable: "#!/bin/sh\ncat > /dev/null\n" } });
  scene.env["PATH"] = `${scene.work.at("stubs")}:${scene.env["PATH"] ?? ""}`;
  return scene;
}

const attach = (stderr: string): string => stderr.slice(stderr.search(/^\S+ (?:waits|runs)/m));

describe("with --debug", () => {
  test("build shows how to reach a pod", async () => {
    if (delve === undefined) return;
    const { code, stderr } = await open().run({ args: ["build", "--push=false", "--debug", "./cmd/web"] });
    expect([code, attach(stderr)]).toEqual([
      0,
      "example.com/app/cmd/web waits for a debugger on port 40000:\n" +
        "  kubectl port-forward pod/POD 40000\n  dlv connect localhost:40000\n",
    ]);
  });

  test("resolve names the objects, and stdout is YAML", async () => {
    if (delve === undefined) return;
    const args = ["resolve", "--push=false", "--debug", "--debug-continue", "--debug-port=2345", "-f", "all.yaml"];
    const { code, images, stderr } = await open().run({ args });
    expect([code, attach(stderr)]).toEqual([
      0,
      "example.com/app/cmd/web runs, and takes a debugger on port 2345:\n" +
        "  kubectl port-forward -n team deployment/web 2345\n  kubectl port-forward pod/POD 2345\n" +
        "  dlv connect localhost:2345\n" +
        "example.com/app/cmd/other runs, and takes a debugger on port 2345:\n" +
        "  kubectl port-forward pod/other 2345\n  dlv connect localhost:2345\n",
    ]);
    expect(images).not.toContain("port-forward");
  });

  test("apply names the cluster, and no secret", async () => {
    if (delve === undefined) return;
    const flags = ["--context=kind-x", "--token=secret-1", "--", "--namespace", "here", "--password=secret-2"];
    const args = ["apply", "--push=false", "--debug", "-f", "all.yaml", ...flags];
    const { code, stderr } = await open().run({ args });
    expect(code).toBe(0);
    expect(stderr).toContain("\n  kubectl port-forward --context=kind-x --namespace here deployment/web 40000\n");
    expect(stderr).not.toContain("secret");
  });

  test("run names its pod", async () => {
    if (delve === undefined) return;
    const { code, stderr } = await open().run({ args: ["run", "--push=false", "--debug", "-n", "here", "./cmd/web"] });
    expect(code).toBe(0);
    expect(attach(stderr)).toMatch(/\n {2}kubectl port-forward --namespace=here pod\/web-\w+ 40000\n/);
  });

  test("-q, and a run without --debug, show nothing", async () => {
    if (delve === undefined) return;
    const of = open();
    for (const flags of [["--debug", "-q"], []]) {
      const { code, stderr } = await of.run({ args: ["resolve", "--push=false", ...flags, "-f", "all.yaml"] });
      expect([code, stderr.includes("debugger")]).toEqual([0, false]);
    }
  });
});
