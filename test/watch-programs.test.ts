/** The job of `ko build --watch`, round by round, with a module and pipelines that the test makes up. */
import { describe, expect, test } from "bun:test";
import { readBuildOptions } from "../lib/cli-options.ts";
import { parseCommandLine } from "../lib/cli-parse.ts";
import { KoError, UsageError } from "../lib/errors.ts";
import { BuildJob } from "../lib/watch-programs.ts";
import { type Due, FatalError } from "../lib/watch.ts";
import {
  dueFor,
  EVERYTHING,
  type FakeHost,
  fakeHost,
  FakeModule,
  fakeProgram,
  type RoundOutcome,
  runRound,
} from "./helpers/world-watch.ts";

const [A, B] = [fakeProgram("a"), fakeProgram("b")];

interface Bench {
  readonly module: FakeModule;
  readonly fake: FakeHost;
  /** Runs a round, and returns its own calls and output. */
  readonly round: (due: Due) => Promise<RoundOutcome & { readonly calls: readonly string[]; readonly printed: string }>;
}

function open(flags: readonly string[] = ["--push=false"], args: readonly string[] = ["./a", "./b"]): Bench {
  const module = new FakeModule("a", "b");
  const fake = fakeHost();
  const invocation = parseCommandLine(["build", ...flags]);
  if (invocation.command !== "build") throw new TypeError("not a build");
  const build = readBuildOptions(invocation.flags, invocation.given);
  const job = new BuildJob({ args, build, openPipeline: async () => module.open() });
  let printed = "";
  return {
    module,
    fake,
    round: async (due) => {
      module.calls.length = 0;
      const outcome = await runRound(job, { host: fake.host, due });
      const all = fake.stdout();
      const now = all.slice(printed.length);
      printed = all;
      return { ...outcome, calls: [...module.calls], printed: now };
    },
  };
}

/** The folders with sources of each program, without the leading `/w/`. */
function folders({ places }: RoundOutcome): Readonly<Record<string, readonly string[]>> {
  const programs = Array.from(places.programs ?? [], ([importPath, found]) => {
    return [importPath, found.folders.map(({ dir }) => dir.replace("/w/", ""))] as const;
  });
  return Object.fromEntries(programs);
}

