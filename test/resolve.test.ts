/**
 * `ko resolve` beside the original: the same YAML, the same programs, two repositories. The output is parsed and
 * compared document by document; that ours keeps all other bytes is shown by yaml-references.test.ts and
 * feature-knative.test.ts.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { describeError, KoError } from "../lib/errors.ts";
import type { FoundPrograms, Program } from "../lib/go-programs.ts";
import type { Choice, Pipeline, PublishedProgram } from "../lib/pipeline.ts";
import { findMissing, publishReferences, type Reading, readReferences } from "../lib/resolve.ts";
import { findCounterparts } from "./helpers/counterparts.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { mainGo } from "./helpers/go.ts";
import { pushBases } from "./helpers/oracle-bases.ts";
import { digestTree, keepOriginal } from "./helpers/oracle.ts";
import { registrySuite } from "./helpers/registry-fault-proxy.ts";
import { readObject } from "./helpers/registry-images.ts";
import { startRegistry, type TestRegistry } from "./helpers/registry.ts";
import { type Bench, makeBench, SETTLED_MS } from "./helpers/world-bench.ts";
import type { Files } from "./helpers/world-folders.ts";
import type { Result } from "./helpers/world-programs.ts";
import { readDocuments } from "./helpers/yaml.ts";
import { PROGRAMS, YAML_CASES, type YamlCase } from "./parity/yaml.ts";

const programs = findCounterparts(["docker-registry", "ko"]);

describe.skipIf(programs === undefined)("ko resolve, beside the original", () => {
  let registry: TestRegistry;
  let bench: Bench;
  let baseDigest: string;

  beforeAll(async () => {
    registry = await startRegistry();
    const { oci } = await pushBases(registry.host);
    baseDigest = oci.digest;
    bench = makeBench(PROGRAMS, { host: registry.host, config: `defaultBaseImage: ${oci.reference}\n` });
  });

  afterAll(async () => {
    bench?.[Symbol.dispose]();
    await registry?.[Symbol.asyncDispose]();
  });

  test.each(YAML_CASES.map((item) => [item.name, item] as const))("%s", async (_name, item) => {
    const [ours, original] = await runBoth(item);
    if (ours.code !== 0) throw new Error(ours.stderr);
    const documents = readDocuments(ours.stdout, `${registry.host}/ours`);
    if (item.ours === undefined) {
      if (original.code !== 0) throw new Error(original.stderr);
      expect(documents).toEqual(readDocuments(original.stdout, `${registry.host}/original`));
    } else {
      expect(documents.map(withoutMd5)).toEqual([...item.ours.documents]);
      // A difference that no longer exists must leave the list.
      const theirs = original.code === 0 ? readDocuments(original.stdout, `${registry.host}/original`) : original.code;
      expect(documents).not.toEqual(theirs);
    }
  });

  async function runBoth(item: YamlCase): Promise<readonly [Result, Result]> {
    if (programs === undefined) throw new Error("no counterparts");
    const folder = `case-${YAML_CASES.indexOf(item)}`;
    const files = Object.entries(item.files ?? {}).map(([path, entry]) => [`${folder}/${path}`, entry]);
    bench.tree.write({ [folder]: null, ...Object.fromEntries(files) });
    const args = ["resolve", ...(item.args ?? ["-f", "in.yaml"])];
    const options = (name: string): Parameters<Bench["ours"]>[1] => ({
      cwd: bench.tree.at(folder),
      env: { KO_DOCKER_REPO: `${registry.host}/${name}` },
      ...(item.stdin === undefined ? {} : { stdin: item.stdin }),
    });
    const { ko } = programs;
    const decisive = [PROGRAMS, item.stdin, ...args];
    const inputs = [JSON.stringify(decisive), digestTree(bench.tree.at(folder)), baseDigest];
    const [ours, { text }] = await Promise.all([
      bench.ours(args, options("ours")),
      keepOriginal(
        async () => JSON.stringify(await bench.original(ko, [...args, "--sbom=none"], { ...options("original") })),
        { ko, host: registry.host, inputs },
      ),
    ]);
    return [ours, readResult(JSON.parse(text))];
  }
});

describe.skipIf(programs === undefined)("ko resolve", () => {
  const { proxy } = registrySuite();

  interface Work {
    readonly list: number;
    readonly build: number;
    readonly images: number;
    readonly sboms: number;
  }

  /** How often Go compiled, and how many images and SBOMs were pushed. */
  function work(bench: Bench): Work {
    const count = (name: string): number => bench.goCalls().filter((call) => call === name).length;
    const manifests = proxy.seen.filter(({ method, path }) => method === "PUT" && path.includes("/manifests/"));
    const sboms = manifests.filter(({ path }) => path.endsWith(".sbom")).length;
    return { list: count("list"), build: count("build"), images: manifests.length - sboms, sboms };
  }

  const open = (files: Files = {}): Bench => makeBench({ ...PROGRAMS, ...files }, { host: proxy.host });

  test("one program, forty times in ten files, is built and pushed once", async () => {
    const path = "ko://example.com/app/cmd/one";
    const yaml = `plain: ${path}\ndouble: "${path}"\nrelative: 'ko://./cmd/one'\n${path}: key\n`;
    using bench = open(Object.fromEntries(Array.from({ length: 10 }, (_, i) => [`many/${i}.yaml`, yaml])));
    const { code, stdout, stderr } = await bench.ours(["resolve", "-f", "many"]);
    expect({ code, stderr: stderr.match(/^Building /gm) }).toEqual({ code: 0, stderr: ["Building "] });
    const images = stdout.match(/127\.0\.0\.1:\d+\/\S+@sha256:[0-9a-f]{64}/g) ?? [];
    expect({ images: images.length, different: new Set(images).size }).toEqual({ images: 40, different: 1 });
    expect(work(bench)).toEqual({ list: 1, build: 1, images: 1, sboms: 1 });
  });

  test("forty programs in one file are one go list and one go build", async () => {
    const names = Array.from({ length: 40 }, (_, i) => `p${i}`);
    using bench = open({
      ...Object.fromEntries(names.map((name) => [`many/${name}/main.go`, mainGo()])),
      "in.yaml": names.map((name) => `- ko://example.com/app/many/${name}\n`).join(""),
    });
    const { code, stdout } = await bench.ours(["resolve", "-q", "-f", "in.yaml"]);
    expect(code).toBe(0);
    expect(readDocuments(stdout, bench.repository)).toEqual([
      names.map((name) => `REPO/${name}-${md5(`example.com/app/many/${name}`)}@DIGEST`),
    ]);
    expect(work(bench)).toEqual({ list: 1, build: 1, images: 40, sboms: 40 });
  });

  const BAD: Files = {
    "bad/a.yaml":
      "a: ko://example.com/app/cmd/one\nb:\n  - ko://example.com/app/cmd/thre\n  - ko://example.com/app/lib # no program\n",
    "bad/b.yaml":
      "# é😀\n'é😀': {x: \"ko://fmt\"}\n---\n- ko://example.com/app/cmd/...\n- >-\n  ko://example.com/app/cmd/thre\n",
    "bad/c.json": '{\n\t"a": "ko://example.com/nobody/nothing"}',
  };

  test("all bad references are reported, with their places, before anything is built", async () => {
    using bench = open(BAD);
    const { code, stdout, stderr } = await bench.ours(["resolve", "-f", "bad"]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr.trimEnd().split("\n")).toEqual([
      "Error: bad/a.yaml:3:5: ko://example.com/app/cmd/thre: no required module provides package example.com/app/cmd/thre",
      '  Did you mean "example.com/app/cmd/three"?',
      "Error: bad/a.yaml:4:5: ko://example.com/app/lib: it is a library (package lib), wanted package main",
      "Error: bad/b.yaml:2:12: ko://fmt: it is a library (package fmt), wanted package main",
      "Error: bad/b.yaml:4:3: ko://example.com/app/cmd/...: it is a pattern, one program is wanted",
      "Error: bad/b.yaml:6:3: ko://example.com/app/cmd/thre: no required module provides package example.com/app/cmd/thre",
      '  Did you mean "example.com/app/cmd/three"?',
      "Error: bad/c.json:2:8: ko://example.com/nobody/nothing: no required module provides package example.com/nobody/nothing",
      "  Run: go get example.com/nobody/nothing",
    ]);
    expect(work(bench)).toMatchObject({ build: 0, images: 0, sboms: 0 });
    expect(proxy.log).toEqual([]);
  });

  test("--strict=false leaves bad references as they are, with a warning each", async () => {
    using bench = open(BAD);
    const { code, stdout, stderr } = await bench.ours(["resolve", "--strict=false", "-f", "bad"]);
    expect(code).toBe(0);
    const one = `REPO/one-${md5("example.com/app/cmd/one")}@DIGEST`;
    expect(readDocuments(stdout, bench.repository)).toEqual([
      { a: one, b: ["ko://example.com/app/cmd/thre", "ko://example.com/app/lib"] },
      { "é😀": { x: "ko://fmt" } },
      ["ko://example.com/app/cmd/...", "ko://example.com/app/cmd/thre"],
      { a: "ko://example.com/nobody/nothing" },
    ]);
    const warned = stderr.match(/^Warning: \S+:\d+:\d+: ko:\/\/\S+: .*; it is left as it is$/gm);
    expect(warned?.map((line) => line.split(" ")[1])).toEqual([
      ...[
        "bad/a.yaml:3:5:",
        "bad/a.yaml:4:5:",
        "bad/b.yaml:2:12:",
        "bad/b.yaml:4:3:",
        "bad/b.yaml:6:3:",
        "bad/c.json:2:8:",
      ],
    ]);
    expect(work(bench)).toMatchObject({ build: 1, images: 1, sboms: 1 });
  });

  test.each<[string, Files, RegExp]>([
    [
      "a program does not compile",
      { "cmd/two/main.go": "package main\n\nfunc main() { x() }\n" },
      /two\/main\.go:3:15: undefined: x/,
    ],
    [
      "a later document is no YAML",
      { "z.yaml": "a: ko://example.com/app/cmd/two\nb: [1\nc: 2\n" },
      /^Error: Cannot read "z\.yaml:3:1" as YAML: /m,
    ],
    ["a file is not there", { "y.yaml": { link: "nowhere" } }, /^Error: Cannot read "y\.yaml": there is no such file/m],
    [
      "a file is no text",
      { "z.yaml": new Uint8Array([0x61, 0x3a, 0x20, 0xff]) },
      /^Error: Cannot read "z\.yaml:1" as YAML: .*UTF-8/m,
    ],
  ])("prints nothing when %s", async (_what, files, message) => {
    using bench = open({
      "in.yaml": "a: ko://example.com/app/cmd/one\n---\nb: ko://example.com/app/cmd/two\n",
      "y.yaml": "y: 1\n",
      "z.yaml": "z: 1\n",
      ...files,
    });
    const { code, stdout, stderr } = await bench.ours(["resolve", "-f", "in.yaml,y.yaml", "-f", "z.yaml"]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(message);
    expect(work(bench)).toMatchObject({ images: 0, sboms: 0 });
  });

  test("prints nothing when the registry refuses the second of two images", async () => {
    using bench = open({ "in.yaml": "- ko://example.com/app/cmd/one\n- ko://example.com/app/cmd/two\n" });
    const fault = { kind: "answer", status: 403 } as const;
    proxy.rules = [{ method: "PUT", path: /\/two-[0-9a-f]+\/manifests\//, fault }];
    const { code, stdout, stderr } = await bench.ours(["resolve", "-f", "in.yaml"]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toContain("403");
  });

  test("without -f it is wrong usage", async () => {
    using bench = open();
    const { code, stdout, stderr } = await bench.ours(["resolve"]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toStartWith("Error: Cannot read YAML: neither -f nor -k is given\n");
  });

  test("YAML without a reference needs neither Go nor a registry, and comes out as it was", async () => {
    const text = "# a\na:   {b: 'c'}   # d\n\n---\nb: [1,\n  2]\n";
    using bench = open();
    const env = { KO_DOCKER_REPO: "", KO_GO_PATH: bench.work.at("no-go") };
    expect(await bench.ours(["resolve", "-f", "-"], { stdin: text, env })).toEqual({
      code: 0,
      stdout: text,
      stderr: "Warning: no ko:// reference in <stdin>: nothing is built\n",
    });
  });
});

describe("findMissing()", () => {
  test.each<[string, string, readonly string[]]>([
    ["image: ko://a/b\n", "", []],
    [
      "image: KO://a/b\n---\nimage: ko://a/b\n",
      "",
      ['a.yaml:1:8: "KO://a/b" is no image name, it looks like ko://a/b'],
    ],
    ["a: b\n", "", ["no ko:// reference in a.yaml: nothing is built"]],
    ["", "", ["no ko:// reference in the YAML: nothing is built"]],
    [
      "apiVersion: v1\nkind: Pod\nimage: ko://a/b\n",
      "app=x",
      ["no ko:// reference in the YAML, as far as -l selects it: nothing is built"],
    ],
    ["a: [\nimage: ko:/a/b\n", "", []],
  ])("of %j with -l %j", async (text, selector, lines) => {
    const inputs = [{ name: "a.yaml", bytes: new TextEncoder().encode(text) }];
    const reading = await readReferences(inputs, { selector, records: undefined });
    expect((await findMissing(reading, { selector })).map(({ line }) => line)).toEqual([...lines]);
  });
});

describe("ko resolve --strict=false", () => {
  const path = "ko://example.com/app/cmd/one";

  test("with --strict=false an outdated memory warns once", async () => {
    const files = { ...PROGRAMS, "in.yaml": `a: ${path}\nb: ko://example.com/app/cmd/...\n` };
    using bench = makeBench(files, { host: "127.0.0.1:1" });
    const run = (): Promise<Result> => {
      const args = ["resolve", "--strict=false", "-f", "in.yaml", "--oci-layout-path", bench.work.at("layout")];
      return bench.ours(args, { env: { KO_DOCKER_REPO: "" } });
    };
    const warnings = ({ stderr }: Result): readonly string[] => stderr.match(/^Warning: .*$/gm) ?? [];
    const pattern =
      "Warning: in.yaml:2:4: ko://example.com/app/cmd/...: it is a pattern, one program is wanted; it is left as it is";
    await Bun.sleep(SETTLED_MS);
    const first = await run();
    expect({ code: first.code, warnings: warnings(first) }).toEqual({ code: 0, warnings: [pattern] });
    const before = bench.goCalls().length;
    // ko recalls a program, starts to compile it, and `go list` then says that it is not a program any more.
    bench.tree.write({ "cmd/one/main.go": "package lib\n" });
    const second = await run();
    expect({ code: second.code, warnings: warnings(second), stdout: second.stdout }).toEqual({
      code: 0,
      warnings: [
        `Warning: in.yaml:1:4: ${path}: it is a library (package lib), wanted package main; it is left as it is`,
        pattern,
      ],
      stdout: files["in.yaml"],
    });
    expect(new Set(bench.goCalls().slice(before))).toEqual(new Set(["build", "list"]));
  });
});

describe("publishReferences()", () => {
  const one: Program = { importPath: "a/one", dir: "/a/one", module: undefined, workDir: "/a", text: "ko://a/one" };

  async function read(text: string): Promise<Reading> {
    const inputs = [{ name: "in.yaml", bytes: new TextEncoder().encode(text) }];
    return readReferences(inputs, { selector: "", records: undefined });
  }

  /** A pipeline that answers the arguments by `results`, and starts again if there is another list of them. */
  function pipeline(...results: readonly FoundPrograms["results"][]): {
    readonly asked: string[];
    readonly choices: Choice[];
    readonly publish: Pipeline["publish"];
    readonly sideLoads: boolean;
  } {
    const asked: string[] = [];
    const choices: Choice[] = [];
    return {
      asked,
      choices,
      sideLoads: false,
      publish: async (args, choose) => {
        asked.push(...args);
        const [first = [], ...more] = results;
        let choice = await choose({ results: first, listings: [] });
        choices.push(choice);
        for (const each of more) choices.push((choice = await choose({ results: each, listings: [] })));
        return { choice, published: choice.programs.map((program) => publishedAs(program)) };
      },
    };
  }

  function publishedAs(program: Program): PublishedProgram {
    const reference = `r/${program.importPath}`;
    return { program, digest: "sha256:0", tags: ["latest"], listDigest: undefined, reference, all: [reference] };
  }

  test("two values of one program are one image; good values only are asked for", async () => {
    const reading = await read("- ko://a/one\n- ko://./one\n- ko://a/...\n");
    const fake = pipeline([[one], [one]]);
    const images = await publishReferences(reading, {
      pipeline: fake,
      strict: false,
      values: [...reading.occurrences.keys()],
    });
    expect(images).toEqual(
      new Map([
        ["ko://a/one", publishedAs(one)],
        ["ko://./one", publishedAs(one)],
      ]),
    );
    expect(fake.asked).toEqual(["ko://a/one", "ko://./one"]);
    expect(fake.choices).toEqual([
      expect.objectContaining({
        programs: [one],
        warnings: ["in.yaml:3:3: ko://a/...: it is a pattern, one program is wanted; it is left as it is"],
      }),
    ]);
  });

  test("the last answers count if the run starts again", async () => {
    const reading = await read("- ko://a/one\n");
    const fake = pipeline([[one]], [new KoError('Cannot build "ko://a/one": it is gone')]);
    const images = await publishReferences(reading, { pipeline: fake, strict: false, values: ["ko://a/one"] });
    expect(images).toEqual(new Map());
    expect(fake.choices.map(({ warnings }) => warnings)).toEqual([
      [],
      ["in.yaml:1:3: ko://a/one: it is gone; it is left as it is"],
    ]);
  });

  test("bad documents and bad references are one failure, in input order", async () => {
    const reading = await read("a: ko://a/...\n---\nb: [ko://a/one\n---\nc: ko://a/one\n");
    const fake = pipeline([[one]]);
    const failure = await rejectionOf(
      publishReferences(reading, { pipeline: fake, strict: true, values: [...reading.occurrences.keys()] }),
    );
    expect(describeError(failure).split("\n")).toEqual([
      "Error: in.yaml:1:4: ko://a/...: it is a pattern, one program is wanted",
      expect.stringMatching(/^Error: Cannot read "in\.yaml:4:1" as YAML: /),
    ]);
    expect(fake.choices).toEqual([]);
  });
});

/** What was kept of the original. */
function readResult(value: unknown): Result {
  const { code, stdout, stderr } = readObject(value);
  if (typeof code !== "number") throw new TypeError("what was kept of the original is not what was written");
  return { code, stdout: String(stdout), stderr: String(stderr) };
}

/** With `REPO/NAME-MD5` as `NAME`. */
function withoutMd5(document: unknown): unknown {
  return JSON.parse(JSON.stringify(document).replaceAll(/REPO\/([a-z]+)-[0-9a-f]{32}@DIGEST/g, "$1@DIGEST"));
}

function md5(text: string): string {
  return new Bun.CryptoHasher("md5").update(text).digest("hex");
}
