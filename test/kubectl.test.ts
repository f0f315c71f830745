import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseCommandLine } from "../lib/cli-parse.ts";
import { CommandError, KoError, describeError } from "../lib/errors.ts";
import { type Host, Interrupted } from "../lib/host.ts";
import {
  clusterArguments,
  findKubectl,
  kubectlArguments,
  podName,
  runArguments,
  runKubectl,
  runPod,
  showArguments,
} from "../lib/kubectl.ts";
import { silentLog } from "../lib/log.ts";
import { startKubeApi } from "./helpers/cluster.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";
import { waitUntil } from "./helpers/world-programs.ts";

const LIB = join(import.meta.dir, "../lib");
const KO = join(import.meta.dir, "../ko.ts");

/** A folder with a stand-in for kubectl, and a host that finds it first. */
function stub(script: string, changes: Partial<Host> = {}): { readonly tree: Tree; readonly host: Host } {
  const tree = writeTree({ "bin/kubectl": { executable: `#!/bin/sh\n${script}\n` } });
  const env = { PATH: `${tree.at("bin")}:${process.env["PATH"]}` };
  return { tree, host: hostAt(tree.path, { env, ...changes }) };
}

describe("findKubectl()", () => {
  test("gives its path, or says what to do", async () => {
    const { tree, host } = stub("");
    using _ = tree;
    expect(findKubectl(host)).toBe(tree.at("bin/kubectl"));
    const shown = describeError(await rejectionOf(() => findKubectl(hostAt(tree.path, { env: { PATH: tree.path } }))));
    expect(shown).toBe(
      "Error: Cannot find kubectl: it is not on PATH\n" +
        "  Install kubectl (https://kubernetes.io/docs/tasks/tools/), or add its directory to PATH.",
    );
  });
});

describe("kubectlArguments()", () => {
  test.each<[readonly string[], readonly string[]]>([
    [[], []],
    [["-f", "x", "--bare"], []],
    [
      ["-s", "https://h:1", "-nfoo", "--context", "c"],
      ["--context=c", "--namespace=foo", "--server=https://h:1"],
    ],
    [["--namespace="], ["--namespace="]],
    [
      ["--as-group=a", "--as=me", "--as-group", "b,c"],
      ["--as=me", "--as-group=a", "--as-group=b,c"],
    ],
    [["--insecure-skip-tls-verify"], ["--insecure-skip-tls-verify=true"]],
    [["--insecure-skip-tls-verify=false"], ["--insecure-skip-tls-verify=false"]],
    [
      ["--kubeconfig", "a b", "--token=t=1"],
      ["--kubeconfig=a b", "--token=t=1"],
    ],
  ])("writes %j as %j", (argv, wanted) => {
    const invocation = parseCommandLine(["apply", ...argv]);
    if (invocation.command !== "apply") throw new Error(`it is ${invocation.command}`);
    expect(kubectlArguments(invocation.flags, invocation.given)).toEqual([...wanted]);
  });
});

describe("showArguments()", () => {
  test("shows no value: any of them may be a secret", () => {
    const args = ["apply", "-f", "-", "--token=canary", "--password", "canary", "-s=canary", "-ncanary", "--prune"];
    expect(showArguments(args)).toBe("apply -f … --token=… --password … -s… -n… --prune");
  });
});

describe("podName()", () => {
  test.each([
    ["example.com/cmd/api", "api-x1"],
    ["example.com/cmd/My_App.v2", "my-app-v2-x1"],
    ["example.com/_x_", "x-x1"],
    ["example.com/é", "ko-x1"],
    ["app", "app-x1"],
    [`example.com/${"a".repeat(80)}`, `${"a".repeat(60)}-x1`],
    [`example.com/${"a".repeat(59)}_b`, `${"a".repeat(59)}-x1`],
  ])("makes a label of %s", (importPath, wanted) => {
    expect(podName(importPath, "x1")).toBe(wanted);
    expect(wanted).toMatch(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/);
  });
});

describe("runArguments()", () => {
  test("puts the user's words last", () => {
    expect(
      runArguments("app-x1", {
        reference: "h/app@sha256:1",
        kubectl: ["--namespace=n"],
        afterDashes: ["--env=A=b", "--", "-v"],
      }),
    ).toEqual([
      "run",
      "app-x1",
      "--image=h/app@sha256:1",
      "--attach",
      "--rm",
      "--restart=Never",
      "--log-flush-frequency=1s",
      "--namespace=n",
      "--env=A=b",
      "--",
      "-v",
    ]);
  });
});

