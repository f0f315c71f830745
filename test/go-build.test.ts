import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { relative } from "node:path";
import { executableName, goBuild, type GoBuildEvent, type GoBuildOptions, planGoBuild } from "../lib/go-build.ts";
import { concernsCgo, explainCgo } from "../lib/go-cgo.ts";
import { buildArguments, type BuildFlags } from "../lib/go-setup.ts";
import { buildEnvironment } from "../lib/go.ts";
import type { Platform } from "../lib/oci.ts";
import { type Failure, failuresOf } from "./helpers/failures.ts";
import { countingGo, goMod, type GoWorld, goWorld, listPrograms, mainGo } from "./helpers/go.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";

const LINUX = { os: "linux", architecture: "amd64" };
const WINDOWS = { os: "windows", architecture: "amd64" };

type CompileOptions = Partial<GoBuildOptions & BuildFlags & { platform: Platform }>;

/** Lists, then compiles, as `ko build` does. */
async function compile(
  args: readonly string[],
  { world, tree, ...more }: { world: GoWorld; tree: Tree } & CompileOptions,
): Promise<ReadonlyMap<string, string>> {
  const platform = more.platform ?? LINUX;
  const { programs, packages } = await listPrograms(args, { ...world, platform });
  const plan = planGoBuild(programs, {
    platform,
    env: buildEnvironment(platform, world.host.env),
    outDir: tree.at("out"),
  });
  const flags = buildArguments({ flags: [], ldflags: [], ...more });
  const built = new Map<string, string>();
  try {
    for await (const event of goBuild(plan, { ...world, ...more, args: flags })) {
      if (event.kind === "built") built.set(event.program.importPath, event.path);
    }
  } catch (error) {
    if (!concernsCgo(error)) throw error;
    throw await explainCgo(error, { platform, packages: [...packages.values()].flat() });
  }
  return new Map(programs.map(({ importPath }) => [importPath, built.get(importPath) ?? ""]));
}

function buildInfo(path: string): string {
  const { stdout } = Bun.spawnSync(["go", "version", "-m", path]);
  return stdout.toString().split("\n").slice(1).join("\n");
}

