import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { CommandError, UsageError } from "../lib/errors.ts";
import { buildEnvironment, goMessages, looksKilled, readGoEnv, refuseToolexec, runGo } from "../lib/go.ts";
import { Interrupted } from "../lib/host.ts";
import { failuresOf, rejectionOf } from "./helpers/failures.ts";
import { goWorld } from "./helpers/go.ts";
import { writeTree } from "./helpers/world-folders.ts";
import { waitUntil } from "./helpers/world-programs.ts";

describe("buildEnvironment()", () => {
  const amd64 = { CGO_ENABLED: "0", GOOS: "linux", GOARCH: "amd64" };
  const arm = { CGO_ENABLED: "0", GOOS: "linux", GOARCH: "arm" };

  test.each([
    ["sets cgo, system and architecture", "linux/amd64", {}, {}, amd64],
    ["passes the amd64 level on", "linux/amd64/v3", {}, {}, { ...amd64, GOAMD64: "v3" }],
    ["turns an arm variant into GOARM", "linux/arm/v6", {}, {}, { ...arm, GOARM: "6" }],
    ["takes arm v8 for 7", "linux/arm/v8", {}, {}, { ...arm, GOARM: "7" }],
    ["leaves arm v4 to go", "linux/arm/v4", {}, {}, arm],
    ["has no GOARM for arm64", "linux/arm64/v8", {}, {}, { CGO_ENABLED: "0", GOOS: "linux", GOARCH: "arm64" }],
    ["lets the user win", "linux/amd64", { CGO_ENABLED: "1", X: "" }, {}, { ...amd64, CGO_ENABLED: "1", X: "" }],
    ["lets the extra ones win over the user", "linux/amd64", { A: "1" }, { A: "2" }, { ...amd64, A: "2" }],
    [
      "builds for the platform though the user's GOOS and GOARCH say another",
      "linux/amd64",
      { GOOS: "darwin", GOARCH: "arm64" },
      {},
      amd64,
    ],
    ["takes an empty GOOS for unset", "linux/amd64", { GOOS: "" }, {}, amd64],
    ["allows toolexec inside of a value", "linux/amd64", { GOFLAGS: "'-ldflags=-X a=-toolexec=b'" }, {}, null],
  ])("%s", (_name, platform, user, extra, want) => {
    const [os = "", architecture = "", variant] = platform.split("/");
    const got = buildEnvironment({ os, architecture, ...(variant === undefined ? {} : { variant }) }, user, extra);
    expect(got).toEqual(want ?? { ...amd64, ...user });
  });

  test("refuses an arm variant that is none", () => {
    expect(() => buildEnvironment({ os: "linux", architecture: "arm", variant: "hf" }, {})).toThrow(
      'Cannot build for "linux/arm/hf": the variant is "hf", wanted v5, v6 or v7',
    );
  });

  test.each(["-toolexec=x", "-v --toolexec=x", "-v\t-toolexec", `"-toolexec=x y"`, "'-toolexec=x' -v"])(
    "refuses GOFLAGS %s",
    (GOFLAGS) => {
      const platform = { os: "linux", architecture: "amd64" };
      expect(() => buildEnvironment(platform, { GOFLAGS })).toThrow(UsageError);
      expect(() => buildEnvironment(platform, {}, { GOFLAGS })).toThrow(UsageError);
    },
  );
});

describe("refuseToolexec()", () => {
  test.each([["-toolexec"], ["--toolexec"], ["-toolexec=/bin/x"], ["--toolexec=/bin/x"]])("refuses %s", (flag) => {
    expect(() => refuseToolexec(["-v", flag])).toThrow("Cannot use -toolexec in the flags of go build");
  });

  test("lets other flags pass", () => {
    expect(() => refuseToolexec(["-toolexecx", "-tags=toolexec", "-ldflags=-toolexec"])).not.toThrow();
  });
});

describe("goMessages()", () => {
  test("keeps go's words but for progress, and makes control characters visible", () => {
    expect(goMessages("go: downloading a v1\n# p\n\tx.go:1:2: \u001b[31mbad\n\n")).toBe(
      "# p\n\tx.go:1:2: \\x1b[31mbad",
    );
  });
});

describe("looksKilled()", () => {
  const fail = (more: { code?: number; signal?: string; stderr?: string }): CommandError =>
    new CommandError("", { argv: ["go"], code: more.code, signal: more.signal, stderr: more.stderr ?? "" });

  test.each([
    [fail({ code: 1, stderr: "/usr/lib/go/link: signal: killed" }), true],
    [fail({ code: 137 }), true],
    [fail({ signal: "SIGKILL" }), true],
    [fail({ code: 1, stderr: "x.go:1: undefined: killed" }), false],
    [fail({ signal: "SIGTERM" }), false],
  ])("case %#", (error, want) => {
    expect(looksKilled(error)).toBe(want);
  });
});

