/**
 * A run with nothing changed: which programs it starts, and which files it opens. Seen from outside, with strace.
 */
import { afterEach, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { mainGo } from "./helpers/go.ts";
import { MODULES, openScene, type Scene, type SceneOptions } from "./helpers/world-bench.ts";
import type { Files } from "./helpers/world-folders.ts";
import { ourCommand, output, type Result, runToEnd } from "./helpers/world-programs.ts";

/** Milliseconds after which a change is far enough in the past that no file has to be read to prove it. */
const PAST_MS = 2100;

let scene: Scene | undefined;

afterEach(() => {
  scene?.[Symbol.dispose]();
  scene = undefined;
});

interface Seen extends Result {
  /** Command lines. */
  readonly programs: readonly string[];
}

/** Builds, and then once more under observation. */
async function observe(options: SceneOptions & { readonly files?: Files } = {}): Promise<Seen> {
  scene = await openScene({ ...MODULES, ...options.files }, options);
  const { env, tree, work } = scene;
  const argv = [...ourCommand(), ...scene.args];
  const run = (words: readonly string[]): Promise<Result> => runToEnd(words, { cwd: tree.at("app"), env });
  await Bun.sleep(PAST_MS);
  const first = await run(argv);
  if (first.code !== 0) throw new Error(first.stderr);
  const calls = ["-e", "trace=open,openat,execve", "-s", "200", "-o", work.at("trace")];
  const result = await run(["strace", "-f", "-qq", ...calls, ...argv]);
  expect(result).toEqual(first);
  const programs = Array.from(
    readFileSync(work.at("trace"), "utf8").matchAll(/ execve\("[^"]*\/(go|git)", \[([^\]]*)\]/g),
    ([, name, words = ""]) =>
      [name, ...Array.from(words.matchAll(/"([^"]*)"/g), ([, word]) => word).slice(1)].join(" "),
  );
  return { ...result, programs: [...new Set(programs)] };
}

const APP = ["build", "-q", "--push=false", "-B"];

describe.skipIf(Bun.which("strace") === null)("a run with nothing changed starts", () => {
  test.each<[string, readonly string[], SceneOptions & { readonly files?: Files }]>([
    ["nothing", [], {}],
    [
      "nothing, for several programs and platforms",
      [],
      {
        files: { "app/cmd/more/main.go": mainGo() },
        args: [...APP, "--platform=linux/amd64,linux/arm64", "./..."],
      },
    ],
    ["git once, in a work tree", ["git status --porcelain=v2 --branch"], { git: true }],
    [
      "git once, for several programs",
      ["git status --porcelain=v2 --branch"],
      {
        git: true,
        files: { "app/cmd/more/main.go": mainGo() },
        args: [...APP, "./cmd/app", "./cmd/more"],
      },
    ],
    ["nothing, in a work tree of which Go stamps nothing", [], { git: true, env: { GOFLAGS: "-buildvcs=false" } }],
  ])("%s", async (_name, programs, options) => {
    expect((await observe(options)).programs).toEqual([...programs]);
  });
});

test.skipIf(Bun.which("strace") === null)("a run with nothing changed opens no source and no content", async () => {
  await observe();
  if (scene === undefined) throw new Error("no scene");
  const { cache, tree } = scene;
  const goroot = (await output(["go", "env", "GOROOT"], { cwd: "/", env: process.env })).trim();
  const opened = new Set<string>();
  for (const line of readFileSync(scene.work.at("trace"), "utf8").split("\n")) {
    const path = /open(?:at)?\(.*?"([^"]+)"/.exec(line)?.[1] ?? "";
    if (path.startsWith(tree.path)) opened.add(path.slice(tree.path.length + 1));
    else if (path.startsWith(goroot)) opened.add("GOROOT");
    else if (path.startsWith(cache))
      opened.add(
        path
          .slice(cache.length + 1)
          .replaceAll(/[0-9a-f]{40,}/g, "KEY")
          .replace(/run-.*/, "run"),
      );
  }
  const isRuntimes = (path: string): boolean =>
    ["", "app", "app/bunfig.toml"].includes(path) || path.startsWith("v1/work");
  expect([...opened].filter((path) => !isRuntimes(path)).sort()).toEqual([
    // What is in it is packed, whatever its names are.
    "app/cmd/app/kodata",
    "v1/records/build-KEY.json",
    // The settings of its last image, for the reason of another one.
    "v1/records/image-KEY.json",
    "v1/records/layer-KEY.json",
    "v1/records/programs-KEY.json",
    "v1/records/shared-KEY.json",
  ]);
});
