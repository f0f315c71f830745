import { describe, expect, test } from "bun:test";
import {
  CommandError,
  DaemonError,
  KoError,
  KoErrors,
  ProgramError,
  RegistryError,
  UsageError,
} from "../lib/errors.ts";
import { errorEvents } from "../lib/events-errors.ts";
import type { ErrorEvent } from "../lib/events.ts";
import { Interrupted } from "../lib/host.ts";

const GO = new CommandError("go build failed (exit code 1)", { argv: ["go"], code: 1, stderr: "" });

const TABLE: readonly (readonly [string, unknown, readonly Omit<ErrorEvent, "type">[]])[] = [
  [
    "wrong usage",
    new UsageError("Cannot use --x", { hint: "Type y" }),
    [{ code: "usage", message: "Cannot use --x", hint: "Type y" }],
  ],
  ["a signal", new Interrupted("SIGINT"), [{ code: "interrupted", message: "interrupted by SIGINT" }]],
  [
    "a registry",
    new RegistryError("Cannot push", { method: "PUT", url: "https://r/v2/", cause: new Error("reset") }),
    [{ code: "network", message: "Cannot push: reset" }],
  ],
  [
    "a registry that refuses, as the cause of a failure",
    new KoError("Cannot use the base", {
      cause: new RegistryError("GET https://r/v2/", { method: "GET", url: "https://r/v2/", status: 403 }),
    }),
    [{ code: "auth", message: "Cannot use the base: GET https://r/v2/" }],
  ],
  [
    "a registry that lacks the image",
    new RegistryError("GET https://r/v2/", { method: "GET", url: "https://r/v2/", status: 404 }),
    [{ code: "not-found", message: "GET https://r/v2/" }],
  ],
  ["a failure of Docker", new DaemonError("Cannot load"), [{ code: "daemon", message: "Cannot load" }]],
  [
    "several faults of one program, each with its place",
    new ProgramError('Cannot build "./a":\n  main.go:4:2: import cycle\n  b.go:5:2: no such package', {
      kind: "compile",
    }),
    [
      { code: "compile", message: "import cycle", file: "main.go", line: 4, column: 2 },
      { code: "compile", message: "no such package", file: "b.go", line: 5, column: 2 },
      {
        code: "compile",
        message: 'Cannot build "./a":',
        details: "  main.go:4:2: import cycle\n  b.go:5:2: no such package",
      },
    ],
  ],
  [
    "a bug",
    new TypeError("x is not a function"),
    [{ code: "internal", message: expect.stringMatching(/^internal: /), details: expect.stringContaining("    at ") }],
  ],
  [
    "a place in YAML, of an absolute path below the working directory",
    new KoError('Cannot use "ko://x" at /w/config/web.yaml:12:16: no such package'),
    [
      {
        code: "failure",
        message: 'Cannot use "ko://x" at config/web.yaml:12:16: no such package',
        file: "config/web.yaml",
        line: 12,
        column: 16,
      },
    ],
  ],
  [
    "a place elsewhere stays absolute",
    new KoError("Cannot read /etc/x.yaml:3"),
    [{ code: "failure", message: "Cannot read /etc/x.yaml:3", file: "/etc/x.yaml", line: 3 }],
  ],
  [
    "an address is no place",
    new KoError("Cannot reach 127.0.0.1:5000 and a.example.com:443"),
    [{ code: "failure", message: "Cannot reach 127.0.0.1:5000 and a.example.com:443" }],
  ],
  [
    "several failures",
    new KoErrors([new UsageError("one"), new KoError("two")]),
    [
      { code: "usage", message: "one" },
      { code: "failure", message: "two" },
    ],
  ],
  [
    "errors of the compiler, with their places, before the failure",
    new KoError(
      `Cannot build "example.com/app" for linux/amd64: go build failed (exit code 1)\n# example.com/app\n./main.go:3:15: undefined: x\npkg/a/b.go:7: syntax error\n\thave (number)`,
      { cause: GO },
    ),
    [
      { code: "compile", message: "undefined: x", file: "main.go", line: 3, column: 15 },
      { code: "compile", message: "syntax error", file: "pkg/a/b.go", line: 7 },
      {
        code: "command",
        message: 'Cannot build "example.com/app" for linux/amd64: go build failed (exit code 1)',
        details: "# example.com/app\n./main.go:3:15: undefined: x\npkg/a/b.go:7: syntax error\n\thave (number)",
      },
    ],
  ],
];

describe("errorEvents()", () => {
  test.each(TABLE)("%s", (_, error, events) => {
    expect(errorEvents(error, "/w")).toEqual(events.map((event) => ({ type: "error", ...event })));
  });
});
