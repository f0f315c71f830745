/**
 * `--reuse=code`, with real commits, a real registry and a real API server: a commit that does not touch a program does not
 * change its image.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { symlinkSync } from "node:fs";
import { type ApiServer, startApiServer } from "./helpers/cluster.ts";
import { findCounterparts } from "./helpers/counterparts.ts";
import { goMod, libraryGo, mainGo } from "./helpers/go.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { commitTree, output } from "./helpers/world-programs.ts";

const programs = findCounterparts(["docker-registry", "etcd", "kube-apiserver", "kubectl"]);
const PATIENCE = 480_000;
const NAMES = ["a", "b", "c", "d", "e", "f", "g", "h", "i"] as const;
const COMMITS = 10;
/** A user's file may say that go stamps nothing. */
const STAMPING = { GOENV: "off", GOFLAGS: "" };

const stack = new AsyncDisposableStack();
let registry: TestRegistry;
let server: ApiServer;

beforeAll(async () => {
  if (programs === undefined) return;
  registry = stack.use(await startRegistry());
  server = stack.use(await startApiServer());
});

afterAll(() => stack.disposeAsync());

/** Programs in a repository with one commit; a package of their own for `a`, one for all. */
async function open(names: readonly string[], config = "defaultBaseImage: ko.builtin/static\n"): Promise<Bench> {
  const files = Object.fromEntries(
    names.map((name) => [
      `cmd/${name}/main.go`,
      mainGo(name, ["example.com/app/all", ...(name === "a" ? ["example.com/app/own"] : [])]),
    ]),
  );
  const library = { "all/all.go": libraryGo("all"), "own/own.go": libraryGo("own"), "README.md": "0\n" };
  const bench = makeBench(
    { "go.mod": goMod("example.com/app"), ...files, ...library, "cmd/a/kodata/text": "a\n" },
    { host: registry.host, config, plainGo: true },
  );
  // As Knative's programs have it: the file changes with each commit.
  symlinkSync("../../../.git/HEAD", bench.tree.at("cmd/a/kodata/HEAD"));
  symlinkSync("../../../.git/refs", bench.tree.at("cmd/a/kodata/refs"));
  await commitTree(bench.tree.path);
  return bench;
}

async function commit(bench: Bench): Promise<string> {
  await commitTree(bench.tree.path);
  return head(bench);
}

async function head({ tree }: Bench): Promise<string> {
  return (await output(["git", "rev-parse", "HEAD"], { cwd: tree.path, env: process.env })).trim();
}

/** The references of programs by name, and what `--explain` says of each. */
async function build(bench: Bench, ...args: readonly string[]): Promise<Readonly<Record<string, string>>> {
  const built = await bench.ours(["build", "-B", "--explain", ...args, "./..."], { env: STAMPING });
  if (built.code !== 0) throw new Error(built.stderr);
  const lines = built.stdout.trimEnd().split("\n");
  return Object.fromEntries(
    lines.map((line) => {
      const [, name = "", digest = ""] = /\/(\w+)@(sha256:\w+)$/.exec(line) ?? [];
      const why = new RegExp(`^example\\.com/app/cmd/${name} \\(linux/amd64\\): (.*)$`, "m").exec(built.stderr)?.[1];
      return [name, `${digest.slice(0, 19)} ${why}`];
    }),
  );
}

function digestOf(text = ""): string {
  return text.replace(/ .*/, "");
}

