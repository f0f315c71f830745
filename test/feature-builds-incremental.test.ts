/**
 * `builds:` of .ko.yaml over several runs with one cache: which programs are compiled again, by how many go, and why. Each
 * image is that of a build without the cache.
 */
import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { goMod } from "./helpers/go.ts";
import { makeScene, openScene, type Outcome, type RunOptions, type Scene, SETTLED_MS } from "./helpers/world-bench.ts";
import type { Files } from "./helpers/world-folders.ts";

const program = (name: string): string =>
  `package main\n\nvar version = "none"\n\nfunc main() { println("${name}", version) }\n`;

const NAMES = ["one", "two", "three", "four"];

const APP: Files = {
  "app/go.mod": goMod("example.com/app"),
  ...Object.fromEntries(NAMES.map((name) => [`app/cmd/${name}/main.go`, program(name)])),
  "app/cmd/tagged/main.go": `//go:build special\n\n${program("tagged")}`,
  "app/cmd/windows/main_windows.go": program("windows"),
  "app/lib/lib.go": "package lib\n",
  "app/tool/go.mod": goMod("example.com/tool"),
  "app/tool/cmd/x/main.go": program("x"),
};

const ALL = NAMES.map((name) => `./cmd/${name}`);

let scene: Scene | undefined;

afterEach(() => {
  scene?.[Symbol.dispose]();
  scene = undefined;
});

async function open(builds: string, files: Files = APP): Promise<Scene> {
  scene = makeScene(files, { args: buildOf(...ALL), env: { GOFLAGS: "-buildvcs=false" } });
  configure(scene, builds);
  await Bun.sleep(SETTLED_MS);
  return scene;
}

function buildOf(...args: readonly string[]): readonly string[] {
  return ["build", "-q", "--push=false", "-B", "--explain", ...args];
}

function configure({ work }: Scene, builds: string): void {
  work.write({ "config/.ko.yaml": `defaultBaseImage: scratch\n${builds}` });
}

/** Runs ko, and compares with a run without a cache. */
async function run(of: Scene, options: RunOptions = {}): Promise<Outcome> {
  const outcome = await of.run(options);
  const right = await of.reference(options);
  expect({ code: outcome.code, images: outcome.images }).toEqual({ code: right.code, images: right.images });
  return outcome;
}

/** The last element of each program that was compiled, and why. */
function rebuilt({ stderr }: Outcome): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Array.from(stderr.matchAll(/^\S*\/(\S+) \([^)]*\): rebuilt, (.*)$/gm), ([, name = "", why = ""]) => [name, why]),
  );
}

/** How many `go list` and `go build` ran. */
function calls({ go }: Outcome): readonly [lists: number, builds: number] {
  return [go.filter((name) => name === "list").length, go.filter((name) => name === "build").length];
}

const ENTRIES = (lines: (name: string) => string): string =>
  `builds:\n${NAMES.map((name) => `- id: ${name}\n  main: ./cmd/${name}\n  ${lines(name).replaceAll("\n", "\n  ")}\n`).join("")}`;

