/**
 * `--events` and `--metadata-file` in whole runs: both fit their schemas, and agree with each other and with the screen.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import { findCounterparts } from "./helpers/counterparts.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { registrySuite } from "./helpers/registry-fault-proxy.ts";
import { type Bench, makeBench } from "./helpers/world-bench.ts";
import { startWatching } from "./helpers/world-watch.ts";
import { waitUntil } from "./helpers/world-programs.ts";

const programs = findCounterparts(["docker-registry"]);

const TWO = {
  "go.mod": goMod("example.com/app"),
  "cmd/web/main.go": mainGo("web"),
  "cmd/worker/main.go": mainGo("worker"),
};

interface Line {
  readonly type: string;
  readonly [key: string]: unknown;
}

function schema(name: string): (value: unknown) => readonly unknown[] {
  const text = readFileSync(`${import.meta.dir}/../docs/schemas/${name}.v1.json`, "utf8");
  const document: object = JSON.parse(text);
  const validate = new Ajv2020({ allErrors: true, strictTypes: false, strictRequired: false }).compile(document);
  return (value) => (validate(value) ? [] : (validate.errors ?? []));
}

const checkEvent = schema("events");
const checkMetadata = schema("metadata");

function readLines(text: string): readonly Line[] {
  const lines = text
    .trimEnd()
    .split("\n")
    .map((line): Line => JSON.parse(line));
  expect(lines.flatMap((line) => checkEvent(line).map((error) => ({ line, error })))).toEqual([]);
  return lines;
}

interface Metadata {
  readonly exitCode: number;
  readonly programs: readonly Readonly<Record<string, unknown>>[];
  readonly errors: readonly Readonly<Record<string, unknown>>[];
}

function readMetadata(bench: Bench): Metadata {
  const value: Metadata = JSON.parse(readFileSync(bench.work.at("metadata.json"), "utf8"));
  expect(checkMetadata(value)).toEqual([]);
  return value;
}

function ofType(lines: readonly Line[], type: string): readonly Line[] {
  return lines.filter((line) => line.type === type);
}

/** Of the random changes. */
const STEPS = process.env["CI"] === undefined ? 4 : 12;

/** Numbers below 1 that look random, and are the same for the same seed: mulberry32. */
function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface Published {
  readonly importPath: string;
  readonly platforms: readonly {
    readonly platform: string;
    readonly reused: boolean;
    readonly why?: { readonly reason: string; readonly file?: string };
  }[];
}

function readPublished(program: Readonly<Record<string, unknown>>): Published {
  return JSON.parse(JSON.stringify(program));
}

