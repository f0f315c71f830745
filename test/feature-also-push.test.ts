/** `--also-push` with two real registries: one build, the same bytes, and no tag anywhere if one of them refuses. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { findCounterparts } from "./helpers/counterparts.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { pull } from "./helpers/registry-images.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { output } from "./helpers/world-programs.ts";

const programs = findCounterparts(["docker-registry", "crane"]);
const PATIENCE = 120_000;
const FILES = { "go.mod": goMod("example.com/app"), "cmd/web/main.go": mainGo("web"), "cmd/web/kodata/a": "a" };

const stack = new AsyncDisposableStack();
let first: TestRegistry;
let second: TestRegistry;
/** Nobody is logged in there. */
let closed: TestRegistry;

beforeAll(async () => {
  if (programs === undefined) return;
  first = stack.use(await startRegistry());
  second = stack.use(await startRegistry());
  closed = stack.use(await startRegistry({ accounts: { me: "secret" } }));
});

afterAll(() => stack.disposeAsync());

function open(): Bench {
  return makeBench(FILES, { host: first.host, config: "defaultBaseImage: ko.builtin/static\n" });
}

async function crane(...args: readonly string[]): Promise<string> {
  const argv = [programs?.crane ?? "", ...args, "--insecure"];
  return (await output(argv, { cwd: "/", env: process.env })).trim();
}

describe.skipIf(programs === undefined)("--also-push", () => {
  test(
    "ko-build/ko#1423: pushes one build to several registries, with tags and SBOMs, and lists all",
    async () => {
      using bench = open();
      const other = `${second.host}/${bench.repository.slice(bench.repository.indexOf("/") + 1)}`;
      const third = `${bench.repository}-mirror`;
      const flags = ["--also-push", other, "--also-push", third, "-B", "-t", "v1", "-t", "latest"];
      const files = ["--image-refs", "refs", "--metadata-file", "meta.json"];
      const platforms = ["--platform=linux/amd64,linux/arm64"];
      const built = await bench.ours(["build", ...flags, ...files, ...platforms, "./cmd/web"]);
      expect(built.code).toBe(0);
      expect(bench.goCalls().filter((word) => word === "build")).toHaveLength(2);
      const [reference = ""] = built.stdout.trimEnd().split("\n");
      const digest = reference.slice(reference.indexOf("@") + 1);
      expect(built.stdout).toBe(`${bench.repository}/web@${digest}\n`);
      for (const repository of [bench.repository, other, third]) {
        expect(await crane("digest", `${repository}/web:v1`)).toBe(digest);
        expect(await crane("digest", `${repository}/web:latest`)).toBe(digest);
        expect((await pull(`${repository}/web@${digest}`)).digest).toBe(digest);
        expect(await crane("digest", `${repository}/web:${digest.replace(":", "-")}.sbom`)).toStartWith("sha256:");
      }
      const refs = readFileSync(bench.tree.at("refs"), "utf8").trimEnd().split("\n");
      // The index and two images in each repository.
      expect(refs).toHaveLength(9);
      expect(refs.filter((line) => line.startsWith(`${other}/web@`))).toHaveLength(3);
      const metadata: unknown = JSON.parse(readFileSync(bench.tree.at("meta.json"), "utf8"));
      expect(metadata).toMatchObject({
        programs: [{ reference, also: [`${other}/web@${digest}`, `${third}/web@${digest}`] }],
      });

      const again = await bench.ours(["build", ...flags, ...platforms, "./cmd/web"]);
      expect([again.code, again.stdout]).toEqual([0, built.stdout]);
    },
    PATIENCE,
  );

  test(
    "moves no tag anywhere if one registry refuses, and names it",
    async () => {
      using bench = open();
      const refused = await bench.ours(["build", "-B", "-t", "v1", "--also-push", `${closed.host}/me`, "./cmd/web"]);
      expect([refused.code, refused.stdout]).toEqual([1, ""]);
      expect(refused.stderr).toContain(`${closed.host}/`);
      expect(refused.stderr).toContain("401");
      expect((await rejectionOf(crane("digest", `${bench.repository}/web:v1`))) instanceof Error).toBe(true);
      expect((await bench.ours(["build", "-B", "-t", "v1", "./cmd/web"])).code).toBe(0);
      expect(await crane("digest", `${bench.repository}/web:v1`)).toStartWith("sha256:");
    },
    PATIENCE,
  );

  test(
    "resolve puts the references of KO_DOCKER_REPO into YAML",
    async () => {
      using bench = open();
      bench.tree.write({ "app.yaml": "image: ko://example.com/app/cmd/web\n" });
      const resolved = await bench.ours(["resolve", "-B", "--also-push", `${second.host}/yaml`, "-f", "app.yaml"]);
      expect([resolved.code, resolved.stdout]).toEqual([0, expect.stringContaining(`image: ${bench.repository}/web@`)]);
      const digest = resolved.stdout.trimEnd().slice(resolved.stdout.indexOf("@") + 1);
      expect(await crane("digest", `${second.host}/yaml/web@${digest}`)).toBe(digest);
    },
    PATIENCE,
  );
});