describe("go runs", () => {
  test("once for programs with one environment and one set of flags", async () => {
    const of = await open(ENTRIES(() => "env: [CGO_ENABLED=0]\nldflags: [-s, -w]"));
    const first = await of.run();
    expect([first.code, calls(first)]).toEqual([0, [1, 1]]);
    expect((await run(of)).go).toEqual([]);
  });

  test("once for entries with a folder of one module each, and for programs without an entry", async () => {
    const of = await open("builds:\n- dir: cmd/one\n- dir: ./cmd/two\n  main: main.go\n- dir: cmd\n  main: ./three\n");
    const first = await of.run();
    expect([first.code, calls(first)]).toEqual([0, [1, 1]]);
  });

  test("once for each set of flags, and lists all of them together", async () => {
    const of = await open(ENTRIES((name) => `ldflags: -X main.version=${name < "t" ? "a" : "b"}`));
    const first = await of.run();
    expect([first.code, calls(first)]).toEqual([0, [1, 2]]);
  });

  test("in an entry's own folder where a flag may have a path", async () => {
    const of = await open("builds:\n- dir: cmd/one\n  flags: [-overlay=overlay.json]\n", {
      ...APP,
      "app/cmd/one/overlay.json": '{"Replace": {}}',
    });
    expect(await run(of, { args: buildOf("./cmd/one") })).toMatchObject({ code: 0 });
  });

  test("with the tags of an entry, for an argument and for a pattern", async () => {
    const tool = "- dir: tool\n  main: ./cmd/x\n  flags: [-tags=other]\n";
    const of = await open(`builds:\n- main: ./cmd/tagged\n  flags: [-tags, special]\n${tool}`);
    // A pattern does not match programs of a module inside.
    expect((await of.run({ args: buildOf("./...") })).images).not.toContain("/x:");
    for (const arg of ["./cmd/tagged", "example.com/app/cmd/tagged", "./...", "./cmd/...", "example.com/app/..."]) {
      expect((await run(of, { args: buildOf(arg) })).images).toContain("/tagged:latest@sha256:");
    }
    configure(of, "");
    expect((await of.run({ args: buildOf("./cmd/tagged") })).stderr).toContain("build constraints exclude all");
    expect((await run(of, { args: buildOf("./...") })).images).not.toContain("tagged");
  });

  test("for the target platform", async () => {
    const of = await open("");
    const outcome = await of.run({ args: buildOf("./cmd/windows", "--platform=windows/amd64") });
    expect(outcome.code).toBe(1);
    // The base has no such platform: the program itself was found.
    expect(outcome.stderr).toContain("windows/amd64");
    expect(outcome.stderr).not.toContain("build constraints");
  });

  test("ten times of ten in a program's own module, whatever folders other entries have", async () => {
    const of = await open("builds:\n- dir: ./tool\n  main: ./cmd/x\n  ldflags: -s\n");
    for (let i = 0; i < 10; i++) {
      const { code, images } = await of.reference({ args: buildOf("./cmd/one", "./tool/cmd/x") });
      expect([code, images.split("\n").length]).toEqual([0, 3]);
    }
    const byPath = await run(of, { args: buildOf("ko://example.com/tool/cmd/x", "example.com/app/cmd/one") });
    expect(byPath.code).toBe(0);
  });
});