describe("runGo()", () => {
  test("keeps stdout and stderr apart, and PWD is the folder it runs in", async () => {
    using tree = writeTree({ go: { executable: '#!/bin/sh\necho "$PWD $*"\necho talk >&2\n' }, "in/x": "" });
    const world = goWorld(tree.path, { PWD: "/elsewhere" });
    // KO_GO_PATH is relative to where ko runs, not to where go runs.
    const result = await runGo(["a", "b"], { ...world, go: "./go", cwd: tree.at("in"), env: world.host.env });
    expect([new TextDecoder().decode(result.stdout), result.stderr]).toEqual([`${tree.at("in")} a b\n`, "talk\n"]);
  });

  test("says how to get go when there is none", async () => {
    using tree = writeTree({});
    const world = goWorld(tree.path);
    const running = runGo(["version"], { ...world, go: "./none", cwd: tree.path, env: world.host.env });
    expect(await failuresOf(running, tree.path)).toEqual([
      {
        message: "Cannot run $DIR/none: it is not installed, or not on PATH",
        hint: "Install Go from https://go.dev/dl/, or set KO_GO_PATH to the program.",
      },
    ]);
  });

  test("shows downloads as they come, and ends all of go's processes when it is told to stop", async () => {
    using tree = writeTree({
      go: { executable: "#!/bin/sh\nsleep 600 &\necho $! > pid\necho 'go: downloading x v1' >&2\nwait\n" },
    });
    const world = goWorld(tree.path);
    const controller = new AbortController();
    const running = runGo(["build"], {
      ...world,
      // Once the line is here, the sleeper lives.
      log: { ...world.log, info: () => controller.abort(new Interrupted("SIGINT")) },
      signal: controller.signal,
      go: "./go",
      cwd: tree.path,
      env: world.host.env,
    });
    expect(await rejectionOf(running)).toBeInstanceOf(Interrupted);
    // The sleeper has the signal by then, and ends in a moment of its own.
    const pid = readFileSync(tree.at("pid"), "utf8").trim();
    await waitUntil(() => !isRunning(pid));
  });

  test("refuses -toolexec that was set for good with go env -w", async () => {
    using tree = writeTree({
      "config/go/env": "GOPROXY=direct\nGOFLAGS=-v -toolexec=/bin/x\n",
      // Else go leaves a process behind that writes here when the folder is gone.
      "config/go/telemetry/mode": "off",
    });
    const world = goWorld(tree.path, { GOFLAGS: "", GOENV: "", XDG_CONFIG_HOME: tree.at("config") });
    const run = (env: Readonly<Record<string, string>>): Promise<unknown> =>
      runGo(["version"], { ...world, cwd: tree.path, env });
    expect(await failuresOf(run(world.host.env), tree.path)).toEqual([
      {
        message:
          "Cannot use -toolexec in GOFLAGS of $DIR/config/go/env: it runs any program in place of the Go compiler",
        hint: "Take -toolexec out.",
      },
    ]);
    // With GOFLAGS in the environment go does not look at the file's.
    expect(await run({ ...world.host.env, GOFLAGS: "-v" })).toMatchObject({ code: 0 });
  });
});

/** A process that has ended but that nobody has asked about yet does not run. */
function isRunning(pid: string): boolean {
  if (!existsSync(`/proc/${pid}/stat`)) return false;
  return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
}

describe("readGoEnv()", () => {
  test("reads the settings as they are, of several lines and with quotes too", async () => {
    using tree = writeTree({ "go.mod": "module example.com/a\n\ngo 1.24\n" });
    const { host, log, go } = goWorld(tree.path);
    const more = { GOFLAGS: "-tags=a '-ldflags=-X a=b c'", GOPRIVATE: `a"b'c\nd`, GONOPROXY: "'quoted'" };
    const env = await readGoEnv({ host, log, go, cwd: tree.path, env: { ...host.env, ...more } });
    expect(env).toMatchObject({ ...more, GOMOD: tree.at("go.mod"), GOPROXY: "off" });
    expect(env["GOARCH"]).toMatch(/^\w+$/);
    expect(env).not.toHaveProperty("PATH");
  });

  test("fails with the words of go", async () => {
    using tree = writeTree({ "go.mod": "module example.com/a\n\ngo 1.24\n" });
    const { host, log, go } = goWorld(tree.path, { GOTOOLCHAIN: "nonsense" });
    const work = readGoEnv({ host, log, go, cwd: tree.path, env: host.env });
    const error = await rejectionOf(work);
    expect(error instanceof CommandError ? error.stderr : error).toContain('invalid GOTOOLCHAIN "nonsense"');
  });

  test("refuses a program that is not go", async () => {
    using tree = writeTree({ go: { executable: "#!/bin/sh\necho '[]'\n" } });
    const { host, log } = goWorld(tree.path);
    const work = readGoEnv({ host, log, go: tree.at("go"), cwd: tree.path, env: host.env });
    expect(await rejectionOf(work)).toMatchObject({
      message: "Cannot read the output of go env: it is not a JSON object",
    });
  });
});
