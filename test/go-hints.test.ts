/** Hints at private modules: real go and git, and servers on loopback that refuse as module proxies and git hosts do. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { hintFor, privateHint } from "../lib/go-hints.ts";
import { failuresOf } from "./helpers/failures.ts";
import { goMod, goWorld, listPrograms } from "./helpers/go.ts";
import { makeBench } from "./helpers/world-bench.ts";
import { makeFolder, writeTree } from "./helpers/world-folders.ts";
import { output } from "./helpers/world-programs.ts";

const LINUX = { os: "linux", architecture: "amd64" };
/** A checksum of no module. */
const SUM = "h1:aGVsbG8gd29ybGQgaGVsbG8gd29ybGQgaGVsbG8gd28=";

const files = ({ go = "1.21" } = {}): Record<string, string> => ({
  "go.mod": goMod("example.com/app", { go, more: "\nrequire github.com/acme/lib v1.0.0\n" }),
  "go.sum": `github.com/acme/lib v1.0.0 ${SUM}\ngithub.com/acme/lib v1.0.0/go.mod ${SUM}\n`,
  "cmd/web/main.go": 'package main\n\nimport _ "github.com/acme/lib/x"\n\nfunc main() {}\n',
});

/** A module proxy and a git host: the first folder of the path says how it answers. */
let server: Bun.Server<undefined>;

beforeAll(() => {
  const answers: Readonly<Record<string, () => Response>> = {
    auth: () => new Response("no", { status: 401, headers: { "WWW-Authenticate": 'Basic realm="git"' } }),
    none: () => new Response("Repository not found.", { status: 404, headers: { "Content-Type": "text/plain" } }),
    gone: () => new Response("not found: fatal: could not read Username for 'https://github.com'", { status: 410 }),
    absent: () => new Response("not found", { status: 404 }),
  };
  server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: ({ url }) => answers[new URL(url).pathname.split("/")[1] ?? ""]?.() ?? new Response("?", { status: 500 }),
  });
});

afterAll(() => server.stop(true));

const SET = "Set GOPRIVATE if the module is private, so that go asks its host: export GOPRIVATE=github.com/acme\n";
const LOGIN =
  "For https, git reads a login from ~/.netrc: machine github.com login USER password TOKEN\n" +
  'For ssh, type: git config --global url."ssh://git@github.com/".insteadOf https://github.com/';

/** What go is told of where modules are. */
interface Case {
  /** Where git finds `https://github.com/`, below the server. */
  readonly git?: string;
  /** Below the server. */
  readonly proxy?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** The version in go.mod: before 1.17, go reads the go.mod files of all dependencies, and fails as a whole. */
  readonly go?: string;
  readonly message: RegExp;
  readonly hint: string;
}