describe("a run compiles again", () => {
  const TEMPLATES = ENTRIES((name) => `ldflags: -X main.version={{ or (index .Env "V_${name.toUpperCase()}") "dev" }}`);

  test("only the program whose entry changed", async () => {
    const of = await open(ENTRIES((name) => `ldflags: -X main.version=${name}`));
    await run(of);
    await Bun.sleep(SETTLED_MS);
    configure(
      of,
      ENTRIES((name) => `ldflags: -X main.version=${name === "two" ? "new" : name}`),
    );
    expect(rebuilt(await run(of))).toEqual({ two: "the flags of go build changed" });
    configure(
      of,
      ENTRIES(
        (name) =>
          `ldflags: -X main.version=${name === "two" ? "new" : name}\nenv: [${name === "one" ? "GODEBUG=x=1" : "CGO_ENABLED=0"}]`,
      ),
    );
    expect(rebuilt(await run(of))).toEqual({
      one: "GODEBUG is set now",
    });
    expect((await run(of)).go).toEqual([]);
  });

  test("nothing for another id, another order, a comment", async () => {
    const of = await open(ENTRIES(() => "ldflags: -s"));
    await run(of);
    configure(of, ENTRIES(() => "ldflags: ['-s'] # same").replaceAll("id: ", "id: new-"));
    expect((await run(of)).go).toEqual([]);
  });

  test("programs whose templates read a variable that changed", async () => {
    const of = await open(TEMPLATES);
    await run(of);
    expect((await run(of, { env: { V_OTHER: "1", LANG: "C" } })).go).toEqual([]);
    expect(rebuilt(await run(of, { env: { V_TWO: "2" } }))).toEqual({ two: "the flags of go build changed" });
    expect((await run(of, { env: { V_TWO: "2" } })).go).toEqual([]);
    expect((await run(of)).go).toEqual([]);
  });

  test("programs whose templates read git, for a commit, a tag and a change", async () => {
    scene = await openScene(APP, { git: true, args: buildOf(...ALL), env: { GOFLAGS: "-buildvcs=false" } });
    const of = scene;
    await Bun.sleep(SETTLED_MS);
    configure(
      of,
      "builds:\n- main: ./cmd/one\n  ldflags: -X main.version={{.Git.Tag}}-{{.Git.ShortCommit}}\n- main: ./cmd/two\n  ldflags: -X main.version={{.Git.TreeState}}\n",
    );
    await run(of);
    expect((await run(of)).go).toEqual([]);
    await of.git("tag", "v1.0.0");
    expect(Object.keys(rebuilt(await run(of)))).toEqual(["one"]);
    await of.git("commit", "-q", "--allow-empty", "-m", "two");
    expect(Object.keys(rebuilt(await run(of)))).toEqual(["one"]);
    of.tree.write({ "app/notes.txt": "x" });
    expect(Object.keys(rebuilt(await run(of)))).toEqual(["two"]);
    await of.git("add", "-A");
    expect((await run(of)).go).toEqual([]);
    await of.git("commit", "-q", "-m", "three");
    // The clean tree of before is still in the cache.
    expect(Object.keys(rebuilt(await run(of)))).toEqual(["one"]);
  });

  test("a program that holds the time, each time, unless SOURCE_DATE_EPOCH is set", async () => {
    const of = await open("builds:\n- main: ./cmd/one\n  ldflags: -X main.version={{.Date}}\n");
    const first = await of.run();
    expect(first.stderr).toMatch(/Warning: ldflags of builds\[0\] at \S+:4:12 uses the time of the build/);
    for (const again of [await of.run(), await of.run()]) {
      expect(rebuilt(again)).toEqual({ one: "its flags hold the time of the build; SOURCE_DATE_EPOCH would set it" });
    }
    const env = { SOURCE_DATE_EPOCH: "1700000000" };
    await run(of, { env });
    const last = await run(of, { env });
    expect(last.go).toEqual([]);
    expect(last.stderr).not.toContain("Warning");
  });

  test("a program with other capabilities", async () => {
    const of = await open("builds:\n- main: ./cmd/one\n  linux_capabilities: [net_raw]\n");
    const first = await run(of);
    configure(of, "builds:\n- main: ./cmd/one\n  linux_capabilities: [net_admin]\n");
    const second = await run(of);
    expect(rebuilt(second)).toEqual({ one: "linux_capabilities changed" });
    expect(second.images).not.toBe(first.images);
    configure(of, "builds:\n- main: ./cmd/one\n  linux_capabilities: [CAP_NET_ADMIN]\n");
    expect((await run(of)).go).toEqual([]);
  });

  test("programs of a pattern that tags bring in or leave out", async () => {
    const of = await open("");
    const args = buildOf("./...");
    await run(of, { args });
    configure(of, "builds:\n- main: ./cmd/tagged\n  flags: [-tags=special]\n");
    expect(rebuilt(await run(of, { args }))).toEqual({ tagged: "first build here" });
    configure(of, "defaultFlags: [-tags=special]\n");
    expect(Object.keys(rebuilt(await run(of, { args }))).sort()).toEqual([...NAMES].sort());
    configure(of, "");
    expect((await run(of, { args })).images).not.toContain("tagged");
  });

  test("a program whose entry moves it to another module", async () => {
    const files: Files = {
      "app/go.mod": goMod("example.com/app", {
        more: "\nrequire example.com/dep v0.0.0\n\nreplace example.com/dep => ./dep\n",
      }),
      "app/main.go": program("app"),
      "app/dep/go.mod": goMod("example.com/dep"),
      "app/dep/cmd/it/main.go": program("it"),
    };
    const of = await open("", files);
    const args = buildOf("example.com/dep/cmd/it");
    const first = await run(of, { args });
    configure(of, "builds:\n- dir: dep\n  main: ./cmd/it\n");
    const second = await run(of, { args });
    expect([first.code, second.code, calls(second)[1]]).toEqual([0, 0, 1]);
    // The module that is built in is part of what Go records.
    expect(second.images).not.toBe(first.images);
    configure(of, "");
    expect((await run(of, { args })).images).toBe(first.images);
  });
});

