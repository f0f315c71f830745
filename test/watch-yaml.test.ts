/**
 * The job of `resolve`, `apply` and `create` with `--watch`, round by round, with pipelines and a kubectl that the test
 * makes up; and the two receivers of documents.
 */
import { describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { readBuildOptions } from "../lib/cli-options.ts";
import { parseCommandLine } from "../lib/cli-parse.ts";
import { ClusterError, CommandError, describeError, KoError } from "../lib/errors.ts";
import type { Host } from "../lib/host.ts";
import { kubectlArguments } from "../lib/kubectl.ts";
import { silentLog } from "../lib/log.ts";
import { noTiming } from "../lib/timing.ts";
import {
  createFeeder,
  createPrinter,
  type DocumentChange,
  formatRound,
  YamlJob,
  type YamlJobOptions,
} from "../lib/watch-yaml.ts";
import { type Due, FatalError, type RoundContext } from "../lib/watch.ts";
import { joinDocuments, splitDocuments, type YamlDocument } from "../lib/yaml.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";
import {
  dueFor,
  EVERYTHING,
  type FakeHost,
  fakeHost,
  FakeModule,
  fakeProgram,
  fakeRun,
  type RoundOutcome,
  runRound,
} from "./helpers/world-watch.ts";

const [A, B] = [fakeProgram("a"), fakeProgram("b")];

const YAML_DUE: Due = { ...EVERYTHING, everything: false, yaml: true };

function configMap(name: string, path?: string): string {
  const image = path === undefined ? "" : `, image: "ko://example.com/${path}"`;
  return `kind: ConfigMap\nmetadata: {name: ${name}}\ndata: {a: b${image}}\n`;
}

interface Bench extends Disposable {
  readonly tree: Tree;
  readonly module: FakeModule;
  /** Makes each hand-over fail. */
  readonly refuse: (error: Error | undefined) => void;
  /** Runs a round; `handed` is the text that was handed over. */
  readonly round: (due: Due) => Promise<RoundOutcome & { readonly calls: readonly string[]; readonly handed: string }>;
}

/** A watch of the YAML in the folder `in`. */
function open(
  files: Readonly<Record<string, string>>,
  options: Partial<YamlJobOptions> & { readonly host?: Partial<Host> } = {},
): Bench {
  const tree = writeTree(Object.fromEntries(Object.entries(files).map(([name, text]) => [`in/${name}`, text])));
  const module = new FakeModule("a", "b");
  const { host } = fakeHost({ cwd: tree.path, ...options.host });
  const invocation = parseCommandLine(["build", "--push=false"]);
  if (invocation.command !== "build") throw new TypeError("not a build");
  let refusal: Error | undefined;
  let handed = "";
  const job = new YamlJob({
    build: readBuildOptions(invocation.flags, invocation.given),
    openPipeline: async () => module.open(),
    request: { files: ["in"], recursive: false, kustomize: undefined },
    selector: "",
    strict: true,
    verb: "applied",
    handOver: async (changes) => {
      if (refusal !== undefined) throw refusal;
      handed = joinDocuments(changes.map(({ document }) => document));
      return undefined;
    },
    ...options,
  });
  return {
    tree,
    module,
    refuse: (error) => void (refusal = error),
    round: async (due) => {
      module.calls.length = 0;
      handed = "";
      const outcome = await runRound(job, { host, due });
      return { ...outcome, calls: [...module.calls], handed };
    },
    [Symbol.dispose]: () => tree[Symbol.dispose](),
  };
}

describe("YamlJob", () => {
  const FILES = { "a.yaml": configMap("a", "a"), "b.yaml": `${configMap("b", "b")}---\n${configMap("plain")}` };

  test("the first round hands over all documents, with references", async () => {
    using bench = open(FILES);
    const outcome = await bench.round(EVERYTHING);
    expect(outcome).toMatchObject({
      error: undefined,
      summary: "applied 3 documents",
      calls: ["build example.com/a example.com/b", "close"],
    });
    expect(outcome.handed).toContain(`image: "${bench.module.reference(A)}"`);
    expect(outcome.handed).toContain("name: plain");
    expect(outcome.watched[0]?.yaml?.folders).toEqual([{ dir: bench.tree.at("in"), kind: "yaml" }]);
  });

  test("a changed program hands over the documents with its reference only", async () => {
    using bench = open(FILES);
    await bench.round(EVERYTHING);
    bench.module.add("b");
    const outcome = await bench.round(dueFor("example.com/b"));
    expect(outcome).toMatchObject({
      summary: "applied 1 document",
      calls: ["build example.com/b", "close"],
      handed: FILES["b.yaml"].split("---\n")[0]?.replace("ko://example.com/b", bench.module.reference(B)),
    });
    expect(await bench.round(dueFor("example.com/b"))).toMatchObject({ summary: "nothing new", handed: "" });
  });

  test("a changed file is handed over whole, without a build of known programs", async () => {
    using bench = open(FILES);
    await bench.round(EVERYTHING);
    bench.tree.write({ "in/b.yaml": `# new\n${FILES["b.yaml"]}` });
    const outcome = await bench.round(YAML_DUE);
    expect(outcome).toMatchObject({ summary: "applied 2 documents", calls: [] });
    expect(outcome.handed).toStartWith("# new\n");
  });

  test("a new reference builds all programs: their image names may collide", async () => {
    using bench = open({ "a.yaml": FILES["a.yaml"] });
    await bench.round(EVERYTHING);
    bench.tree.write({ "in/b.yaml": FILES["b.yaml"] });
    expect(await bench.round(YAML_DUE)).toMatchObject({
      summary: "applied 2 documents",
      calls: ["build example.com/a example.com/b", "close"],
    });
  });

  test("YAML without references needs no pipeline", async () => {
    using bench = open({ "plain.yaml": configMap("plain") });
    expect(await bench.round(EVERYTHING)).toMatchObject({ summary: "applied 1 document", calls: [], places: {} });
  });

  test("near misses of references are told once, and again after they were gone", async () => {
    const [bad, plain] = ["image: KO://a/b\n", configMap("plain")];
    using bench = open({ "web.yaml": bad });
    const warnings: (readonly string[])[] = [];
    for (const text of [bad, `${bad}# more\n`, plain, bad]) {
      bench.tree.write({ "in/web.yaml": text });
      const outcome = await bench.round(warnings.length === 0 ? EVERYTHING : YAML_DUE);
      warnings.push(outcome.warnings);
    }
    const slip = 'in/web.yaml:1:8: "KO://a/b" is no image name, it looks like ko://a/b';
    expect(warnings).toEqual([[slip], [], ["no ko:// reference in in/web.yaml: nothing is built"], [slip]]);
  });

  test("objects of removed documents are noted once; a moved document is not removed", async () => {
    using bench = open(FILES);
    await bench.round(EVERYTHING);
    rmSync(bench.tree.at("in/b.yaml"));
    bench.tree.write({ "in/c.yaml": configMap("plain") });
    const note = 'ConfigMap "b" is no longer in in/b.yaml: it is left in the cluster';
    bench.refuse(new KoError("kubectl failed"));
    expect((await bench.round(YAML_DUE)).shown).toEqual([note]);
    bench.refuse(undefined);
    expect(await bench.round({ ...YAML_DUE, everything: true })).toMatchObject({
      shown: [[expect.objectContaining({ importPath: "example.com/a" })]],
      summary: "applied 1 document",
    });
  });

  test("printed documents leave no objects behind", async () => {
    using bench = open(FILES, { verb: "printed" });
    await bench.round(EVERYTHING);
    rmSync(bench.tree.at("in/b.yaml"));
    expect(await bench.round(YAML_DUE)).toMatchObject({ shown: [], summary: "nothing new" });
  });

  test("documents that were not taken are handed over again", async () => {
    using bench = open(FILES);
    const refusal = new KoError("kubectl failed", { transient: true });
    bench.refuse(refusal);
    const failed = await bench.round(EVERYTHING);
    expect(failed).toMatchObject({ error: refusal, summary: undefined });
    // The build succeeded: its programs are watched.
    expect([...(failed.places.programs?.keys() ?? [])]).toEqual(["example.com/a", "example.com/b"]);
    bench.refuse(undefined);
    expect(await bench.round(EVERYTHING)).toMatchObject({ summary: "applied 3 documents" });
  });

  test("broken YAML fails the round, and is read again in the next one", async () => {
    using bench = open({ "a.yaml": `a: [\nb: "ko://example.com/a"\n` });
    const failed = await bench.round(EVERYTHING);
    expect(describeError(failed.error)).toContain('Cannot read "in/a.yaml:');
    expect(failed.calls).toEqual([]);
    bench.tree.write({ "in/a.yaml": FILES["a.yaml"] });
    expect(await bench.round(dueFor())).toMatchObject({ summary: "applied 1 document" });
  });

  test("with strict a bad reference fails; without, it stays, with a warning", async () => {
    const files = { "a.yaml": configMap("a", "missing") };
    using strict = open(files);
    expect(describeError((await strict.round(EVERYTHING)).error)).toBe(
      "Error: in/a.yaml:3:22: ko://example.com/missing: missing",
    );
    using loose = open(files, { strict: false });
    const outcome = await loose.round(EVERYTHING);
    expect(outcome).toMatchObject({ summary: "applied 1 document", handed: files["a.yaml"] });
    // A program of that name may appear.
    expect(outcome.places).toHaveProperty("args");
  });

  test("images that are in no registry cannot be pulled: a manifest that wants it is a warning", async () => {
    const pod = (policy: string): string =>
      `apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - image: ko://example.com/a\n    imagePullPolicy: ${policy}\n`;
    using bench = open({ "a.yaml": pod("Always") });
    bench.module.sideLoads = true;
    expect((await bench.round(EVERYTHING)).warnings).toEqual([
      'in/a.yaml:7:22: "imagePullPolicy: Always" cannot find an image that is in no registry; use IfNotPresent',
    ]);
  });

  test("the commands for a debugger are shown once for each program", async () => {
    using bench = open(FILES, { place: ["--context=kind"] });
    bench.module.debug = { isContinuing: false, port: undefined };
    const { shown } = await bench.round(EVERYTHING);
    const commands = ["  kubectl port-forward --context=kind pod/POD 40000", "  dlv connect localhost:40000"];
    const linesFor = (name: string): readonly string[] => [
      `example.com/${name} waits for a debugger on port 40000:`,
      ...commands,
    ];
    expect(shown.slice(1)).toEqual([...linesFor("a"), ...linesFor("b")]);
    bench.module.add("b");
    expect((await bench.round(dueFor("example.com/b"))).shown).toHaveLength(1);
  });

  test("standard input is read once", async () => {
    let reads = 0;
    const readStdin: Host["readStdin"] = async () => {
      reads++;
      return new TextEncoder().encode(FILES["a.yaml"]);
    };
    using bench = open({}, { request: { files: ["-"], recursive: false, kustomize: undefined }, host: { readStdin } });
    await bench.round(EVERYTHING);
    bench.module.add("a");
    expect(await bench.round(EVERYTHING)).toMatchObject({ summary: "applied 1 document" });
    expect(reads).toBe(1);
  });
});

function split(text: string): readonly YamlDocument[] {
  return splitDocuments(new TextEncoder().encode(text), "in.yaml");
}

describe("formatRound()", () => {
  test.each<[string, string, { readonly first: string; readonly later: string }]>([
    ["a document", "a: 1\n", { first: "a: 1\n---\n", later: "a: 1\n---\n" }],
    ["no line end", "a: 1", { first: "a: 1\n---\n", later: "a: 1\n---\n" }],
    ["two documents", "a: 1\n---\nb: 2\n", { first: "a: 1\n---\nb: 2\n---\n", later: "a: 1\n---\nb: 2\n---\n" }],
    ["a first line of dashes", "---\na: 1\n", { first: "---\na: 1\n---\n", later: "a: 1\n---\n" }],
    [
      "a directive",
      "%YAML 1.2\n---\na: 1\n",
      { first: "%YAML 1.2\n---\na: 1\n---\n", later: "...\n%YAML 1.2\n---\na: 1\n---\n" },
    ],
  ])("%s", (_, text, { first, later }) => {
    expect(formatRound(split(text), true)).toBe(first);
    expect(formatRound(split(text), false)).toBe(later);
  });
});

function contextOf(host: Host, { isRetry = false } = {}): RoundContext {
  const unused = (): never => {
    throw new Error("not for receivers of documents");
  };
  return {
    ...{ host, log: silentLog, timing: noTiming, isRetry, resources: new AsyncDisposableStack() },
    get cache() {
      return unused();
    },
    ...{ watch: unused, showPrograms: unused, showNote: unused, showCause: () => {}, showLogs: async () => {} },
  };
}

function changesOf(text: string): readonly DocumentChange[] {
  return split(text).map((document) => ({ document, before: undefined }));
}

describe("createPrinter()", () => {
  test("prints all rounds as one YAML stream", async () => {
    const fake = fakeHost();
    const print = createPrinter();
    await print(changesOf("---\na: 1\n"), contextOf(fake.host));
    await print(changesOf("---\na: 2\n"), contextOf(fake.host));
    expect(fake.stdout()).toBe("---\na: 1\n---\na: 2\n---\n");
  });
});

describe("createFeeder()", () => {
  type Answer = { readonly code: number; readonly stdout?: string; readonly stderr?: string };

  interface Feeder {
    readonly fake: FakeHost;
    /** Feeds the document `a: N`. */
    readonly feed: (n: number, options?: { readonly isRetry: boolean }) => Promise<string | undefined>;
  }

  /** A feeder of kubectl on a host with these parts. */
  function feeder(command: "apply" | "create", host: Partial<Host>): Feeder {
    const fake = fakeHost({ findProgram: () => "/bin/kubectl", ...host });
    const invocation = parseCommandLine([command, "-f", "-", "-n", "web", "--", "--dry-run=client"]);
    if (invocation.command !== "apply" && invocation.command !== "create") throw new TypeError("not a feeder");
    const { flags, given, afterDashes } = invocation;
    const words = [...kubectlArguments(flags, given), ...afterDashes];
    const feed = createFeeder(fake.host, { command: invocation.command, words, log: silentLog });
    return { fake, feed: (n, options) => feed(changesOf(`a: ${n}\n`), contextOf(fake.host, options)) };
  }

  /** A kubectl that answers the document `a: N` by the N-th answer, from 1. */
  function kubectl(...answers: readonly Answer[]): ReturnType<typeof fakeRun> {
    return fakeRun((stdin) => answers[Number(/a: (\d+)/.exec(stdin)?.[1]) - 1] ?? { code: 0 });
  }

  test("runs one kubectl for each round, with the documents as its stdin", async () => {
    const { run, runs } = kubectl({ code: 0, stdout: "a configured\n", stderr: "a warning\n" });
    const { fake, feed } = feeder("apply", { run });
    await feed(1);
    const argv = ["/bin/kubectl", "apply", "-f", "-", "--namespace=web", "--dry-run=client"];
    expect(runs).toEqual([[...argv, "a: 1\n"]]);
    expect({ stdout: fake.stdout(), stderr: fake.stderr() }).toEqual({
      stdout: "a configured\n",
      stderr: "a warning\n",
    });
  });

  test.each([
    ["apply", true],
    ["create", false],
  ] as const)("a failed kubectl %s is transient: %s", async (command, transient) => {
    const { run } = kubectl({ code: 1 });
    const error = await rejectionOf(feeder(command, { run }).feed(1));
    expect(error).toEqual(new ClusterError(`kubectl ${command} failed with exit code 1`, { transient }));
  });

  test.each<[string, boolean]>([
    ['error: context "staging" does not exist\n', false],
    ["Error: unknown flag: --nope\nSee 'kubectl apply --help' for usage.\n", false],
    ["error: unknown shorthand flag: 'z' in -z\n", false],
    ['a warning\nerror: error validating "STDIN": error validating data: unknown field "spec.replica"\n', false],
    ["error: error parsing STDIN: error converting YAML to JSON: yaml: line 1: did not find\n", false],
    ['The Deployment "web" is invalid: spec.selector: Invalid value: field is immutable\n', false],
    ['Error from server (NotFound): error when creating "STDIN": namespaces "x" not found\n', true],
    ['error: no matches for kind "Widget" in version "example.com/v1"\n', true],
    ["The connection to the server 127.0.0.1:6443 was refused - did you specify the right host or port?\n", true],
    ['Error from server: admission webhook "x" denied the request: not yet\n', true],
  ])("of the complaint %j, transient is %s: what no time mends is not tried again", async (stderr, transient) => {
    const { run } = kubectl({ code: 1, stderr });
    const error = await rejectionOf(feeder("apply", { run }).feed(1));
    expect(error instanceof KoError && error.transient).toBe(transient);
  });

  test.each([
    ["apply", true],
    ["create", false],
  ] as const)("a killed kubectl %s is transient: %s", async (command, transient) => {
    const cause = new CommandError("Cannot run kubectl: ended by SIGKILL", {
      ...{ argv: ["kubectl"], code: undefined, signal: "SIGKILL", stderr: "" },
    });
    const error = await rejectionOf(feeder(command, { run: () => Promise.reject(cause) }).feed(1));
    expect(describeError(error)).toBe("Error: Cannot run kubectl: ended by SIGKILL");
    expect(error instanceof KoError && error.transient).toBe(transient);
  });

  test("a retry shows the output only if it is new, or kubectl succeeds", async () => {
    const away = { code: 1, stderr: "no such cluster\n" };
    const { run } = kubectl(away, { code: 1, stderr: "forbidden\n" }, { code: 0, stdout: "a created\n" });
    const { fake, feed } = feeder("apply", { run });
    await rejectionOf(feed(1));
    await rejectionOf(feed(1, { isRetry: true }));
    expect(fake.stderr()).toBe("no such cluster\n");
    await rejectionOf(feed(2, { isRetry: true }));
    expect(fake.stderr()).toBe("no such cluster\nforbidden\n");
    await feed(3, { isRetry: true });
    expect(fake.stdout()).toBe("a created\n");
  });

  test("a closed stdout is no failure of kubectl", async () => {
    const gone = new FatalError(new KoError("Cannot write to standard output"));
    const { run } = kubectl({ code: 0, stdout: "a created\n" });
    const { feed } = feeder("apply", { run, out: () => Promise.reject(gone) });
    expect(await rejectionOf(feed(1))).toBe(gone);
  });
});
