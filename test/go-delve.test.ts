/** Delve beside a stand-in for `go`, which writes down how it is called and gives a binary that was compiled before. */
import { afterEach, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Cache } from "../lib/cache.ts";
import { type DebuggedProgram, DelveBuilds, isDebuggable } from "../lib/go-delve.ts";
import { silentLog } from "../lib/log.ts";
import { parsePlatform } from "../lib/oci.ts";
import { noTiming } from "../lib/timing.ts";
import { failureOf } from "./helpers/failures.ts";
import { findDelve } from "./helpers/go.ts";
import { type CacheBox, makeCacheBox } from "./helpers/world-cache.ts";
import { hostAt, realHost } from "./helpers/world-host.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";

interface World {
  readonly work: Tree;
  readonly box: CacheBox;
  /** Returns the binaries of a new run. */
  readonly open: (options?: { readonly cache?: Cache | undefined; readonly isReal?: boolean }) => Promise<DelveBuilds>;
  readonly debugged: (platform?: string, env?: Readonly<Record<string, string>>) => DebuggedProgram;
  /** Words of each `go install`. */
  readonly installs: () => readonly string[];
  /** Variables of the last one. */
  readonly env: () => Readonly<Record<string, string>>;
}

const signal = new AbortController().signal;

let delve: string | undefined;
let world: World | undefined;

beforeAll(async () => {
  delve = await findDelve();
}, 900_000);

afterEach(() => {
  world?.box[Symbol.dispose]();
  world?.work[Symbol.dispose]();
  world = undefined;
});

/** @param version the Go that the stand-in says it is. @param settings more of `go env -json` */
function makeWorld(version = "go1.26.8", settings: Readonly<Record<string, string>> = {}): World {
  const work = writeTree({ "module/go.mod": "module example.com/app\n", tmp: null });
  const json = JSON.stringify({ GOVERSION: version, GOMODCACHE: "/modules", GOCACHE: "/cache", ...settings });
  const script = `#!/bin/sh
case $1 in
env) echo '${json}' ;;
install)
  echo "$@" >> '${work.at("installs")}'
  env > '${work.at("env")}'
  pwd > '${work.at("pwd")}'
  [ -z "$FAIL" ] || { echo "$FAIL" >&2; exit 1; }
  name=dlv; [ "$GOOS" != windows ] || name=dlv.exe
  at="$GOPATH/bin"; [ "$GOOS/$GOARCH" = linux/amd64 ] || at="$at/\${GOOS}_$GOARCH"
  mkdir -p "$at" && cp '${delve ?? "/dev/null"}' "$at/$name" ;;
esac
`;
  work.write({ "bin/go": { executable: script } });
  const box = makeCacheBox();
  const made: World = {
    work,
    box,
    open: async ({ cache, isReal = false } = {}) => {
      const host = hostAt(work.path, { env: realHost.env });
      const folder = work.at(`run-${crypto.randomUUID()}`);
      work.write({ [folder.slice(work.path.length + 1)]: null });
      const context = { host, log: silentLog, timing: noTiming, signal, cache };
      return new DelveBuilds({ context, folder, go: isReal ? "go" : work.at("bin/go") });
    },
    debugged: (platform = "linux/amd64", env = {}) => ({
      program: { importPath: "example.com/app", workDir: work.at("module") },
      platform: parsePlatform(platform),
      setup: { env: { PATH: realHost.env["PATH"] ?? "", ...env }, args: [] },
    }),
    installs: () => {
      const path = work.at("installs");
      return existsSync(path) ? readFileSync(path, "utf8").trimEnd().split("\n") : [];
    },
    env: () => {
      const lines = readFileSync(work.at("env"), "utf8").trimEnd().split("\n");
      return Object.fromEntries(lines.map((line) => [line.split("=", 1)[0] ?? "", line.replace(/^[^=]*=/, "")]));
    },
  };
  world = made;
  return made;
}

describe("isDebuggable()", () => {
  test.each([
    ["linux/amd64", true],
    ["linux/amd64/v3", true],
    ["linux/arm64/v8", true],
    ["linux/386", true],
    ["linux/ppc64le", true],
    ["windows/amd64:10.0.17763.1", true],
    ["linux/arm/v7", false],
    ["linux/s390x", false],
    ["linux/riscv64", false],
    ["linux/loong64", false],
    ["windows/arm64", false],
    ["darwin/arm64", false],
  ])("%s: %p", (platform, want) => {
    expect(isDebuggable(parsePlatform(platform))).toBe(want);
  });
});

