/** `ko auth` beside the original's: answers, exit codes and requests. Words of errors are ours. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { findCounterparts } from "./helpers/counterparts.ts";
import { type Demand, registrySuite } from "./helpers/registry-fault-proxy.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";
import { runKoHere } from "./helpers/world-host.ts";
import type { Result } from "./helpers/world-programs.ts";

const programs = findCounterparts(["docker-registry", "ko"]);
const { missing, proxy } = registrySuite();
const base64 = (text: string): string => Buffer.from(text).toString("base64");
const SECRET = "p<w&\u00fc>1";

let tree: Tree;

beforeEach(() => {
  tree = writeTree({});
  const auths = {
    [proxy.host]: { auth: base64(`me:${SECRET}`) },
    "i.example": { auth: base64("me:pw"), identitytoken: "refresh" },
    "t.example": { registrytoken: "sent as it is" },
    "e.example": {},
    "https://index.docker.io/v1/": { auth: base64("hub:pw") },
  };
  tree.write({ "docker/config.json": JSON.stringify({ auths, credHelpers: { "h.example": "test" } }) });
  const helper = `#!/bin/sh\nread server\nprintf '{"Username":"helped","Secret":"by %s"}' "$server"\n`;
  tree.write({ "bin/docker-credential-test": { executable: helper } });
});

afterEach(() => tree[Symbol.dispose]());

/** Runs `ko auth`; the original too, if asked for. */
async function auth(args: readonly string[], { stdin = "", original = false } = {}): Promise<Result> {
  const env = {
    HOME: tree.path,
    DOCKER_CONFIG: tree.at("docker"),
    PATH: `${tree.at("bin")}:${process.env["PATH"]}`,
  };
  if (!original) {
    const readStdin = async (): Promise<Uint8Array> => new TextEncoder().encode(stdin);
    return await runKoHere(["auth", ...args], { cwd: tree.path, env, host: { readStdin } });
  }
  const argv = [programs?.ko ?? "", "auth", ...args];
  const child = Bun.spawn(argv, { cwd: tree.path, env, stdin: new TextEncoder().encode(stdin), stderr: "pipe" });
  const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, stdout, stderr };
}