describe("a run refuses", () => {
  test.each<[string, string, readonly string[], string]>([
    [
      "another platform in env",
      "builds:\n- main: ./cmd/one\n  env: [GOARCH=arm64]\n",
      ["./cmd/one"],
      "Cannot use env of builds[0] at CONFIG:4:9: it sets GOARCH=arm64, but the image is for linux/amd64\n  Remove it: ko sets GOARCH for each platform.",
    ],
    [
      "another platform in defaultEnv",
      "defaultEnv: [GOOS=windows]\n",
      ["./cmd/one"],
      "Cannot use defaultEnv at CONFIG:2:14: it sets GOOS=windows, but the image is for linux/amd64",
    ],
    [
      "a missing folder, also for other programs",
      "builds:\n- main: ./cmd/on\n",
      ["./cmd/two"],
      "Cannot use main of builds[0] at CONFIG:3:9: builds[0] is for ./cmd/on, which does not exist, the nearest is ./cmd/one\n  Correct the entry: ko checks all entries",
    ],
    [
      "a missing dir",
      "builds:\n- dir: ./tol\n  main: .\n",
      ["./cmd/two"],
      "dir of builds[0] at CONFIG:3:8: builds[0] is for ./tol, which does not exist, the nearest is ./tool",
    ],
    ["a pattern in main", "builds:\n- main: ./...\n", ["./cmd/two"], "builds[0] is for ./..., which does not exist"],
    [
      "two entries for one program",
      "builds:\n- id: a\n  main: ./cmd/one\n- id: b\n  dir: cmd/one\n  flags: [-v]\n",
      ["./cmd/two"],
      'Cannot use CONFIG:5:3: builds[1] ("b") is for ./cmd/one, as is builds[0] ("a") at CONFIG:3:3\n  Keep one of them.',
    ],
    [
      "two entries for one program, one by its import path",
      "builds:\n- main: ./cmd/one\n- main: example.com/app/cmd/one\n  flags: [-v]\n",
      ["./cmd/two"],
      "builds[1] is for ./cmd/one, as is builds[0]",
    ],
    [
      "templates that cannot be rendered, all of them",
      "builds:\n- main: ./cmd/one\n  flags: ['{{.Env.NO_SUCH}}']\n  ldflags: ['{{.Gut}}', '{{ if }}']\n- main: ./cmd/two\n  ldflags: '{{.Env.NO_OTHER}}'\n",
      ["./cmd/one", "./cmd/two"],
      "Error: Cannot use ldflags of builds[0] at CONFIG:5:16: {{.Gut}}: there is no .Gut, the nearest is .Git\nError: Cannot use ldflags of builds[0] at CONFIG:5:32: {{ if }}",
    ],
    [
      "a template of the default words",
      "defaultLdflags: ['{{.Env.NO_SUCH}}']\n",
      ["./cmd/one"],
      "Cannot use defaultLdflags at CONFIG:2:",
    ],
    [
      "-toolexec in flags",
      "builds:\n- main: ./cmd/one\n  flags: [-toolexec=x]\n",
      ["./cmd/one"],
      "Cannot use -toolexec in flags of builds[0] at CONFIG:4:11: it runs any program",
    ],
    [
      "--toolexec as two words",
      "defaultFlags: --toolexec x\n",
      ["./cmd/one"],
      "Cannot use -toolexec in defaultFlags at CONFIG:2:",
    ],
    [
      "-toolexec of a template",
      "defaultFlags: ['{{.Env.EVIL}}']\n",
      ["./cmd/one"],
      "Cannot use -toolexec in defaultFlags at CONFIG:2:",
    ],
    [
      "-toolexec in GOFLAGS of env",
      "defaultEnv: [GOFLAGS=-toolexec=x, GOFLAGS=]\n",
      ["./cmd/one"],
      "Cannot use -toolexec in defaultEnv at CONFIG:2:14",
    ],
    [
      "-toolexec in quotes",
      "defaultEnv: [\"GOFLAGS='-toolexec=x y'\"]\n",
      ["./cmd/one"],
      "Cannot use -toolexec in defaultEnv",
    ],
  ])("%s", async (_, builds, args, message) => {
    const of = await open(builds);
    const { code, stderr, go } = await of.run({ args: buildOf(...args), env: { EVIL: "-toolexec=/bin/false" } });
    expect(stderr.replaceAll(of.work.at("config/.ko.yaml"), "CONFIG")).toContain(message);
    expect([code > 0, go.includes("build")]).toEqual([true, false]);
  });

  test.each<[string, (of: Scene) => { readonly builds?: string; readonly env?: Readonly<Record<string, string>> }]>([
    [
      "GOENV of an entry",
      ({ work }) => ({ builds: `builds:\n- main: ./cmd/one\n  env: ['GOENV=${work.at("goenv")}']\n` }),
    ],
    ["GOENV of an entry, relative", () => ({ builds: "builds:\n- main: ./cmd/one\n  env: [GOENV=goenv]\n" })],
    [
      "GOENV of an entry, relative to its folder",
      () => ({ builds: "builds:\n- dir: cmd/one\n  env: [GOENV=../../goenv]\n" }),
    ],
    ["go env -w of the user", ({ work }) => ({ env: { GOENV: work.at("goenv"), GOFLAGS: "" } })],
    ["GOFLAGS of the process, quoted", ({ work }) => ({ env: { GOFLAGS: `'-toolexec=${work.at("evil")}'` } })],
    [
      "GOFLAGS of the process, which an entry replaces",
      ({ work }) => ({ builds: "defaultEnv: [GOFLAGS=-v]\n", env: { GOFLAGS: `"-toolexec=${work.at("evil")}"` } }),
    ],
  ])("-toolexec by %s, before it is started", async (_, make) => {
    const of = await open("");
    const evil = { executable: `#!/bin/sh\ntouch '${of.work.at("was-run")}'\nexec "$@"\n` };
    of.work.write({ evil, goenv: `GOFLAGS='-toolexec=${of.work.at("evil")}'\n` });
    of.tree.write({ "app/goenv": `GOFLAGS=-toolexec=${of.work.at("evil")}\n` });
    const { builds = "", env = {} } = make(of);
    configure(of, builds);
    const { code, stderr } = await of.run({ args: buildOf("./cmd/one"), env: { GOFLAGS: "", ...env } });
    expect(stderr).toContain("Cannot use -toolexec in ");
    expect([code, existsSync(of.work.at("was-run"))]).toEqual([2, false]);
  });
});

