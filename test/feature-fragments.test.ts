/** Parts of references in YAML, as values files of Helm have them, with a real registry. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { findCounterparts } from "./helpers/counterparts.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { output } from "./helpers/world-programs.ts";

const programs = findCounterparts(["docker-registry", "crane"]);
const PATIENCE = 120_000;
const WEB = "ko://example.com/app/cmd/web";
const FILES = { "go.mod": goMod("example.com/app"), "cmd/web/main.go": mainGo("web") };

const stack = new AsyncDisposableStack();
let registry: TestRegistry;

beforeAll(async () => {
  if (programs !== undefined) registry = stack.use(await startRegistry());
});

afterAll(() => stack.disposeAsync());

function open(yaml: string): Bench {
  const bench = makeBench(FILES, { host: registry.host });
  bench.tree.write({ "values.yaml": yaml });
  return bench;
}

describe.skipIf(programs === undefined)("parts of references", () => {
  test(
    "kyverno/kyverno#4366: a values file of Helm gets repository and digest of one build",
    async () => {
      const yaml = `# Values.\nimage:\n  registry: "${WEB}#registry"\n  repository: ${WEB}#repository # whole\n  path: '${WEB}#path'\n  tag: ${WEB}#tag\n  digest: ${WEB}#digest\n  both: [${WEB}#image, ${WEB}]\n`;
      using bench = open(yaml);
      const { code, stderr, stdout } = await bench.ours(["resolve", "-B", "-t", "v1", "-f", "values.yaml"]);
      expect(code).toBe(0);
      const name = `${bench.repository}/web`;
      const digest = (
        await output([programs?.crane ?? "", "digest", "--insecure", `${name}:v1`], {
          cwd: "/",
          env: process.env,
        })
      ).trim();
      expect(stdout).toBe(
        `# Values.\nimage:\n  registry: "${registry.host}"\n  repository: ${name} # whole\n  path: '${name.slice(name.indexOf("/") + 1)}'\n  tag: "v1"\n  digest: "${digest}"\n  both: [${name}:v1, ${name}:v1@${digest}]\n`,
      );
      expect(bench.goCalls().filter((word) => word === "build")).toHaveLength(1);
      expect(stderr).not.toContain("can move");
    },
    PATIENCE,
  );

  test(
    "a tag alone is a warning",
    async () => {
      using bench = open(`repository: ${WEB}#repository\ntag: ${WEB}#tag\n`);
      const { code, stderr } = await bench.ours(["resolve", "-f", "values.yaml"]);
      expect([code, stderr]).toEqual([
        0,
        expect.stringContaining(`${WEB}#tag can move to another image: use ${WEB}#digest beside it`),
      ]);
    },
    PATIENCE,
  );

  test(
    "an unknown part is an error with its place, also of ko check; nothing is built",
    async () => {
      using bench = open(`a: ${WEB}#digets\nb: ${WEB}#tag\n`);
      const said = `values.yaml:1:4: ${WEB}#digets: "#digets" is no part, the nearest is "#digest"; the parts of a reference are #repository, #tag, #digest, #registry, #path, #image`;
      const { code, stderr, stdout } = await bench.ours(["resolve", "-f", "values.yaml"]);
      expect([code, stdout, stderr]).toEqual([1, "", expect.stringContaining(said)]);
      expect(bench.goCalls()).not.toContain("build");
      const checked = await bench.ours(["check", "-f", "values.yaml"]);
      expect(checked.stdout + checked.stderr).toContain('"#digets" is no part');
      bench.tree.write({ "values.yaml": `b: ${WEB}#tag\nc: ${WEB}#digest\n` });
      expect((await bench.ours(["check", "-f", "values.yaml"])).code).toBe(0);
    },
    PATIENCE,
  );
});