describe("goBuild()", () => {
  test("makes the bytes that the original's command makes, with one go list and one go build for three", async () => {
    using tree = writeTree({
      "go.mod": goMod("example.com/app"),
      "a/main.go": mainGo("a"),
      "b/main.go": mainGo("b"),
      "c/main.go": mainGo("c"),
    });
    tree.write({ "bin/go": countingGo(tree.at("log")) });
    const world = { ...goWorld(tree.path), go: "./bin/go" };
    const made = await compile(["./a", "./b", "./c"], { world, tree, jobs: 1 });
    expect(readFileSync(tree.at("log"), "utf8")).toBe("list\nbuild\n");
    expect([...made].map(([importPath, path]) => [importPath, relative(tree.path, path)])).toEqual([
      ["example.com/app/a", "out/1/a"],
      ["example.com/app/b", "out/1/b"],
      ["example.com/app/c", "out/1/c"],
    ]);
    for (const [importPath, path] of made) {
      const want = tree.at("want");
      Bun.spawnSync(["go", "build", "-trimpath", "-o", want, importPath], {
        cwd: tree.path,
        env: { ...world.host.env, CGO_ENABLED: "0", GOOS: "linux", GOARCH: "amd64" },
      });
      expect(Bun.hash(readFileSync(path))).toBe(Bun.hash(readFileSync(want)));
      expect(buildInfo(path)).toBe(buildInfo(want));
    }
  });

  test.each([
    [
      "ldflags, tags",
      LINUX,
      {},
      { flags: ["-tags=x"], ldflags: ["-s", "-X main.v=1"] },
      ["-tags=x", "-trimpath", "-ldflags=-s -X main.v=1"],
    ],
    ["paths kept", LINUX, {}, { trimpath: false }, []],
    ["no optimizations", LINUX, {}, { disableOptimizations: true }, ["-trimpath", "-gcflags", "all=-N -l"]],
    ["a GOAMD64 of the user's", LINUX, { GOAMD64: "v3" }, {}, ["-trimpath"]],
    ["an arm variant", { os: "linux", architecture: "arm", variant: "v6" }, { GOARM: "6" }, {}, ["-trimpath"]],
  ])("makes the original's bytes with %s", async (_name, platform, env, options, flags) => {
    using tree = writeTree({
      "go.mod": goMod("example.com/app"),
      "main.go": "package main\n\nvar v string\n\nfunc main() { println(v) }\n",
    });
    const user = platform.architecture === "arm" ? {} : env; // There our GOARM is on trial.
    const made = await compile(["."], { world: goWorld(tree.path, user), tree, platform, ...options });
    const want = tree.at("want");
    Bun.spawnSync(["go", "build", ...flags, "-o", want, "example.com/app"], {
      cwd: tree.path,
      env: { ...goWorld(tree.path).host.env, CGO_ENABLED: "0", GOOS: "linux", GOARCH: platform.architecture, ...env },
    });
    expect(buildInfo(made.get("example.com/app") ?? "")).toBe(buildInfo(want));
    expect(Bun.hash(readFileSync(made.get("example.com/app") ?? ""))).toBe(Bun.hash(readFileSync(want)));
  });

  test("keeps programs apart whose files have one name, and finds those of windows and of /v2", async () => {
    using tree = writeTree({
      "go.mod": goMod("example.com/app"),
      "x/run/main.go": mainGo("x"),
      "y/run/main.go": mainGo("y"),
      "y/run/v2/main.go": mainGo("v2"),
      "z/Run/main.go": mainGo("z"),
      "other/main.go": mainGo("other"),
    });
    const world = goWorld(tree.path);
    const made = await compile(["./..."], { world, tree, platform: WINDOWS });
    expect([...made].map(([importPath, path]) => [importPath, relative(tree.path, path)])).toEqual([
      ["example.com/app/other", "out/1/other.exe"],
      ["example.com/app/x/run", "out/1/run.exe"],
      ["example.com/app/y/run", "out/2/run.exe"],
      ["example.com/app/y/run/v2", "out/3/run.exe"],
      ["example.com/app/z/Run", "out/4/Run.exe"],
    ]);
    for (const [importPath, path] of made) expect(buildInfo(path)).toContain(`\tpath\t${importPath}\n`);
  });

  test("runs go in the module that owns a program", async () => {
    using tree = writeTree({
      "go.mod": goMod("example.com/app"),
      "main.go": mainGo(),
      "nested/go.mod": goMod("example.com/nested"),
      "nested/main.go": mainGo(),
    });
    const made = await compile([".", "./nested"], { world: goWorld(tree.path), tree });
    expect([...made.keys()]).toEqual(["example.com/app", "example.com/nested"]);
    for (const path of made.values()) expect(existsSync(path)).toBe(true);
  });

  test("builds without modules, inside of GOPATH and beside it", async () => {
    using tree = writeTree({ "path/src/example.com/x/v2/main.go": mainGo(), "beside/main.go": mainGo() });
    const world = goWorld(tree.path, { GO111MODULE: "off", GOPATH: tree.at("path") });
    const made = await compile(["example.com/x/v2", "./beside"], { world, tree });
    expect([...made.values()].map((path) => relative(tree.path, path))).toEqual(["out/1/v2", "out/1/beside"]);
  });

  test("hands on what the compiler says, whole and once", async () => {
    using tree = writeTree({
      "go.mod": goMod("example.com/app"),
      "good/main.go": mainGo(),
      "syntax/main.go": "package main\n\nfunc main() {\n\tx := \n}\n",
      "types/main.go": 'package main\n\nfunc main() {\n\tvar x int = "\u001b[31m"\n}\n',
    });
    const world = goWorld(tree.path);
    const [failure, ...others] = await failuresOf(compile(["./..."], { world, tree }), tree.path);
    expect(others).toEqual([]);
    expect(failure?.hint).toBeUndefined();
    const [first, ...lines] = failure?.message.split("\n") ?? [];
    expect(first).toBe("Cannot build 3 programs for linux/amd64: go build failed (exit code 1)");
    // Two compilers at once: either may be first.
    expect(lines.toSorted()).toEqual([
      "# example.com/app/syntax",
      "# example.com/app/types",
      "syntax/main.go:5:1: syntax error: unexpected }, expected expression",
      'types/main.go:4:14: cannot use "\\x1b[31m" (untyped string constant "\\x1b[31m") as int value in variable declaration',
      "types/main.go:4:6: declared and not used: x",
    ]);
    expect(world.written).toEqual([]);
  });

  test("says so when files that need cgo were left out", async () => {
    using tree = writeTree({
      "go.mod": goMod("example.com/app"),
      "main.go": 'package main\n\nimport "example.com/app/lib"\n\nfunc main() { lib.Fast() }\n',
      "lib/fast.go": 'package lib\n\nimport "C"\n\nfunc Fast() {}\n',
      "lib/slow.go": "package lib\n\nfunc Slow() {}\n",
    });
    const work = compile(["."], { world: goWorld(tree.path), tree });
    expect(await failuresOf(work, tree.path)).toEqual([
      {
        message:
          'Cannot build "example.com/app" for linux/amd64: go build failed (exit code 1)\n# example.com/app\n./main.go:5:19: undefined: lib.Fast',
        hint: '$DIR/lib/fast.go was left out: it needs cgo (import "C"). Set CGO_ENABLED=1 and CC to a C compiler for linux/amd64, and use a base image with its C library.',
      },
    ]);
  });

  test("shows what go says of a build that went well, as go wrote it", async () => {
    using tree = writeTree({
      "go.mod": goMod("example.com/app"),
      "main.go": mainGo(),
      go: {
        executable:
          '#!/bin/sh\nif [ "$1" = build ]; then printf "go: downloading x v1\\n# app\\nld: warning: odd\\n" >&2; fi\nexec go "$@"\n',
      },
    });
    const world = { ...goWorld(tree.path), go: "./go" };
    await compile(["."], { world, tree });
    expect([world.told, world.written]).toEqual([["go: downloading x v1"], ["# app\nld: warning: odd\n"]]);
  });

  /** What a build fails with that runs `script` in place of `go build`. */
  async function failKilled(script: string, options: CompileOptions = {}): Promise<readonly Failure[]> {
    using tree = writeTree({
      "go.mod": goMod("example.com/app"),
      "main.go": mainGo(),
      go: { executable: `#!/bin/sh\nif [ "$1" = build ]; then\n${script}\nfi\nexec go "$@"\n` },
      // Takes the place of the linker, at its work: killed as the kernel does it.
      link: { executable: '#!/bin/sh\ncase "$1 $2" in */link\\ -V*) ;; */link\\ *) kill -9 $$ ;; esac\nexec "$@"\n' },
    });
    return await failuresOf(
      compile(["."], { world: { ...goWorld(tree.path), go: "./go" }, tree, ...options }),
      tree.path,
    );
  }

  // As the real go says it: the next test. Shells say "Killed", which go does not.
  const SAID = "example.com/app/x: /usr/local/go/pkg/tool/linux_amd64/compile: signal: killed";
  const KILL_COMPILER = `{ sh -c 'kill -9 $$'; } 2>/dev/null\necho "${SAID}" >&2\nexit 1`;
  const COMPILER_SAID = `(exit code 1)\n${SAID}`;

  test.each<[string, string, readonly (number | undefined)[], string]>([
    ["go", "kill -9 $$", [4, 4], "probably out of memory: go was killed (SIGKILL)"],
    ["go, as the kernel counts", "kill -9 $$", [4, 5], "out of memory: the kernel killed go (SIGKILL)"],
    [
      "go behind a shell",
      "{ sh -c 'kill -9 $$'; } 2>/dev/null\nexit $?",
      [4, 4],
      "probably out of memory: go was killed (exit code 137)",
    ],
    ["a compiler", KILL_COMPILER, [0, 0], `probably out of memory: a compiler was killed ${COMPILER_SAID}`],
    [
      "a compiler, as the kernel counts",
      KILL_COMPILER,
      [0, 2],
      `out of memory: the kernel killed a compiler ${COMPILER_SAID}`,
    ],
    [
      "a compiler, and nobody counts",
      KILL_COMPILER,
      [undefined, undefined],
      `probably out of memory: a compiler was killed ${COMPILER_SAID}`,
    ],
    [
      "a compiler, counted afterwards only",
      KILL_COMPILER,
      [undefined, 7],
      `probably out of memory: a compiler was killed ${COMPILER_SAID}`,
    ],
  ])("says out of memory when %s was killed", async (_name, script, counts, why) => {
    const left = [...counts];
    expect(await failKilled(script, { countOomKills: () => left.shift(), totalJobs: 8 })).toEqual([
      {
        message: `Cannot build "example.com/app" for linux/amd64: ${why}`,
        hint: "Try --jobs=4: up to 8 compilers and linkers ran at once.",
      },
    ]);
    expect(left).toEqual([]);
  });

  test("says so when the real go tells of a killed linker", async () => {
    const [failure] = await failKilled('shift\nexec go build -toolexec "$PWD/link" "$@"', { jobs: 1 });
    expect(failure?.message).toMatch(
      /^Cannot build "example\.com\/app" for linux\/amd64: probably out of memory: the linker was killed \(exit code 1\)\nexample\.com\/app: .*\/link: signal: killed$/,
    );
    expect(failure?.hint).toBe(
      "Give it more memory: no two compilers ran at once, and the linker of a large program takes 1.6 GB.",
    );
  });

  test.each<[CompileOptions, string]>([
    [{ totalJobs: 2 }, "Try --jobs=1: up to 2 "],
    [{ totalJobs: 7, jobs: 3 }, "Try --jobs=3: up to 7 "],
    [{ jobs: 5 }, "Try --jobs=2: up to 5 "],
    [{ totalJobs: 1 }, "Give it more memory: "],
  ])("names a number of --jobs below the one in use: %j", async (options, want) => {
    const [failure] = await failKilled("kill -9 $$", options);
    expect(failure?.hint).toStartWith(want);
  });

  test("does not speak of memory when a build fails by itself while the kernel kills others", async () => {
    let count = 0;
    const [failure] = await failKilled('echo "main.go:1:1: no" >&2\nexit 1', { countOomKills: () => count++ });
    expect(failure).toEqual({
      message: 'Cannot build "example.com/app" for linux/amd64: go build failed (exit code 1)\nmain.go:1:1: no',
      hint: undefined,
    });
  });

  test("reports that go was started, and each binary once", async () => {
    using tree = writeTree({ "go.mod": goMod("example.com/app"), "a/main.go": mainGo("a"), "b/main.go": mainGo("b") });
    const world = goWorld(tree.path);
    const { programs } = await listPrograms(["./..."], { ...world, platform: LINUX });
    const plan = planGoBuild(programs, {
      platform: LINUX,
      env: buildEnvironment(LINUX, world.host.env),
      outDir: tree.at("out"),
    });
    const seen: GoBuildEvent[] = [];
    for await (const event of goBuild(plan, { ...world, args: [] })) seen.push(event);
    expect(seen.map(({ kind }) => kind)).toEqual(["started", "built", "built"]);
    const again: GoBuildEvent[] = [];
    for await (const event of goBuild(plan, { ...world, args: [] })) again.push(event);
    expect(again.flatMap((event) => (event.kind === "built" ? event.isNew : []))).toEqual([false, false]);
  });

  test("does not take a build for done that left no file", async () => {
    using tree = writeTree({
      "go.mod": goMod("example.com/app"),
      "main.go": mainGo(),
      go: { executable: '#!/bin/sh\nif [ "$1" = build ]; then exit 0; fi\nexec go "$@"\n' },
    });
    const work = compile(["."], { world: { ...goWorld(tree.path), go: "./go" }, tree });
    expect(await failuresOf(work, tree.path)).toEqual([
      {
        message: 'Cannot build "example.com/app": go build ended well, but there is no file $DIR/out/1/app',
        hint: undefined,
      },
    ]);
  });
});

describe("executableName()", () => {
  test.each([
    ["example.com/app", {}, "app"],
    ["example.com/app/v2", {}, "app"],
    ["example.com/app/v10", {}, "app"],
    ["example.com/app/v1", {}, "v1"],
    ["example.com/app/v02", {}, "v02"],
    ["example.com/app/v2x", {}, "v2x"],
    ["v2", {}, "v2"],
    ["app", {}, "app"],
    ["example.com/app/v2", { GO111MODULE: "off" }, "v2"],
    ["example.com/app/v2", { GOOS: "windows" }, "app.exe"],
    ["gopkg.in/app.v2", {}, "app.v2"],
  ])("of %s with %j is %s", (importPath, env, want) => {
    expect(executableName(importPath, env)).toBe(want);
  });
});