describe("the version of Delve", () => {
  test.each([
    ["go1.27.0", "v1.27.2"],
    ["go1.26.8", "v1.27.2"],
    ["go1.26.8 X:nodwarf5", "v1.27.2"],
    ["go1.25rc1", "v1.27.2"],
    ["go1.24.4 (Red Hat 1.24.4-1.el9)", "v1.26.2"],
    ["go1.23.12", "v1.25.2"],
    ["go1.22", "v1.25.2"],
    ["go1.21.13", "v1.24.2"],
    ["devel go1.27-0123456789 Thu Jan 1 00:00:00 2026 +0000", "v1.27.2"],
  ])("for %s is %s", async (goVersion, want) => {
    const { debugged, installs, open } = makeWorld(goVersion);
    // The binary is that of one version only: another one is refused after its compilation.
    await (await open()).of(debugged(), { goVersion, signal }).catch(() => {});
    expect(installs()).toEqual([`install -trimpath -ldflags=-s -w github.com/go-delve/delve/cmd/dlv@${want}`]);
  });

  test.each(["go1.28.0", "go1.20.14", "devel go1.29-0123456789", "other", ""])(
    "is refused for Go %j",
    async (version) => {
      const { debugged, installs, open } = makeWorld(version);
      const builds = await open();
      const failures = [
        await failureOf(() => builds.missing([debugged()])),
        await failureOf(() => builds.of(debugged(), { goVersion: version, signal })),
      ];
      const message = `Cannot use --debug for example.com/app: Go is ${version}, and Delve is for Go 1.21 to 1.27`;
      for (const failure of failures) expect(failure).toMatchObject({ message });
      expect(installs()).toEqual([]);
    },
  );

  test("is refused for a platform that was an experiment", async () => {
    const { debugged, open } = makeWorld();
    const failure = await failureOf(async () =>
      (await open()).of(debugged("linux/ppc64le"), { goVersion: "go1.23.1", signal }),
    );
    expect(failure).toMatchObject({
      message: "Cannot use --debug for example.com/app: Go is go1.23.1, and Delve on linux/ppc64le needs 1.24",
    });
  });
});

describe("go install", () => {
  test("gets nothing of the user's that decides bytes or breaks it", async () => {
    if (delve === undefined) return;
    const { debugged, env, open, work } = makeWorld("go1.26.8", {
      GOPROXY: "https://proxy.example.com",
      GOPRIVATE: "corp.example.com",
      GOFLAGS: "-mod=vendor -modcacherw",
      GOBIN: "/gobin",
    });
    const theirs = {
      GOFLAGS: "-mod=vendor",
      GOBIN: "/gobin",
      GOWORK: "/x/go.work",
      GO111MODULE: "off",
      GOPATH: "/gopath",
      GOENV: "/env",
      GOEXPERIMENT: "nodwarf5",
      GOTOOLCHAIN: "auto",
      GOAMD64: "v4",
      GOFIPS140: "latest",
      CGO_ENABLED: "1",
      CGO_CFLAGS: "-O3",
      GOOGLE_APPLICATION_CREDENTIALS: "/key",
      GODEBUG: "x=1",
      GOMEMLIMIT: "1GiB",
    };
    await (await open()).of(debugged("linux/arm64", theirs), { goVersion: "go1.26.8", signal });
    const { GOPATH = "", PATH: _path, PWD: _pwd, TMPDIR = "", ...rest } = env();
    for (const name of ["SHLVL", "_", "OLDPWD"]) Reflect.deleteProperty(rest, name);
    expect(rest).toEqual({
      CGO_ENABLED: "0",
      GOARCH: "arm64",
      GOCACHE: "/cache",
      GODEBUG: "x=1",
      GOENV: "off",
      GOFLAGS: "-trimpath -modcacherw",
      GOMEMLIMIT: "1GiB",
      GOMODCACHE: "/modules",
      GOOGLE_APPLICATION_CREDENTIALS: "/key",
      GOOS: "linux",
      GOPRIVATE: "corp.example.com",
      GOPROXY: "https://proxy.example.com",
      GOTOOLCHAIN: "go1.26.8",
      GOWORK: "off",
    });
    expect([GOPATH, TMPDIR].map((path) => path.startsWith(work.at("run-")))).toEqual([true, true]);
    expect(readFileSync(work.at("pwd"), "utf8").trim()).toBe(work.at("module"));
  });

  test.each([
    ["go1.25rc1", "go1.25rc1"],
    ["go1.26.8 X:nodwarf5", "go1.26.8"],
    ["devel go1.27-0123456789", "local"],
    ["go1.26.4 (Red Hat 1.26.4-1.el9)", "local"],
  ])("of %s runs with the toolchain %s", async (goVersion, want) => {
    const { debugged, env, open } = makeWorld(goVersion);
    await (await open()).of(debugged(), { goVersion, signal }).catch(() => {});
    expect(env()["GOTOOLCHAIN"]).toBe(want);
  });

  test("that fails names the module, and one thing to type", async () => {
    const { debugged, open } = makeWorld();
    const said = "go: github.com/go-delve/delve: https://user:secret@proxy.example.com: module lookup disabled";
    const failure = await failureOf(async () =>
      (await open()).of(debugged("linux/386", { FAIL: said }), { goVersion: "go1.26.8", signal }),
    );
    const target = "github.com/go-delve/delve/cmd/dlv@v1.27.2";
    expect(failure).toMatchObject({
      message:
        `Cannot build Delve for linux/386 with go1.26.8: go install ${target} failed (exit code 1)\n` +
        "go: github.com/go-delve/delve: https://proxy.example.com: module lookup disabled",
      hint: `Fetch it once where a module proxy can be reached: GOPROXY=https://proxy.golang.org go install ${target}`,
    });
  });

  test("of other files than the pinned ones is refused", async () => {
    if (delve === undefined) return;
    // The stand-in always gives the newest version.
    const { box, debugged, open } = makeWorld();
    await using cache = box.open();
    const failure = await failureOf(async () =>
      (await open({ cache })).of(debugged(), { goVersion: "go1.22.1", signal }),
    );
    expect(failure).toMatchObject({
      message: expect.stringMatching(/^Cannot use Delve v1\.25\.2: its files have the hash h1:\S+, wanted h1:\S+$/),
    });
    expect(await (await open({ cache })).missing([debugged()])).toHaveLength(1);
  });

  test("works with a vendored module, GOBIN, a workspace and settings of go env -w", async () => {
    if (delve === undefined) return;
    const { debugged, open, work } = makeWorld();
    work.write({
      "env-file": "GOFLAGS=-mod=vendor\nGOBIN=/nowhere\n",
      "module/vendor/modules.txt": "",
      "go.work": "bad",
    });
    const env = { ...realHost.env, GOFLAGS: "-mod=vendor", GOBIN: "/nowhere", GOENV: work.at("env-file") };
    const { path } = await (
      await open({ isReal: true })
    ).of(debugged("linux/amd64", env), {
      goVersion: (await Bun.$`go env GOVERSION`.text()).trim(),
      signal,
    });
    expect(Buffer.compare(readFileSync(path), readFileSync(delve))).toBe(0);
  }, 600_000);
});