describe("a run says", () => {
  test("which entries are for no program, once, but not which it does not need", async () => {
    const of = await open(
      "ports: [80]\nbuilds:\n- main: ./lib\n- id: docs\n  main: .\n- main: ./cmd/four\n- main: ./cmd/tagged\n  flags: [-tags=special]\n- main: ./cmd/two\n- main: cmd/two\n",
    );
    const { stderr } = await of.run({ args: buildOf("./cmd/one") });
    const warnings = stderr.split("\n").filter((line) => line.startsWith("Warning: "));
    expect(warnings.map((line) => line.replaceAll(of.work.at("config/.ko.yaml"), "CONFIG"))).toEqual([
      'Warning: CONFIG:2:1: "ports" has no effect, it is not a setting of ko; use ports of image',
      "Warning: CONFIG:11:3: builds[5] is for ./cmd/two, as is builds[4] at CONFIG:10:3; they say the same",
      "Warning: CONFIG:4:3: builds[0] is for no program: ./lib is package lib, wanted package main",
      'Warning: CONFIG:5:3: builds[1] ("docs") is for no program: . has no Go files',
    ]);
  });

  test("that --ldflags hides a broken template", async () => {
    const of = await open("builds:\n- main: ./cmd/one\n  ldflags: '{{.Gut}}'\n");
    const { code, stderr } = await of.run({ args: buildOf("./cmd/one", "--ldflags=-s") });
    expect(code).toBe(0);
    expect(stderr).toContain("{{.Gut}}: there is no .Gut, the nearest is .Git; --ldflags replaces it");
  });

  test("how to split an item of flags, and how to quote ldflags", async () => {
    const of = await open("defaultFlags: ['-tags special']\n");
    expect((await of.run()).stderr).toContain('write [-tags, special] instead of ["-tags special"]');
    configure(of, "defaultFlags: ['- -tags netgo  -v']\n");
    expect((await of.run()).stderr).toContain('write [-tags, netgo, -v] instead of ["- -tags netgo  -v"]');
    configure(of, "defaultLdflags: ['-X main.version=a s3cret']\n");
    expect((await of.run()).stderr).toContain("-X 'main.version=1 2'");
    configure(of, 'defaultLdflags: ["-X \'main.version=s3cret"]\n');
    const { stderr } = await of.run();
    expect(stderr).toContain("-X 'main.version=1 2'");
    expect(stderr).not.toContain("s3cret");
  });

  test("nothing of git or go env unless a template asks", async () => {
    const of = await open(ENTRIES(() => "ldflags: -X main.version={{.Env.HOME}}"));
    of.work.write({ "bin/git": { executable: "#!/bin/sh\necho 'git was run' >&2\nexit 1\n" } });
    const env = { PATH: `${of.work.at("bin")}:${process.env["PATH"]}` };
    const { code, go, stderr } = await of.run({ env });
    expect([code, go.includes("env"), stderr.includes("git was run")]).toEqual([0, false, false]);
    configure(
      of,
      ENTRIES(() => "ldflags: -X main.version={{.GoEnv.GOVERSION}}"),
    );
    const asked = await of.run({ env });
    expect(asked.go.filter((name) => name === "env")).toHaveLength(1);
  });

  test("no secret of env, flags or templates", async () => {
    const of = await open(
      "builds:\n- main: ./cmd/one\n  env: [TOKEN=s3cret, 'GOFLAGS=-buildvcs=false -tags=s3cret']\n  flags: [-tags=s3cret]\n  ldflags: -X main.version={{.Env.TOKEN}}\n- main: ./cmd/two\n  env: [TOKEN=s3cret]\n",
    );
    const argv = of.work.at("argv");
    const record = `printf '%s\\n' "$*" >> '${argv}'`;
    of.work.write({
      argv: "",
      "spy/go": { executable: `#!/bin/sh\n${record}\nexec '${of.work.at("bin/go")}' "$@"\n` },
    });
    const env = { KO_GO_PATH: of.work.at("spy/go") };
    const report = ["-v", "--push=false", "-B", "--explain", "--timing"];
    const good = await of.run({ args: ["build", ...report, "./cmd/one", "./cmd/two"], env });
    const trace = [`--timing=${of.work.at("trace")}`, `--oci-layout-path=${of.work.at("layout")}`, "--sbom=spdx"];
    const traced = await of.run({ args: ["build", ...report.slice(0, -1), ...trace, "./cmd/one"], env });
    of.tree.write({ "app/cmd/one/main.go": "package main\n\nfunc main() { nothing() }\n" });
    const bad = await of.run({ args: ["build", ...report, "./cmd/one"], env });
    configure(
      of,
      "builds:\n- main: ./cmd/two\n  env: [TOKEN=s3cret]\n  ldflags: -X main.version={{.Env.TOKEN.x}} {{.Env.NOPE}}\n",
    );
    const broken = await of.run({ args: ["build", ...report, "./cmd/two"], env });
    expect([good, traced, bad, broken].map(({ code }) => code > 0)).toEqual([false, false, true, true]);
    const said = [good, traced, bad, broken].flatMap(({ images, stderr }) => [images, stderr]);
    // Programs and layers hold what -X puts into them.
    const kept = await Array.fromAsync(new Bun.Glob("**").scan({ cwd: of.cache, dot: true }), (name) =>
      name.startsWith("v1/content/") ? "" : `${name} ${readFileSync(`${of.cache}/${name}`, "latin1")}`,
    );
    const manifests = await Array.fromAsync(new Bun.Glob("layout/blobs/sha256/*").scan(of.work.path), (name) =>
      readFileSync(of.work.at(name), "latin1"),
    );
    const written = [await Bun.file(of.work.at("trace")).text(), ...manifests.filter((text) => text.startsWith("{"))];
    expect([kept.filter((text) => text !== "").length > 2, written.length > 4]).toEqual([true, true]);
    expect([...said, ...kept, ...written].filter((text) => text.includes("s3cret"))).toEqual([]);
    // The linker's words are those of go build, and nobody else's.
    const lines = readFileSync(argv, "utf8").trimEnd().split("\n");
    const telling = lines.filter((line) => line.includes("s3cret") && !line.startsWith("build "));
    expect(telling.map((line) => line.replaceAll(/-tags=\S+/g, "")).filter((line) => line.includes("s3cret"))).toEqual(
      [],
    );
    expect(lines.filter((line) => line.includes("TOKEN"))).toEqual([]);
  });
});