describe.skipIf(programs === undefined)("--events and --metadata-file", () => {
  const { proxy } = registrySuite();

  function flags(bench: Bench): readonly string[] {
    return ["--events", bench.work.at("events.jsonl"), "--metadata-file", bench.work.at("metadata.json")];
  }

  function readEvents(bench: Bench): readonly Line[] {
    return readLines(readFileSync(bench.work.at("events.jsonl"), "utf8"));
  }

  test("agree with stdout, with stderr and with each other", async () => {
    using bench = makeBench(TWO, { host: proxy.host });
    const args = ["build", "-B", "-t", "v1,v2", "--platform=linux/amd64,linux/arm64", ...flags(bench)];
    const first = await bench.ours([...args, "./cmd/worker", "./cmd/web"]);
    expect(first.code).toBe(0);
    const events = readEvents(bench);
    const metadata = readMetadata(bench);
    const references = first.stdout.trimEnd().split("\n");
    expect(metadata.programs.map(({ reference }) => reference)).toEqual(references);
    expect(new Set(ofType(events, "result").map(({ reference }) => reference))).toEqual(new Set(references));
    expect(metadata.programs.map((program) => program["image.name"])).toEqual(
      ["worker", "web"].map((name) => `${bench.repository}/${name}:v1,${bench.repository}/${name}:v2`),
    );
    for (const { "containerimage.digest": digest, reference } of metadata.programs)
      expect(reference).toEndWith(`@${String(digest)}`);
    const lines = ofType(events, "info").flatMap(({ message }) => String(message).split("\n"));
    expect(lines).toEqual(first.stderr.trimEnd().split("\n"));
    expect(new Map(ofType(events, "sbom").map(({ importPath, references: sboms }) => [importPath, sboms]))).toEqual(
      new Map(metadata.programs.map(({ importPath, sboms }) => [importPath, sboms])),
    );
    expect(events[0]).toMatchObject({ type: "run", state: "begin", command: "build" });
    expect(events.at(-1)).toMatchObject({ type: "run", state: "end", exitCode: 0 });
    const stages = ofType(events, "stage");
    const begun = stages.filter(({ state }) => state === "begin").map(({ id }) => id);
    expect(new Set(stages.filter(({ state }) => state === "end").map(({ id }) => id))).toEqual(new Set(begun));
    const second = await bench.ours([...args, "./cmd/worker", "./cmd/web"]);
    expect(second.stdout).toBe(first.stdout);
    expect(readMetadata(bench).programs).toMatchObject([{ wasThere: true }, { wasThere: true }]);
  });

  test("a compile error: the metadata has it, and what is known of the programs", async () => {
    using bench = makeBench(
      { ...TWO, "cmd/web/main.go": "package main\n\nfunc main() { x() }\n" },
      { host: proxy.host },
    );
    const result = await bench.ours(["build", ...flags(bench), "./cmd/worker", "./cmd/web"]);
    expect(result.code).toBe(1);
    const { errors, exitCode, programs: known } = readMetadata(bench);
    expect([exitCode, known.map(({ published }) => published)]).toEqual([1, [false, false]]);
    expect(errors[0]).toEqual({
      code: "compile",
      message: "undefined: x",
      file: "cmd/web/main.go",
      line: 3,
      column: 15,
    });
    expect(ofType(readEvents(bench), "error").map(({ message }) => message)).toEqual(
      errors.map(({ message }) => message),
    );
    for (const { message } of errors) expect(result.stderr).toContain(String(message));
  });

  test("each program is compiled until its own binary is complete, in its own stage", async () => {
    using bench = makeBench(TWO, { host: proxy.host });
    const built = await bench.ours(["build", "-B", ...flags(bench), "./cmd/worker", "./cmd/web"]);
    expect(built.code).toBe(0);
    const compiled = ofType(readEvents(bench), "stage").filter(({ stage }) => stage === "compile");
    const subjects = ["web", "worker"].map((name) => `example.com/app/cmd/${name}`);
    for (const state of ["begin", "end"]) {
      const some = compiled.filter((event) => event["state"] === state).map(({ subject }) => JSON.stringify(subject));
      expect(some.sort()).toEqual(subjects.map((text) => JSON.stringify({ text, importPaths: [text] })));
    }
    expect(bench.goCalls().filter((call) => call === "build")).toHaveLength(1);
  });

  test("hide the password and the signature in a URL of -f, as the reports of --timing do", async () => {
    using bench = makeBench(TWO, { host: proxy.host });
    using server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: () => new Response("image: ko://example.com/app/cmd/web\n"),
    });
    const url = `http://me:s3cret-pass@127.0.0.1:${server.port}/web.yaml?sig=s3cret-sig`;
    for (const name of ["trace.json", "page.html"]) {
      const file = bench.work.at(name);
      const result = await bench.ours(["resolve", "-v", "-f", url, `--timing=${file}`, ...flags(bench)]);
      expect(result.code).toBe(0);
      for (const each of [file, bench.work.at("events.jsonl"), bench.work.at("metadata.json")]) {
        expect([each, readFileSync(each, "utf8").includes("s3cret")]).toEqual([each, false]);
      }
      expect(readFileSync(file, "utf8")).toContain(`http://127.0.0.1:${server.port}/web.yaml?sig=REDACTED`);
      expect(result.stderr).not.toContain("s3cret");
    }
  });

  /** The lines that people see for an event. */
  function linesOf(event: Line): readonly string[] {
    const { details, hint, message, type } = event;
    const text = [message, details].filter((part) => typeof part === "string").join("\n");
    const hints = typeof hint === "string" ? hint.split("\n").map((line) => `  ${line}`) : [];
    const prefix = type === "error" ? "Error: " : type === "warning" ? "Warning: " : "";
    return [...`${prefix}${text}`.split("\n"), ...hints];
  }

  test.each<[string, readonly string[], Readonly<Record<string, string>>]>([
    ["several programs", ["build", "./cmd/web", "./cmd/worker"], {}],
    ["reasons and times", ["build", "--explain", "--timing", "./cmd/web"], {}],
    ["verbose", ["build", "-v", "./cmd/web"], {}],
    ["warnings", ["build", "--sbom=none", "--sbom-dir=x", "-P", "-B", "./cmd/web"], {}],
    ["a compile error", ["build", "./cmd/web"], { "cmd/web/main.go": "package main\n\nfunc main() { x(); y() }\n" }],
    ["an import that there is not", ["build", "./cmd/web"], { "cmd/web/main.go": mainGo("a", ["x.example/y"]) }],
    ["bad references", ["resolve", "-f", "a.yaml"], { "a.yaml": "a: ko://x y\nb: ko://example.com/app/cmd/wbe\n" }],
    ["broken YAML", ["resolve", "-f", "a.yaml"], { "a.yaml": "a: [\n---\nb: {\n" }],
    ["wrong usage", ["build", "--compression=x", "./cmd/web"], {}],
    ["wrong platforms", ["build", "--platform=linux/x", "./cmd/web"], {}],
    [
      "kubectl",
      ["apply", "-f", "a.yaml"],
      { "a.yaml": "apiVersion: v1\nkind: List\nb: ko://example.com/app/cmd/web\n" },
    ],
    ["a broken configuration", ["build", "./cmd/web"], { ".ko.yaml": "builds: 1\n" }],
  ])("each line on stderr has its event, and each error its line: %s", async (_name, args, files) => {
    using bench = makeBench({ ...TWO, ...files }, { host: proxy.host });
    const config = files[".ko.yaml"] === undefined ? {} : { KO_CONFIG_PATH: bench.tree.path };
    const stub = bench.stubKubectl("cat >/dev/null; printf 'Warning: from' >&2; echo ' kubectl' >&2; echo done");
    const [command = "", ...rest] = args;
    for (const run of ["first", "unchanged"]) {
      const { stderr } = await bench.ours([command, ...flags(bench), ...rest], { env: { ...stub, ...config } });
      const events = readEvents(bench);
      readMetadata(bench);
      const said = new Set(events.flatMap(linesOf));
      expect([run, stderr.split("\n").filter((line) => line !== "" && !said.has(line))]).toEqual([run, []]);
      const shown = [...ofType(events, "error"), ...ofType(events, "warning")].map(({ message }) => String(message));
      expect([run, shown.filter((message) => !stderr.includes(message))]).toEqual([run, []]);
    }
  });

  test("screen, events and metadata agree after each of several random changes", async () => {
    using bench = makeBench(TWO, { host: proxy.host });
    const random = randomNumbers(20_261_130);
    for (let step = 0; step < STEPS; step++) {
      const name = random() < 0.5 ? "web" : "worker";
      const isBroken = random() < 0.25;
      const text = isBroken ? `package main\n\nfunc main() { undefined${step}() }\n` : mainGo(`${name} ${step}`);
      if (random() < 0.75) bench.tree.write({ [`cmd/${name}/main.go`]: text });
      const { code, stderr, stdout } = await bench.ours([
        "build",
        "--explain",
        ...flags(bench),
        "./cmd/web",
        "./cmd/worker",
      ]);
      const [events, metadata] = [readEvents(bench), readMetadata(bench)];
      expect([metadata.exitCode, events.at(-1)?.["exitCode"]]).toEqual([code, code]);
      const errors = ofType(events, "error").map(({ time: _t, type: _y, version: _v, ...error }) => error);
      expect(metadata.errors).toEqual(errors);
      expect(errors.filter(({ message }) => !stderr.includes(String(message)))).toEqual([]);
      expect(errors.length > 0).toBe(code !== 0);
      const results = ofType(events, "result");
      const digests = (lines: readonly Readonly<Record<string, unknown>>[]): unknown =>
        lines.map(({ reference }) => String(reference)).sort();
      const printed = stdout.split("\n").filter((line) => line !== "");
      const published = metadata.programs.filter((program) => program["published"] === true);
      expect(digests(published)).toEqual(digests(results));
      if (code === 0) expect(printed.toSorted()).toEqual(results.map(({ reference }) => String(reference)).sort());
      for (const { importPath, platforms } of published.map(readPublished)) {
        for (const { platform, reused, why } of platforms) {
          const reason = [why?.file, why?.reason].filter((part) => part !== undefined).join(" ");
          const line = `${importPath} (${platform}): ${reused ? "reused, nothing changed" : `rebuilt, ${reason}`}`;
          if (code === 0) expect(stderr.split("\n")).toContain(line);
        }
      }
    }
  });

  test("--events=- writes nothing but events to stderr, also for a failure", async () => {
    using bench = makeBench(TWO, { host: proxy.host });
    bench.tree.write({ "a.yaml": "image: ko://example.com/app/cmd/wbe\n" });
    const result = await bench.ours(["resolve", "--events=-", "-f", "a.yaml"]);
    expect([result.code, result.stdout]).toEqual([1, ""]);
    const [error] = ofType(readLines(result.stderr), "error");
    expect(error).toMatchObject({ file: "a.yaml", line: 1, column: 8, hint: expect.stringContaining("cmd/web") });
  });

  test.each([
    ["--metadata-file=-", /Cannot use --metadata-file="-"/],
    ["--metadata-file=no/such/file", /Cannot write --metadata-file/],
    ["--events=.", /Cannot write --events/],
  ])("%s is refused before anything is built", async (flag, message) => {
    using bench = makeBench(TWO, { host: proxy.host });
    const result = await bench.ours(["build", flag, "./cmd/web"]);
    expect([result.code, result.stdout, bench.goCalls()]).toEqual([2, "", []]);
    expect(result.stderr).toMatch(message);
  });

  test("each round of a watch is a run, and rewrites the metadata", async () => {
    using bench = makeBench(TWO, { host: proxy.host });
    await using watching = startWatching(bench, ["build", "-W", ...flags(bench), "./cmd/web"]);
    const runs = (): readonly Line[] =>
      existsSync(bench.work.at("events.jsonl")) && readFileSync(bench.work.at("events.jsonl"), "utf8") !== ""
        ? ofType(readEvents(bench), "run")
        : [];
    const ended = (): number => runs().filter(({ state }) => state === "end").length;
    await waitUntil(() => ended() === 1, watching.running);
    const before = readMetadata(bench);
    bench.tree.write({ "cmd/web/main.go": mainGo("another") });
    await waitUntil(() => ended() === 2, watching.running);
    const after = readMetadata(bench);
    expect(after.programs).toMatchObject([{ platforms: [{ reused: false, why: { reason: "changed" } }] }]);
    expect(after.programs[0]?.["reference"]).not.toEqual(before.programs[0]?.["reference"]);
  });
});