describe("clusterArguments()", () => {
  test.each<[readonly string[], readonly string[]]>([
    [[], []],
    [
      ["-n", "a", "--env=x", "--context=c"],
      ["-n", "a", "--context=c"],
    ],
    [
      ["-na", "-s=https://h"],
      ["-na", "-s=https://h"],
    ],
    [
      ["--namespace", "a", "word"],
      ["--namespace", "a"],
    ],
    [["--insecure-skip-tls-verify", "word"], ["--insecure-skip-tls-verify"]],
    [["--namespaces=x", "--", "-n", "program's"], []],
  ])("finds in %j the words %j", (args, wanted) => {
    expect(clusterArguments(args)).toEqual([...wanted]);
  });
});

describe("runKubectl()", () => {
  test("feeds it everything, and returns its exit code", async () => {
    const { tree, host } = stub('echo "$@" > args; cat > input; exit 7');
    using _ = tree;
    const stdin = new TextEncoder().encode("a: b\n---\n".repeat(600_000));
    expect(await runKubectl(host, ["apply", "-f", "-", "--x=a b"], { log: silentLog, stdin })).toBe(7);
    expect(readFileSync(tree.at("args"), "utf8")).toBe("apply -f - --x=a b\n");
    expect(Buffer.compare(readFileSync(tree.at("input")), stdin)).toBe(0);
  });

  test("takes its exit code also when it reads nothing", async () => {
    const { tree, host } = stub("exit 9");
    using _ = tree;
    const stdin = new Uint8Array(20 << 20);
    expect(await runKubectl(host, ["apply"], { log: silentLog, stdin })).toBe(9);
  });

  test("stays in our process group, where a terminal's Ctrl-C arrives", async () => {
    const { tree, host } = stub("ps -o pgid= -p $$ > group; ps -o pgid= -p $PPID >> group");
    using _ = tree;
    await runKubectl(host, ["version"], { log: silentLog });
    const [own = "none", parents] = readFileSync(tree.at("group"), "utf8").trim().split(/\s+/);
    expect(own).toBe(parents ?? "");
  });

  test("fails when a signal ends it", async () => {
    const { tree, host } = stub("kill -KILL $$");
    using _ = tree;
    const error = await rejectionOf(runKubectl(host, ["apply"], { log: silentLog }));
    expect(error).toBeInstanceOf(CommandError);
    expect(describeError(error)).toBe(`Error: Cannot run ${tree.at("bin/kubectl")}: ended by SIGKILL`);
  });

  test.each([
    ["ends it with ko", "trap 'echo ended > end; exit 0' TERM; echo $$ > started; sleep 60 & wait; exit 1"],
    ["kills it if it will not go", "trap '' TERM; echo $$ > started; while :; do sleep 0.1; done"],
  ])("%s", async (_name, script) => {
    const controller = new AbortController();
    const { tree, host } = stub(script, { signal: controller.signal });
    using _ = tree;
    const work = rejectionOf(runKubectl(host, ["apply"], { log: silentLog }));
    await waitUntil(() => existsSync(tree.at("started")));
    controller.abort(new Interrupted("SIGTERM"));
    expect(await work).toBe(controller.signal.reason);
    const pid = Number(readFileSync(tree.at("started"), "utf8"));
    expect(() => process.kill(pid, 0)).toThrow("ESRCH");
    if (script.includes("ended")) expect(readFileSync(tree.at("end"), "utf8")).toBe("ended\n");
  });

  test("logs no values", async () => {
    const { tree, host } = stub("exit 0");
    using _ = tree;
    const said: string[] = [];
    const log = { ...silentLog, debug: (text: string) => void said.push(text) };
    await runKubectl(host, ["apply", "--token=canary"], { log });
    expect(said).toEqual(["kubectl apply --token=…"]);
  });
});