describe("DelveBuilds", () => {
  test("compile once for each platform, and keep the binaries for the next run", async () => {
    if (delve === undefined) return;
    const { box, debugged, installs, open } = makeWorld();
    const all = ["linux/amd64", "linux/arm64", "linux/amd64", "windows/amd64"].map((platform) => debugged(platform));
    {
      await using cache = box.open();
      const builds = await open({ cache });
      const missing = await builds.missing(all);
      expect(missing).toHaveLength(3);
      await Promise.all(missing.map((each) => each.compile({ signal, jobs: 2 })));
      for (const each of all) await builds.of(each, { goVersion: "go1.26.8", signal });
      expect(installs()).toHaveLength(3);
      expect(installs()[0]).toStartWith("install -p 2 -trimpath ");
    }
    await using cache = box.open();
    const builds = await open({ cache });
    expect(await builds.missing(all)).toEqual([]);
    const { digest, path } = await builds.of(debugged(), { goVersion: "go1.26.8 X:nodwarf5", signal });
    expect(`sha256:${new Bun.CryptoHasher("sha256").update(readFileSync(path)).digest("hex")}`).toBe(digest);
    expect(installs()).toHaveLength(3);
    // Another version of Go compiles another one.
    expect(await (await open({ cache })).missing([debugged("linux/386"), debugged("linux/amd64/v3")])).toHaveLength(2);
    await builds.of(debugged(), { goVersion: "go1.26.7", signal });
    expect(installs()).toHaveLength(4);
  });

  test("compile again what was changed in the cache", async () => {
    if (delve === undefined) return;
    const { box, debugged, installs, open } = makeWorld();
    await using cache = box.open();
    const first = await (await open({ cache })).of(debugged(), { goVersion: "go1.26.8", signal });
    const path = cache.path(first.digest);
    const bytes = readFileSync(path);
    const { atime, mtime } = statSync(path);
    bytes[1000] = (bytes[1000] ?? 0) ^ 1;
    chmodSync(path, 0o600);
    writeFileSync(`${path}.new`, bytes);
    await Bun.$`mv ${path}.new ${path}`;
    utimesSync(path, atime, mtime);
    const again = await (await open({ cache })).of(debugged(), { goVersion: "go1.26.8", signal });
    expect(again.digest).toBe(first.digest);
    expect(Buffer.compare(readFileSync(again.path), readFileSync(delve))).toBe(0);
    expect(installs()).toHaveLength(2);
  });

  test("leave nothing but the run's folder behind without a cache", async () => {
    if (delve === undefined) return;
    const { box, debugged, installs, open, work } = makeWorld();
    for (let run = 0; run < 2; run++) {
      const { path } = await (await open()).of(debugged(), { goVersion: "go1.26.8", signal });
      expect(path).toStartWith(work.at("run-"));
    }
    expect(installs()).toHaveLength(2);
    expect(existsSync(box.place) ? readdirSync(join(box.place)) : []).toEqual([]);
  });
});
