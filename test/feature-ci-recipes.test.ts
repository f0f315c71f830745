/**
 * The recipes of docs/ci.md: the scripts in them run with the files and variables of a runner, and a real registry.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import { findCounterparts } from "./helpers/counterparts.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { registrySuite } from "./helpers/registry-fault-proxy.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { ourCommand, type Result, runToEnd } from "./helpers/world-programs.ts";

const programs = findCounterparts(["docker-registry"]);
const tools = ["bash", "curl", "jq", "sha256sum"].filter((name) => Bun.which(name) === null);

const FILES = {
  "go.mod": goMod("example.com/app"),
  "cmd/web/main.go": mainGo("web"),
  "cmd/worker/main.go": mainGo("worker"),
  "config/web.yaml": "image: ko://example.com/app/cmd/web\n",
  "config/sub/worker.yaml": "image: ko://example.com/app/cmd/worker\n",
};
/** An image by its digest, with a tag or none. */
const REFERENCE = /^127\.0\.0\.1:\d+\/team-[0-9a-f-]+\/\w+(?::\w+)?@sha256:[0-9a-f]{64}$/;

interface Step {
  readonly id?: string;
  readonly uses?: string;
  readonly run?: string;
  readonly env?: Readonly<Record<string, string>>;
}

interface GitLabJob {
  readonly script: readonly string[];
  readonly artifacts?: { readonly reports: { readonly dotenv: string } };
}

/** The YAML of docs/ci.md that begins with the name of a file. */
function recipe(file: string): string {
  const page = readFileSync(join(import.meta.dir, "..", "docs", "ci.md"), "utf8");
  const block = Array.from(page.matchAll(/^```yaml\n(.*?)^```/gms), ([, text = ""]) => text).find((text) =>
    text.startsWith(`# ${file}\n`),
  );
  return block ?? "";
}

/** Puts a program `ko` into the folder `bin` that runs ours. */
function writeKo(bench: Bench): string {
  const words = ourCommand().map((word) => `'${word}'`);
  const script = `#!/bin/sh\nexec ${words.join(" ")} "$@"\n`;
  bench.work.write({ "bin/ko": { executable: script }, output: "", summary: "" });
  return script;
}

function outputsOf(bench: Bench): Readonly<Record<string, string>> {
  const lines = readFileSync(bench.work.at("output"), "utf8").trimEnd().split("\n");
  const names = lines.flatMap((line, i) =>
    i % 3 === 0 ? [[line.replace(/<<.*/, ""), lines[i + 1] ?? ""] as const] : [],
  );
  return Object.fromEntries(names);
}