describe("runPod()", () => {
  const kubectl = Bun.which("kubectl");
  if (kubectl === null && process.env["CI"]) throw new Error("the tests need kubectl");
  const reference = `registry.example.com/app:v1@sha256:${"0".repeat(64)}`;

  test.skipIf(kubectl === null).each([0, 3])(
    "gives the program's output and exit code %d, and leaves no Pod",
    async (exitCode) => {
      await using api = startKubeApi({ log: "hello from the pod\n", exitCode });
      using tree = writeTree({
        "run.ts": `
        import { createHost } from ${JSON.stringify(join(LIB, "host.ts"))};
        import { createLog } from ${JSON.stringify(join(LIB, "log.ts"))};
        import { podName, runPod } from ${JSON.stringify(join(LIB, "kubectl.ts"))};
        const host = createHost();
        process.exitCode = await runPod(host, {
          name: podName("example.com/cmd/My_App", "0a1b2"),
          reference: ${JSON.stringify(reference)},
          kubectl: ["--server=${api.url}", "--namespace=web"],
          afterDashes: ["--env=A=b", "word", "--", "-v", "x y"],
          log: createLog("normal", (text) => host.err(text)),
        });`,
      });
      const env = { PATH: process.env["PATH"] ?? "", HOME: tree.path };
      const { code, stdout, stderr } = await hostAt(tree.path, { env }).run([process.execPath, "run.ts"], {
        anyExitCode: true,
        timeout: 60_000,
      });
      expect({ code, pods: api.pods() }).toEqual({ code: exitCode, pods: [] });
      const [made] = api.created;
      expect(new TextDecoder().decode(stdout)).toBe(`hello from the pod\npod "${made?.metadata.name}" deleted\n`);
      expect(stderr).toContain(`Running ${reference} as pod ${made?.metadata.name}\n`);
      expect(made?.metadata.name).toMatch(/^my-app-[0-9a-f]{5}$/);
      expect(made?.spec).toMatchObject({
        restartPolicy: "Never",
        containers: [{ image: reference, env: [{ name: "A", value: "b" }], args: ["word", "-v", "x y"] }],
      });
      expect(api.requests).toContain(`DELETE /api/v1/namespaces/web/pods/${made?.metadata.name}`);
    },
    60_000,
  );

  test.skipIf(kubectl === null).each<[readonly string[], boolean]>([
    [[], true],
    [["--rm=false"], false],
  ])(
    "takes the Pod away when it is interrupted, with %j: %p",
    async (more, gone) => {
      await using api = startKubeApi({ log: "", exitCode: undefined });
      using tree = writeTree({});
      const controller = new AbortController();
      const env = { PATH: process.env["PATH"] ?? "", HOME: tree.path };
      const host = hostAt(tree.path, { env, signal: controller.signal });
      const running = runPod(host, {
        name: "app-0a1b2",
        reference,
        kubectl: [`--server=${api.url}`],
        afterDashes: ["-n", "batch", ...more],
        log: silentLog,
      });
      const work = rejectionOf(running);
      await api.made;
      controller.abort(new Interrupted("SIGINT"));
      expect(await work).toBe(controller.signal.reason);
      const name = api.created[0]?.metadata.name ?? "none";
      expect(api.pods()).toEqual(gone ? [] : [name]);
      expect(api.requests.includes(`DELETE /api/v1/namespaces/batch/pods/${name}`)).toBe(gone);
    },
    60_000,
  );

  test("does not hide why kubectl cannot run", async () => {
    const host = hostAt("/", { env: { PATH: "/nowhere" } });
    const options = { name: "x", reference, kubectl: [], afterDashes: [], log: silentLog };
    expect(runPod(host, options)).rejects.toThrow(new KoError("Cannot find kubectl: it is not on PATH"));
  });
});

describe("ko delete", () => {
  test("hands everything to kubectl: words, standard input, output and exit code; needs no Go", async () => {
    const { tree, host } = stub('for word; do echo "[$word]"; done; cat; echo oops >&2; exit 4');
    using _ = tree;
    const env = { PATH: `${tree.at("bin")}:/bin:/usr/bin`, HOME: tree.path, KO_GO_PATH: "/nowhere/go" };
    const words = ["-f", "-", "--wait=false", "ko://example.com/app", "--", "--help"];
    const result = await host.run([process.execPath, KO, "delete", ...words], {
      env,
      anyExitCode: true,
      stdin: new TextEncoder().encode("kind: Pod\n"),
    });
    expect({ ...result, stdout: new TextDecoder().decode(result.stdout) }).toEqual({
      code: 4,
      stdout: `${["delete", ...words].map((word) => `[${word}]`).join("\n")}\nkind: Pod\n`,
      stderr: "oops\n",
    });
  });
});