describe("BuildJob", () => {
  test("the first round publishes and prints all programs", async () => {
    const { module, round } = open();
    const outcome = await round(EVERYTHING);
    expect(outcome).toMatchObject({
      error: undefined,
      summary: "printed 2 references",
      printed: "r.example/example.com/a:v1\nr.example/example.com/b:v1\n",
      calls: ["build example.com/a example.com/b", "close"],
      shown: [
        [
          { importPath: "example.com/a", before: undefined, after: module.reference(A) },
          { importPath: "example.com/b", before: undefined, after: module.reference(B) },
        ],
      ],
    });
    expect(folders(outcome)).toEqual({ "example.com/a": ["a", "a/lib"], "example.com/b": ["b", "b/lib"] });
  });

  test("the configuration, the arguments and the found programs are watched while they are built", async () => {
    const { round } = open();
    const { watched } = await round(EVERYTHING);
    expect(watched.map((places) => Object.keys(places).sort())).toEqual([
      ["args", "config"],
      ["args", "programs"],
    ]);
    expect(watched[0]?.config?.files).toContain("/w/.ko.yaml");
    expect([...(watched[1]?.programs?.keys() ?? [])]).toEqual(["example.com/a", "example.com/b"]);
  });

  test("a later round publishes the affected programs, and prints references that changed", async () => {
    const { module, round } = open();
    await round(EVERYTHING);
    module.add("a");
    expect(await round(dueFor("example.com/a"))).toMatchObject({
      summary: "printed 1 reference",
      printed: "r.example/example.com/a:v2\n",
      calls: ["build example.com/a", "close"],
      shown: [
        [{ importPath: "example.com/a", before: "r.example/example.com/a:v1", after: "r.example/example.com/a:v2" }],
      ],
    });
    expect(await round(dueFor("example.com/b"))).toMatchObject({ summary: "nothing new", printed: "" });
  });

  test("the commands for a debugger are shown once for each program", async () => {
    const { module, round } = open(["--push=false", "--debug"], ["./a"]);
    module.debug = { isContinuing: true, port: 1 };
    const { shown } = await round(EVERYTHING);
    expect(shown.slice(1)).toEqual([
      "example.com/a runs, and takes a debugger on port 1:",
      "  kubectl port-forward pod/POD 1",
      "  dlv connect localhost:1",
    ]);
    module.add("a");
    expect((await round(dueFor("example.com/a"))).shown).toHaveLength(1);
  });

  test("a round without a program to publish has nothing to say", async () => {
    const { module, round } = open();
    await round(EVERYTHING);
    expect(await round({ ...EVERYTHING, everything: false, args: true })).toMatchObject({ summary: "", shown: [] });
    expect(module.calls).toEqual(["build", "close"]);
  });

  test("a new program is published, and one that is gone is forgotten", async () => {
    const { module, round } = open(["--push=false"], ["./..."]);
    const name = (...programs: readonly (typeof A)[]): void => void module.results.set("./...", programs);
    name(A);
    await round(EVERYTHING);
    name(A, B);
    const args: Due = { ...EVERYTHING, everything: false, args: true };
    expect(await round(args)).toMatchObject({ calls: ["build example.com/b", "close"] });
    name(A);
    const without = await round(args);
    expect(Object.keys(folders(without))).toEqual(["example.com/a"]);
    name(A, B);
    expect(await round(args)).toMatchObject({
      shown: [[{ importPath: "example.com/b", before: undefined, after: module.reference(B) }]],
    });
  });

  test("a file that lists all images wants all programs in each round", async () => {
    const { round } = open(["--push=false", "--image-refs=/tmp/ko-test-refs"]);
    await round(EVERYTHING);
    expect(await round(dueFor("example.com/a"))).toMatchObject({
      calls: ["build example.com/a example.com/b", "close"],
      summary: "nothing new",
    });
  });

  test("programs that the cache knows are listed after the round, and only once", async () => {
    const { module, round } = open();
    module.isListed = false;
    const first = await round(EVERYTHING);
    expect(first.calls).toEqual(["build example.com/a example.com/b", "list example.com/a example.com/b", "close"]);
    expect(folders(first)["example.com/a"]).toEqual(["a", "a/lib"]);
    // The build itself lists them next time: its list is the one that the places come from.
    module.isListed = true;
    expect((await round(dueFor("example.com/a"))).calls).toEqual(["build example.com/a", "close"]);
  });

  test("places that come from an old list are found anew", async () => {
    const { module, round } = open();
    await round(EVERYTHING);
    module.isListed = false;
    module.add("a");
    expect((await round(dueFor("example.com/a"))).calls).toEqual([
      "build example.com/a",
      "list example.com/a",
      "close",
    ]);
  });

  test("after a failed build the places of its programs are watched", async () => {
    const { module, round } = open();
    const failure = new KoError("a.go does not compile");
    module.failure = failure;
    const outcome = await round(EVERYTHING);
    expect(outcome).toMatchObject({ error: failure, summary: undefined, printed: "", shown: [] });
    expect(Object.keys(folders(outcome))).toEqual(["example.com/a", "example.com/b"]);
    module.failure = undefined;
    expect(await round(EVERYTHING)).toMatchObject({ summary: "printed 2 references" });
  });

  test("while the arguments name no program, the places where one could appear are watched", async () => {
    const { module, round } = open(["--push=false"], ["./late"]);
    const failed = await round(EVERYTHING);
    expect(failed.error).toBeInstanceOf(KoError);
    expect(failed.calls).toEqual(["close"]);
    expect(failed.places.args?.folders).toContainEqual({ dir: "/w/late", kind: "sources" });
    module.add("late");
    const mended = await round({ ...EVERYTHING, args: true });
    expect(mended.summary).toBe("printed 1 reference");
    expect(mended.places.args?.folders).toEqual([]);
  });

  test("without a place to publish to the watch ends", async () => {
    const { error } = await open([]).round(EVERYTHING);
    expect(error).toBeInstanceOf(FatalError);
    expect(error instanceof FatalError ? error.cause : undefined).toBeInstanceOf(UsageError);
  });
});