describe.skipIf(programs === undefined)("--reuse=code", () => {
  test(
    "namespacelabs/foundation#218: ten commits to one of nine programs roll out that one, a commit of documents none",
    async () => {
      using bench = await open(NAMES, "defaultBaseImage: ko.builtin/static\ncache: {reuse: code}\n");
      const objects = NAMES.map((name) => {
        const image = `ko://example.com/app/cmd/${name}`;
        const template = `{metadata: {labels: {app: ${name}}}, spec: {containers: [{name: c, image: "${image}"}]}}`;
        return `apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: ${name}}\nspec: {selector: {matchLabels: {app: ${name}}}, template: ${template}}\n`;
      });
      bench.work.write({ "all.yaml": objects.join("---\n") });
      const apply = async (): Promise<void> => {
        const { code, stderr } = await bench.ours(["apply", "-B", "-f", bench.work.at("all.yaml")], {
          env: { ...STAMPING, KUBECONFIG: server.kubeconfig },
        });
        if (code !== 0) throw new Error(stderr);
      };
      await apply();
      for (let i = 1; i <= COMMITS; i++) {
        bench.tree.write({ "own/own.go": libraryGo("own", String(i)) });
        await commit(bench);
        await apply();
      }
      bench.tree.write({ "README.md": "1\n" });
      await commit(bench);
      await apply();
      const form = "jsonpath={range .items[*]}{.metadata.name}={.metadata.generation} {end}";
      const { stdout } = await server.kubectl(["get", "deployments", "--output", form]);
      const wanted = NAMES.map((name) => `${name}=${name === "a" ? 1 + COMMITS : 1}`);
      expect(stdout.trim().split(" ")).toEqual(wanted);
    },
    PATIENCE,
  );

  test(
    "keeps an image with the commit of its build, and builds what changed with the newest",
    async () => {
      using bench = await open(["a", "b"]);
      const first = await head(bench);
      const before = await build(bench, "--reuse=code");
      bench.tree.write({ "README.md": "1\n" });
      const second = await commit(bench);
      const kept = await build(bench, "--reuse=code");
      const since = `kept, built at ${first.slice(0, 7)}; nothing changed since`;
      expect(kept).toEqual({ a: `${digestOf(before["a"])} ${since}`, b: `${digestOf(before["b"])} ${since}` });
      expect(await build(bench, "--reuse=code")).toEqual(kept);

      // kodata of one: its HEAD is that of the newest commit then.
      bench.tree.write({ "cmd/a/kodata/text": "b\n" });
      await commit(bench);
      const other = await build(bench, "--reuse=code");
      expect([digestOf(other["a"]) === digestOf(before["a"]), digestOf(other["b"])]).toEqual([
        false,
        digestOf(before["b"]),
      ]);

      // A package of both.
      bench.tree.write({ "all/all.go": libraryGo("all", "2") });
      await commit(bench);
      const both = await build(bench, "--reuse=code");
      expect(both["a"]).toContain("rebuilt, all/all.go changed");
      expect(both["b"]).toContain("rebuilt, all/all.go changed");

      // Without the flag, an image is what a build of now makes.
      bench.tree.write({ "README.md": "2\n" });
      await commit(bench);
      const plain = await build(bench);
      expect(plain["b"]).toContain(" rebuilt, ");
      expect(second).not.toBe(first);
      const fresh = await bench.ours(["build", "-B", "./..."], { env: { ...STAMPING, KOCACHE: "off" } });
      for (const name of ["a", "b"]) expect(fresh.stdout).toContain(digestOf(plain[name]));
    },
    PATIENCE,
  );

  test.each<[string, (bench: Bench) => Promise<void>, boolean]>([
    [
      "a tag",
      async ({ tree }) => void (await output(["git", "tag", "v1.2.3"], { cwd: tree.path, env: process.env })),
      true,
    ],
    ["a change of another file", async ({ tree }) => tree.write({ "README.md": "9\n" }), true],
    ["a new file of the package", async ({ tree }) => tree.write({ "cmd/b/more.go": "package main\n" }), false],
    ["a variable of go", async () => {}, false],
  ])(
    "an image is kept or not after %s",
    async (what, change, isKept) => {
      using bench = await open(["b"]);
      const before = await build(bench, "--reuse=code");
      bench.tree.write({ "all/note.txt": "1\n" });
      await commit(bench);
      await change(bench);
      const flags = what === "a variable of go" ? ["--disable-optimizations"] : [];
      const after = await build(bench, "--reuse=code", ...flags);
      expect(digestOf(after["b"]) === digestOf(before["b"])).toBe(isKept);
    },
    PATIENCE,
  );

  test(
    "an image of a work tree with changes is not kept when they are committed",
    async () => {
      using bench = await open(["b"]);
      bench.tree.write({ "README.md": "changed\n" });
      const dirty = await build(bench, "--reuse=code");
      await commit(bench);
      const clean = await build(bench, "--reuse=code");
      expect(clean["b"]).toContain(" rebuilt, ");
      expect(digestOf(clean["b"])).not.toBe(digestOf(dirty["b"]));
    },
    PATIENCE,
  );

  test(
    "what reads .Git changes with it",
    async () => {
      const config =
        "defaultBaseImage: ko.builtin/static\nbuilds:\n- main: ./cmd/b\n  ldflags: ['-X main.v={{.Git.FullCommit}}']\n";
      using bench = await open(["a", "b"], config);
      const before = await build(bench, "--reuse=code");
      bench.tree.write({ "README.md": "1\n" });
      await commit(bench);
      const after = await build(bench, "--reuse=code");
      expect(digestOf(after["a"])).toBe(digestOf(before["a"]));
      expect(digestOf(after["b"])).not.toBe(digestOf(before["b"]));
    },
    PATIENCE,
  );

  test("refuses another word, and ko config shows it", async () => {
    using bench = await open(["b"]);
    const wrong = await bench.ours(["build", "--reuse=cod", "./cmd/b"]);
    expect([wrong.code, wrong.stderr]).toEqual([
      2,
      expect.stringContaining('Cannot use --reuse: "cod" is not a way to reuse images, the nearest is "code"'),
    ]);
    expect((await bench.ours(["config", "--reuse=code"])).stdout).toMatch(/reuse +code +# --reuse/);
  });
});