describe("golang/go#40189: a private module", () => {
  test.each<[string, Case]>([
    ["the proxy says 410 Gone", { proxy: "gone", message: /410 Gone/, hint: SET + LOGIN }],
    ["the proxy says 404", { proxy: "absent", message: /404 Not Found/, hint: SET + LOGIN }],
    ["go list fails as a whole", { proxy: "gone", go: "1.16", message: /410 Gone/, hint: SET + LOGIN }],
    [
      "git has no login",
      { git: "auth", message: /could not read Username .*terminal prompts disabled/s, hint: SET + LOGIN },
    ],
    ["git has no login, for all of go list", { git: "auth", go: "1.16", message: /could not read/, hint: SET + LOGIN }],
    ["the host hides the repository", { git: "none", message: /Repository not found/, hint: SET + LOGIN }],
    [
      "GOPRIVATE has it already",
      { git: "auth", env: { GOPRIVATE: "*.lan,github.com/ac*" }, message: /could not read Username/, hint: LOGIN },
    ],
    [
      "the key is not the right one",
      {
        env: { GIT_SSH_COMMAND: "sh -c 'echo git@github.com: Permission denied \\(publickey\\). >&2; exit 255'" },
        git: "ssh",
        message: /Permission denied \(publickey\)/,
        hint: "Let ssh log in to github.com, with a key in the SSH agent and the host in ~/.ssh/known_hosts. This says why it cannot: ssh -T git@github.com",
      },
    ],
  ])("%s", async (_name, { env, git, go, hint, message, proxy }) => {
    using tree = writeTree(files(go === undefined ? {} : { go }));
    await using modules = await makeFolder();
    const base = `http://127.0.0.1:${server.port}`;
    const place = git === "ssh" ? "ssh://git@127.0.0.1/" : `${base}/${git}/`;
    const world = goWorld(tree.path, {
      GOPROXY: proxy === undefined ? "direct" : `${base}/${proxy}`,
      GOMODCACHE: modules.path,
      GOFLAGS: "-modcacherw -buildvcs=false",
      GIT_CONFIG_GLOBAL: "/dev/null",
      GIT_CONFIG_COUNT: "1",
      GIT_CONFIG_KEY_0: `url.${place}.insteadOf`,
      GIT_CONFIG_VALUE_0: "https://github.com/",
      ...env,
    });
    const [failure] = await failuresOf(listPrograms(["./cmd/web"], { ...world, platform: LINUX }), tree.path);
    expect(failure?.message).toMatch(message);
    expect(failure?.hint).toBe(hint);
  });

  test("a token in the URL of git is not shown", async () => {
    using bench = makeBench(files(), { host: "127.0.0.1:1" });
    const env = {
      GOPROXY: "direct",
      GOSUMDB: "off",
      GOMODCACHE: bench.work.at("modules"),
      GOFLAGS: "-modcacherw",
      GIT_CONFIG_GLOBAL: "/dev/null",
      GIT_CONFIG_COUNT: "1",
      GIT_CONFIG_KEY_0: `url.http://ghp_canary:x-oauth@127.0.0.1:${server.port}/none/.insteadOf`,
      GIT_CONFIG_VALUE_0: "https://github.com/",
    };
    const { code, stderr, stdout } = await bench.ours(["build", "-v", "./cmd/web"], { env });
    expect(code).toBe(1);
    expect(stderr).toContain("Repository not found");
    expect(stderr).toContain("export GOPRIVATE=github.com/acme");
    expect(stdout + stderr).not.toMatch(/canary|x-oauth/);
  });

  test("content that is not that of go.sum: no word of GOPRIVATE, and none of go mod tidy alone", async () => {
    await using repositories = await makeFolder();
    await using modules = await makeFolder();
    const repository = join(repositories.path, "acme/lib");
    const script = `mkdir -p '${repository}/x' && cd '${repository}' && git init -q && echo 'module github.com/acme/lib' > go.mod &&
      echo 'package x' > x/x.go && git add . && git -c user.name=t -c user.email=t@t commit -qm 1 && git tag v1.0.0`;
    await output(["sh", "-c", script], { cwd: repositories.path, env: process.env });
    using tree = writeTree(files());
    const world = goWorld(tree.path, {
      GOPROXY: "direct",
      GOMODCACHE: modules.path,
      GOFLAGS: "-modcacherw -buildvcs=false",
      GIT_CONFIG_GLOBAL: "/dev/null",
      GIT_CONFIG_COUNT: "1",
      GIT_CONFIG_KEY_0: `url.file://${repositories.path}/.insteadOf`,
      GIT_CONFIG_VALUE_0: "https://github.com/",
    });
    const [failure] = await failuresOf(listPrograms(["./cmd/web"], { ...world, platform: LINUX }), tree.path);
    expect(failure?.message).toContain("SECURITY ERROR");
    expect(failure?.hint).toBe(
      "Check why github.com/acme/lib has another content than before. If its tag was moved on purpose, remove its lines from go.sum and run: go mod tidy",
    );
  });

  test("the checksum database does not know it", async () => {
    await using modules = await makeFolder();
    await using repositories = await makeFolder();
    const repository = join(repositories.path, "acme/lib");
    const script = `mkdir -p '${repository}/x' && cd '${repository}' && git init -q && echo 'module github.com/acme/lib' > go.mod &&
      echo 'package x' > x/x.go && git add . && git -c user.name=t -c user.email=t@t commit -qm 1 && git tag v1.0.0`;
    await output(["sh", "-c", script], { cwd: repositories.path, env: process.env });
    using tree = writeTree({ ...files(), "go.sum": "" });
    const world = goWorld(tree.path, {
      GOPROXY: "direct",
      GOMODCACHE: modules.path,
      GOSUMDB: `sum.golang.org http://127.0.0.1:${server.port}/absent`,
      GOPATH: modules.path,
      GOFLAGS: "-modcacherw -buildvcs=false -mod=mod",
      GIT_CONFIG_GLOBAL: "/dev/null",
      GIT_CONFIG_COUNT: "1",
      GIT_CONFIG_KEY_0: `url.file://${repositories.path}/.insteadOf`,
      GIT_CONFIG_VALUE_0: "https://github.com/",
    });
    const [failure] = await failuresOf(listPrograms(["./cmd/web"], { ...world, platform: LINUX }), tree.path);
    expect(failure?.message).toContain("verifying");
    expect(failure?.hint).toBe(
      "Set GOPRIVATE if the module is private, so that no server checks it: export GOPRIVATE=github.com/acme",
    );
  });
});

describe("privateHint()", () => {
  test.each<[string, string, string | undefined]>([
    [
      "a module on a host of its own",
      "git.corp.example/team/lib@v1.2.3: reading https://proxy.golang.org/git.corp.example/team/lib/@v/v1.2.3.mod: 404 Not Found",
      "export GOPRIVATE=git.corp.example",
    ],
    [
      "a pseudo-version, of go build",
      "main.go:3:8: github.com/a/b@v0.0.0-20240101000000-abcdefabcdef: reading https://proxy.golang.org/x/@v/y.zip: 410 Gone",
      "export GOPRIVATE=github.com/a",
    ],
    [
      "an import path that the host does not tell of",
      'main.go:3:8: unrecognized import path "git.corp.example/lib": reading https://git.corp.example/lib?go-get=1: 404 Not Found',
      "export GOPRIVATE=git.corp.example",
    ],
    ["without a module", "no secure protocol found for repository", "export GOPRIVATE=HOST/PATH"],
    [
      "a checksum that the server reports otherwise",
      "verifying github.com/a/b@v1.0.0: checksum mismatch\n\tdownloaded: h1:x\n\tsum.golang.org: h1:y\n\nSECURITY ERROR\nThis download does NOT match the one reported by the checksum server.",
      "export GOPRIVATE=github.com/a",
    ],
    ["a host that does not exist", "dial tcp: lookup proxy.golang.org: no such host", undefined],
    ["a syntax error", "main.go:3:1: expected 'package'", undefined],
    ["a 404 of something else", "main.go:3:1: see https://example.com/x: 404 Not Found", undefined],
  ])("%s", (_name, said, end) => {
    const hint = privateHint(said);
    if (end === undefined) expect(hint).toBeUndefined();
    else expect(hint).toContain(end);
  });

  test("go.sum without a line stays a matter of go mod tidy", () => {
    expect(hintFor("missing go.sum entry for module providing package x")).toBe("Run: go mod tidy");
  });
});