describe.skipIf(programs === undefined || tools.length > 0)("docs/ci.md", () => {
  const { proxy } = registrySuite();

  test("the steps of GitHub Actions build, and hand the results on", async () => {
    using bench = makeBench(FILES, { host: proxy.host });
    writeKo(bench);
    const workflow: { readonly jobs: { readonly images: { readonly steps: readonly Step[] } } } = parse(
      recipe(".github/workflows/release.yaml"),
    );
    const { steps } = workflow.jobs.images;
    expect(
      steps.flatMap(({ uses }) => (uses?.includes("/.github/actions/setup-ko@") === true ? [uses] : [])),
    ).toHaveLength(1);
    const said: Result[] = [];
    for (const { env = {}, run } of steps) {
      if (run === undefined) continue;
      const outputs = outputsOf(bench);
      const shown = Object.entries(env).map(([name, value]) => [
        name,
        value.replaceAll(/\$\{\{ steps\.ko\.outputs\.(\w+) \}\}/g, (_, output: string) => outputs[output] ?? "?"),
      ]);
      const result = await runToEnd(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", run], {
        cwd: bench.tree.path,
        env: {
          ...bench.env,
          PATH: `${bench.work.at("bin")}:${bench.env["PATH"] ?? ""}`,
          ...{ GITHUB_ACTIONS: "true", CI: "true", GITHUB_SHA: "0123abcd", GITHUB_WORKSPACE: bench.tree.path },
          ...{ GITHUB_OUTPUT: bench.work.at("output"), GITHUB_STEP_SUMMARY: bench.work.at("summary") },
          ...Object.fromEntries(shown),
        },
      });
      expect({ run, code: result.code, stderr: result.code === 0 ? "" : result.stderr }).toEqual({
        run,
        code: 0,
        stderr: "",
      });
      said.push(result);
    }
    const { digest = "", image = "" } = outputsOf(bench);
    expect(image).toMatch(REFERENCE);
    expect(said.at(-1)?.stdout).toBe(`${image} has the digest ${digest}\n`);
    const images = readFileSync(bench.tree.at("images.txt"), "utf8").trimEnd().split("\n");
    expect(images.toSorted()).toEqual(
      readFileSync(bench.tree.at("release.yaml"), "utf8")
        .match(/127\S+/g)
        ?.toSorted() ?? [],
    );
    expect(images).toHaveLength(2);
    expect(readFileSync(bench.work.at("summary"), "utf8")).toContain("example.com/app/cmd/worker");
  });

  test("the jobs of GitLab install ko, build, and use the images in a later job", async () => {
    using bench = makeBench(FILES, { host: proxy.host });
    const script = writeKo(bench);
    const sum = new Bun.CryptoHasher("sha256").update(script).digest("hex");
    const release: Readonly<Record<string, string>> = {
      "/ko-linux-x64": script,
      "/SHA256SUMS": `${sum}  ko-linux-x64\n${sum}  ko-linux-arm64\n`,
    };
    using server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: ({ url }) => new Response(release[new URL(url).pathname] ?? ""),
    });
    const {
      deploy,
      images,
      variables,
    }: {
      readonly variables: Readonly<Record<string, string>>;
      readonly images: GitLabJob;
      readonly deploy: GitLabJob;
    } = parse(recipe(".gitlab-ci.yml"));
    const given: Readonly<Record<string, string>> = {
      ...{ CI_PROJECT_DIR: bench.tree.path, CI_COMMIT_SHA: "0123abcd", CI_REGISTRY_IMAGE: bench.repository },
      ...{ CI_REGISTRY: proxy.host, CI_REGISTRY_USER: "me", CI_REGISTRY_PASSWORD: "s3cret" },
      KO_RELEASE: `http://127.0.0.1:${server.port}`,
    };
    const own = Object.entries(variables).map(([name, text]) => [
      name,
      text.replaceAll(/\$(\w+)/g, (_, variable: string) => given[variable] ?? "?"),
    ]);
    const run = (job: GitLabJob, more: Readonly<Record<string, string>>): Promise<Result> =>
      runToEnd(["bash", "-eo", "pipefail", "-c", job.script.join("\n")], {
        cwd: bench.tree.path,
        // The cache of modules and that of go are this machine's: the recipe's would be empty.
        env: { ...Object.fromEntries(own), ...bench.env, ...given, ...more },
      });
    const built = await run(images, {});
    expect({ code: built.code, stderr: built.code === 0 ? "" : built.stderr }).toEqual({ code: 0, stderr: "" });
    const dotenv = readFileSync(bench.tree.at(images.artifacts?.reports.dotenv ?? ""), "utf8");
    const later = Object.fromEntries(
      dotenv
        .trimEnd()
        .split("\n")
        .map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)] as const),
    );
    expect(later["KO_IMAGE"]).toMatch(REFERENCE);
    const deployed = await run(deploy, later);
    expect([deployed.code, deployed.stdout]).toEqual([
      0,
      `deploying ${later["KO_IMAGE"]} with digest ${later["KO_DIGEST"]}\n${later["KO_IMAGES"]?.replaceAll(",", "\n")}\n`,
    ]);
    expect(readFileSync(bench.work.at("docker/config.json"), "utf8")).toContain(proxy.host);
  });
});
