/**
 * ko in a step of GitHub Actions, with the runner's files faked: annotations, outputs, the summary, and no workflow command
 * that another text smuggles in.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { findCounterparts } from "./helpers/counterparts.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { registrySuite } from "./helpers/registry-fault-proxy.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import type { Result } from "./helpers/world-programs.ts";

const programs = findCounterparts(["docker-registry"]);

const TWO = {
  "go.mod": goMod("example.com/app"),
  "cmd/web/main.go": mainGo("web"),
  "cmd/worker/main.go": mainGo("worker"),
};

/** The lines that the runner would execute. */
function commandsIn(text: string): readonly string[] {
  return text.split(/[\r\n]/).filter((line) => /^[\s\u0085]*::.*::/.test(line) || /##\[.*\]/.test(line));
}

describe.skipIf(programs === undefined)("in GitHub Actions", () => {
  const { proxy } = registrySuite();

  /** Runs ko below the workspace, which is the module's folder. */
  async function step(
    bench: Bench,
    args: readonly string[],
    more: Readonly<Record<string, string>> = {},
  ): Promise<Result> {
    bench.work.write({ output: "", summary: "" });
    return bench.ours(args, {
      env: {
        ...{ GITHUB_ACTIONS: "true", CI: "true", GITHUB_WORKSPACE: bench.tree.path },
        ...{ GITHUB_OUTPUT: bench.work.at("output"), GITHUB_STEP_SUMMARY: bench.work.at("summary") },
        ...more,
      },
    });
  }

  const read = (bench: Bench, name: string): string => readFileSync(bench.work.at(name), "utf8");

  test("--github-output hands the images to the next step, and shows a table", async () => {
    using bench = makeBench(TWO, { host: proxy.host });
    const dotenv = ["--dotenv", bench.work.at("ko.env")];
    const { code, stderr, stdout } = await step(bench, [
      ...["build", "-B", "--sbom=none", "--github-output"],
      ...[...dotenv, "./cmd/web", "./cmd/worker"],
    ]);
    expect([code, commandsIn(stderr)]).toEqual([0, []]);
    const references = stdout.trimEnd().split("\n");
    const [first = ""] = references;
    const digest = first.slice(first.indexOf("@") + 1);
    const [, image, , , outputDigest, , , images] = read(bench, "output").split("\n");
    expect([image, outputDigest, JSON.parse(images ?? "")]).toEqual([first, digest, references]);
    expect(read(bench, "ko.env")).toBe(`KO_IMAGE=${first}\nKO_DIGEST=${digest}\nKO_IMAGES=${references.join(",")}\n`);
    const summary = read(bench, "summary");
    expect(summary).toStartWith("### ko build\n");
    for (const text of [digest, "example.com/app/cmd/web", "first build here"]) expect(summary).toContain(text);
  });

  test("a compile error is an annotation in the workspace; nothing is put out, and the summary has the error", async () => {
    const files = Object.entries({ ...TWO, "cmd/web/main.go": "package main\n\nfunc main() { x() }\n" });
    using bench = makeBench(Object.fromEntries(files.map(([path, text]) => [`sub/${path}`, text])), {
      host: proxy.host,
    });
    bench.work.write({ output: "", summary: "", "ko.env": "KO_IMAGE=old\n" });
    const env = { GITHUB_ACTIONS: "true", GITHUB_WORKSPACE: bench.tree.path };
    const files2 = { GITHUB_OUTPUT: bench.work.at("output"), GITHUB_STEP_SUMMARY: bench.work.at("summary") };
    const { code, stderr } = await bench.ours(
      ["build", "--github-output", "--dotenv", bench.work.at("ko.env"), "./cmd/web", "./cmd/worker"],
      { cwd: bench.tree.at("sub"), env: { ...env, ...files2 } },
    );
    expect(code).toBe(1);
    expect(commandsIn(stderr)).toEqual(["::error file=sub/cmd/web/main.go,line=3,col=15::undefined: x"]);
    expect([read(bench, "output"), read(bench, "ko.env")]).toEqual(["", ""]);
    expect(read(bench, "summary")).toContain("cmd/web/main.go:3:15: undefined: x");
  });

  test("bad references and warnings are annotations", async () => {
    using bench = makeBench(TWO, { host: proxy.host, config: "defaultBaseImage: ko.builtin/static\nourOwn: 1\n" });
    bench.tree.write({ "a.yaml": "a: ko://example.com/app/cmd/wbe\nb: ko://example.com/app/cmd/web\n" });
    const { code, stderr } = await step(bench, ["resolve", "-f", "a.yaml"]);
    expect(code).toBe(1);
    const [first = "", second = "", ...more] = commandsIn(stderr);
    expect(more).toEqual([]);
    expect(first).toMatch(/^::warning file=.*\.ko\.yaml,line=2,col=1::/);
    expect(second).toMatch(/^::error file=a\.yaml,line=1,col=4::.*%0ADid you mean "example\.com\/app\/cmd\/web"\?$/);
  });

  test("findings of ko check are annotations, beside their lines on stdout", async () => {
    using bench = makeBench(TWO, { host: proxy.host, config: "defaultBaseImage: ko.builtin/static\nourOwn: 1\n" });
    bench.tree.write({ "a.yaml": "a: ko://example.com/app/cmd/wbe\nb: ko://example.com/app/cmd/web\n" });
    const { code, stderr, stdout } = await step(bench, ["check", "-f", "a.yaml"]);
    expect(code).toBe(1);
    expect(commandsIn(stderr)).toEqual([
      expect.stringMatching(/^::warning file=.*\.ko\.yaml,line=2,col=1::/),
      expect.stringMatching(/^::error file=a\.yaml,line=1,col=4::.*%0ADid you mean "example\.com\/app\/cmd\/web"\?$/),
    ]);
    expect(commandsIn(stdout)).toEqual([]);
    expect(stdout).toContain("a.yaml:1:4: error: ");
  });

  test.each<[string, Readonly<Record<string, string>>, readonly string[], string]>([
    [
      "the output of the compiler",
      {
        "cmd/web/main.go":
          "package main\n\nfunc main() {\n//line ::add-mask::a.go:7\n\tx()\n//line /*##[add-mask]*/b.go:8\n\ty()\n}\n",
      },
      ["build", "./cmd/web"],
      "undefined: x",
    ],
    [
      "import paths",
      { "cmd/web/main.go": 'package main\n\nimport _ "##[add-mask]x"\n\nfunc main() {}\n' },
      ["build", "./cmd/web"],
      "add-mask",
    ],
    [
      "YAML",
      { "a.yaml": 'a: "ko://::add-mask::x"\nb: "ko://x\\n::add-mask::y"\nc: ko://##[add-mask]z\n' },
      ["resolve", "-f", "a.yaml"],
      "::add-mask::x",
    ],
    ["the name of a file", { "x\n::add-mask::y.yaml": "a: [" }, ["resolve", "-f", "x\n::add-mask::y.yaml"], "add-mask"],
    ["an argument", {}, ["build", "x\n  ::add-mask::y"], "add-mask"],
    ["a flag", {}, ["build", "--compression=x\n::add-mask::y"], "add-mask"],
    ["a flag that there is not", {}, ["build", "--bogus\n::add-mask::y"], "add-mask"],
  ])("%s is no command", async (_name, files, args, said) => {
    using bench = makeBench(TWO, { host: proxy.host });
    bench.tree.write(files);
    const { code, stderr } = await step(bench, args);
    expect(code).not.toBe(0);
    expect(stderr).toContain(said);
    expect(commandsIn(stderr).filter((line) => !/^::(?:error|warning) file=[^:]*::/.test(line))).toEqual([]);
    expect(stderr).not.toMatch(/##\[/);
  });

  test("the text of kubectl is no command, nor that of a registry", async () => {
    using bench = makeBench(TWO, { host: proxy.host });
    bench.tree.write({ "a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n" });
    const env = bench.stubKubectl(
      "cat >/dev/null; printf ':' >&2; printf ':add-mask::x\\n##[group]y\\nend' >&2; echo a created",
    );
    const applied = await step(bench, ["apply", "-f", "a.yaml"], env);
    expect([applied.code, applied.stdout]).toEqual([0, "a created\n"]);
    expect(applied.stderr).toEndWith("\\x3a:add-mask::x\n\\x23#[group]y\nend");
    using server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: () =>
        Response.json({ errors: [{ code: "DENIED", message: "no\n::add-mask::x\n##[add-mask]y" }] }, { status: 403 }),
    });
    const pushed = await step(bench, ["build", "./cmd/web"], { KO_DOCKER_REPO: `127.0.0.1:${server.port}/team` });
    expect([pushed.code, commandsIn(pushed.stderr)]).toEqual([1, []]);
    expect(pushed.stderr).toContain("add-mask");
  });

  test("--events=- writes events alone, and their values are the same", async () => {
    using bench = makeBench(TWO, { host: proxy.host });
    bench.tree.write({ "a.yaml": "a: ko://##[add-mask]z\n" });
    const { stderr } = await step(bench, ["resolve", "--events=-", "-f", "a.yaml"]);
    const lines = stderr
      .trimEnd()
      .split("\n")
      .map((line): { readonly message?: string } => JSON.parse(line));
    expect(lines.some(({ message }) => message?.includes("ko://##[add-mask]z") === true)).toBe(true);
    expect(commandsIn(stderr)).toEqual([]);
  });

  test("results stay as they are", async () => {
    using bench = makeBench(TWO, { host: proxy.host });
    const text = "a: |\n  ::notice::b\n";
    bench.tree.write({ "a.yaml": text });
    expect(await step(bench, ["resolve", "-f", "a.yaml"])).toMatchObject({ code: 0, stdout: text });
  });

  test.each<[string, readonly string[], Readonly<Record<string, string>>, RegExp]>([
    ["without its variable", ["build"], { GITHUB_OUTPUT: "" }, /Cannot use --github-output: GITHUB_OUTPUT is not set/],
    ["with a file that cannot be", ["build"], { GITHUB_OUTPUT: "/no/such/file" }, /Cannot write GITHUB_OUTPUT/],
    ["in a watch", ["build", "-W"], {}, /Cannot use --github-output with --watch/],
  ])("--github-output %s is refused before anything is built", async (_name, args, env, message) => {
    using bench = makeBench(TWO, { host: proxy.host });
    const result = await step(bench, [...args, "--github-output", "./cmd/web"], env);
    expect([result.code, result.stdout, bench.goCalls()]).toEqual([2, "", []]);
    expect(result.stderr).toMatch(message);
  });
});