describe.skipIf(missing || programs === undefined)("ko auth, beside the original", () => {
  test.each<[string, string?]>([
    ["HOST"],
    ["", "HOST\n"],
    ["", " HOST \r\n"],
    ["i.example"],
    ["t.example"],
    ["e.example"],
    ["h.example"],
    ["none.example:5000"],
    ["docker.io"],
    ["index.docker.io"],
  ])("get %j, with %j on stdin, prints the same", async (server, stdin = "") => {
    const args = ["get", ...(server === "" ? [] : [server.replace("HOST", proxy.host)])];
    const input = stdin.replace("HOST", proxy.host);
    const [ours, theirs] = [await auth(args, { stdin: input }), await auth(args, { stdin: input, original: true })];
    expect(ours).toEqual({ ...theirs, stderr: "" });
  });

  const bearer: Demand = { kind: "bearer", credential: { username: "me", password: SECRET }, prefix: "tok<&>" };

  test.each<[readonly string[], Demand?]>([
    [["REPO"]],
    [["REPO", "-H"]],
    [["--header", "REPO", "--push"]],
    [["REPO", "--push", "-m", "HOST/c/d"]],
    [["REPO", "--mount=HOST/c/d,HOST/e/f", "-mHOST/g/h"]],
    [["REPO"], { ...bearer, expiresIn: 300, refreshToken: "again&again" }],
  ])("token %j prints the same, and asks for the same scopes", async (words, demand = bearer) => {
    const args = ["token", ...words.map((word) => word.replace("REPO", "HOST/a/b").replaceAll("HOST", proxy.host))];
    const seen: unknown[] = [];
    const run = async (original: boolean): Promise<Result> => {
      proxy.reset();
      proxy.demand = demand;
      const result = await auth(args, { original });
      const requests = proxy.seen.filter(({ path }) => path.startsWith("/token"));
      seen.push(
        requests.map(({ headers, path }) => [
          new URLSearchParams(path.slice(path.indexOf("?"))).getAll("scope"),
          headers["authorization"],
        ]),
      );
      return { ...result, stdout: result.stdout.replace(/-\d+/, "-N") };
    };
    const [ours, theirs] = [await run(false), await run(true)];
    expect(ours).toEqual({ ...theirs, stderr: "" });
    expect(ours.stdout).toContain("tok");
    expect(seen[0]).toEqual(seen[1]);
  });

  test.each<[readonly string[], number, string]>([
    [["token", "HOST/a/b"], 1, 'Cannot get a token for "HOST/a/b": HOST wants nothing, not a token'],
    [["token", "HOST/a/b", "-m", "other.example/c/d"], 2, 'Cannot use --mount="other.example/c/d": it is not in HOST'],
    [["token"], 2, "it takes exactly 1 argument, REPO\n  For example: curl"],
    [["token", "HOST/a/b", "more"], 2, "it takes exactly 1 argument, REPO"],
    [["token", "HOST/A B"], 1, "as an image name"],
    [["get", "a.example", "b.example"], 2, "it takes at most 1 argument"],
    [["get"], 2, "wanted HOST[:PORT] as its argument or on stdin"],
    [["get", "me:s3cret@h.example"], 2, "wanted HOST[:PORT]"],
    [["get", "-H"], 2, 'Cannot use -H: "ko auth get" has no such flag'],
    [["gte"], 2, 'Cannot run "ko auth gte": ko auth has no such command, the nearest is "get"'],
    [["login"], 2, 'Cannot run "ko login" without SERVER'],
  ])("%j fails: %i, %s", async (words, code, message) => {
    const result = await auth(words.map((word) => word.replace("HOST", proxy.host)));
    expect([result.code, result.stdout]).toEqual([code, ""]);
    expect(result.stderr.replaceAll(proxy.host, "HOST")).toContain(message);
    expect(result.stderr).not.toContain("s3cret");
  });

  test("token says why a registry with Basic authentication has none, and keeps the password to itself", async () => {
    proxy.demand = { kind: "basic", username: "me", password: SECRET };
    const { code, stderr, stdout } = await auth(["token", `${proxy.host}/a/b`, "-v"]);
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toContain("wants basic authentication, not a token");
    expect(stderr).not.toContain(SECRET);
  });

  test("get takes the URLs that Docker sends to a credential helper", async () => {
    for (const stdin of ["https://index.docker.io/v1/", "https://i.example"]) {
      const { code, stdout } = await auth(["get"], { stdin });
      expect([code, stdout]).toEqual([0, expect.stringMatching(/^\{"Username":"(?:hub|\\u003ctoken\\u003e)",/)]);
    }
  });

  test("login and logout are those of ko, and each command has help", async () => {
    const login = await auth(["login", "new.example", "-u", "me", "--password-stdin"], { stdin: "pw" });
    expect([login.code, (await auth(["get", "new.example"])).stdout]).toEqual([0, '{"Username":"me","Secret":"pw"}\n']);
    expect((await auth(["logout", "new.example"])).code).toBe(0);
    expect((await auth(["get", "new.example"])).code).toBe(1);
    const whole = await auth([]);
    for (const name of ["get", "login", "logout", "token"]) {
      expect(whole.stdout).toContain(`ko auth ${name} `);
      expect((await auth([name, "--help"])).stdout).toContain(name);
    }
    const { stdout } = await runKoHere(["help", "auth"], { cwd: tree.path, env: {} });
    expect(stdout).toBe(whole.stdout);
    expect((await runKoHere(["-v", "auth", "-h"], { cwd: tree.path, env: {} })).stdout).toBe(whole.stdout);
  });
});
