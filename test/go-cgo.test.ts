/** Builds with cgo that fail: real go, gcc, ld and pkg-config. */
import { describe, expect, test } from "bun:test";
import { CommandError } from "../lib/errors.ts";
import { concernsCgo, explainCgo } from "../lib/go-cgo.ts";
import { goMod } from "./helpers/go.ts";
import { makeBench } from "./helpers/world-bench.ts";

const cgo = (name: string, preamble: string, body = "C.abs(1)"): string =>
  `package ${name}\n\n${preamble}\n// #include <stdlib.h>\nimport "C"\n\nfunc F() { ${body} }\n`;
const main = (name: string): string =>
  `package main\n\nimport "example.com/app/${name}"\n\nfunc main() { ${name}.F() }\n`;

const FILES = {
  "go.mod": goMod("example.com/app"),
  ...Object.fromEntries(["lib", "hdr", "pkgc", "undef", "plain"].map((name) => [`cmd/${name}/main.go`, main(name)])),
  "lib/lib.go": cgo("lib", "// #cgo LDFLAGS: -lno_such"),
  "hdr/hdr.go": cgo("hdr", "// #include <nosuch.h>"),
  "pkgc/pkgc.go": cgo("pkgc", "// #cgo pkg-config: nosuch"),
  "undef/undef.go": cgo("undef", "// int nosuch(int);", "C.nosuch(1)"),
  "plain/plain.go": cgo("plain", "// #include <stdio.h>"),
  "cmd/dial/main.go": 'package main\n\nimport "net"\n\nfunc main() { net.LookupHost("a") }\n',
};

/** The other architecture of this machine, for which Debian's gcc makes nothing. */
const OTHER = process.arch === "arm64" ? "amd64" : "arm64";
const OWN = process.arch === "arm64" ? "arm64" : "amd64";

/** The title, the words after `ko build`, variables, and the hint. */
type Case = [string, readonly string[], Readonly<Record<string, string>>, string];

const NO_PC: Case = [
  "no .pc file",
  ["./cmd/pkgc"],
  {},
  `Install the library nosuch for linux/${OWN}, such as Debian's libnosuch-dev, or name the folder of nosuch.pc: PKG_CONFIG_PATH=/FOLDER (pkgc.go of example.com/app/pkgc wants it)`,
];

describe.skipIf(Bun.which("gcc") === null)("#693, #111: cgo code that does not compile", () => {
  test.each<Case>([
    [
      "no C compiler",
      ["./cmd/plain"],
      { CC: "no-such-cc" },
      `Install a C compiler for linux/${OWN}, or set CC to one: no-such-cc is not there, and example.com/app/plain needs cgo.`,
    ],
    [
      "no C compiler, and only Go itself would use it",
      ["./cmd/dial"],
      { CC: "no-such-cc" },
      "Set CGO_ENABLED=0: only packages of Go itself use cgo (net).",
    ],
    [
      "no library",
      ["./cmd/lib"],
      {},
      `Install the library no_such for linux/${OWN}, such as Debian's libno_such-dev, or name its folder: CGO_LDFLAGS=-L/FOLDER (lib.go of example.com/app/lib wants it)`,
    ],
    [
      "no header",
      ["./cmd/hdr"],
      {},
      `Install the library of nosuch.h for linux/${OWN}, such as Debian's libnosuch-dev, or name its folder: CGO_CFLAGS=-I/FOLDER`,
    ],
    [
      "a symbol that no library has",
      ["./cmd/undef"],
      {},
      "Name the library that has nosuch: CGO_LDFLAGS=-lNAME, or #cgo LDFLAGS in example.com/app/undef",
    ],
    [
      "a compiler for another processor",
      ["./cmd/plain"],
      { GOARCH: OTHER },
      `Set CC to a C compiler for linux/${OTHER}: the one that ran makes programs for another platform.`,
    ],
    [
      "no pkg-config",
      ["./cmd/pkgc"],
      { PKG_CONFIG: "/no/such/pkg-config" },
      "Install pkg-config, or set PKG_CONFIG to it (pkgc.go of example.com/app/pkgc wants it)",
    ],
    ...(Bun.which("pkg-config") === null ? [] : [NO_PC]),
    [
      "cgo is off: the package that needs it, and not the program",
      ["./cmd/plain"],
      { CGO_ENABLED: "0" },
      `Set CGO_ENABLED=1 and CC to a C compiler for linux/${OWN}, and use a base image with its C library.`,
    ],
  ])(
    "%s",
    async (_name, args, env, hint) => {
      using bench = makeBench(FILES, { host: "127.0.0.1:1" });
      const all = { CGO_ENABLED: "1", GOOS: "linux", GOARCH: OWN, ...env };
      const { code, stderr } = await bench.ours(["build", "--push=false", ...args], { env: all });
      expect(code).toBe(1);
      expect(stderr.trimEnd().split("\n").at(-1)?.trim().replace("arm64/v8", "arm64")).toBe(hint);
      if (env["CGO_ENABLED"] === "0") {
        expect(stderr).toContain('example.com/app/plain, which it imports: plain.go needs cgo (import "C")');
      }
    },
    180_000,
  );
});

describe("explainCgo()", () => {
  const platform = { os: "linux", architecture: "arm64" };
  const failed = (stderr: string, hint?: string): CommandError =>
    new CommandError("go build failed", { argv: ["go"], code: 1, stderr, hint });

  test.each<[string, string, string]>([
    ["clang", "h.go:3:10: fatal error: 'zlib.h' file not found\n", "Install the library of zlib.h for linux/arm64"],
    ["lld", "ld.lld: error: unable to find library -lssl\n", "Install the library ssl for linux/arm64"],
    ["macOS", "ld: library not found for -lpq\n", "Install the library pq for linux/arm64"],
    ["lld's symbols", "ld.lld: error: undefined symbol: deflate\n", "Name the library that has deflate"],
    [
      "gcc for another processor",
      "gcc: error: unrecognized command-line option '-marm'\n",
      "Set CC to a C compiler for",
    ],
  ])("knows the words of %s, without a list of packages", async (_name, stderr, hint) => {
    const error = failed(stderr);
    expect(concernsCgo(error)).toBe(true);
    expect((await explainCgo(error, { packages: [], platform })).hint).toStartWith(hint);
  });

  test.each<[string, unknown]>([
    ["a syntax error", failed("main.go:3:1: syntax error")],
    ["an error with a hint", failed("undefined: x", "Run: go mod tidy")],
    ["another error", new Error("undefined: x")],
  ])("%s is not its concern", (_name, error) => {
    expect(concernsCgo(error)).toBe(false);
  });

  test("leaves an undefined name alone that no file with cgo has", async () => {
    const error = failed("# example.com/app\n./main.go:3:1: undefined: x");
    expect(concernsCgo(error)).toBe(true);
    expect(await explainCgo(error, { packages: [], platform })).toBe(error);
  });
});
