import { describe, expect, test } from "bun:test";
import { realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { askGo, kindOfGo, maySwitch } from "../lib/go-command.ts";
import { goWorld } from "./helpers/go.ts";
import { type TreeEntry, writeTree } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";

const GO = Bun.which("go") ?? "";
const GOROOT = GO === "" ? "" : dirname(dirname(realpathSync(GO)));

const script = (text: string): TreeEntry => ({ executable: `#!/bin/sh\n${text}` });

describe.skipIf(GO === "")("kindOfGo()", () => {
  test.each<[string, TreeEntry, ReturnType<typeof kindOfGo>]>([
    ["a link to the go of an installation", { link: GO }, "plain"],
    ["a link to another program, as those of mise and aqua", { link: process.execPath }, "chooser"],
    ["another name of a program, as those of asdf", script(`# asdf-plugin: golang 1.26\nexec ${GO} "$@"\n`), "chooser"],
    [
      "another name with a constant variable",
      script(`set -e\nexport GOFLAGS='-tags=a b'\n\nexec "${GO}" "$@"\n`),
      "chooser",
    ],
    ["another name of a program on PATH", script('exec env exec "go" "$@"\n'), "chooser"],
    ["another name of a script", script('exec ./other "$@"\n'), "script"],
    ["another name of a script on PATH", script('exec wrapped-go "$@"\n'), "script"],
    ["another name of no program", script('exec none "$@"\n'), "script"],
    ["a script that runs another script", script('exec sh other "$@"\n'), "script"],
    ["a variable of a file", script(`export GOFLAGS="$(cat x)"\nexec ${GO} "$@"\n`), "script"],
    ["a variable of another variable", script(`export GOFLAGS=$X\nexec ${GO} "$@"\n`), "script"],
    ["a variable of a command", script(`export GOFLAGS=\`cat x\`\nexec ${GO} "$@"\n`), "script"],
    ["a call of go build that differs", script(`if [ "$1" = build ]; then exit 1; fi\nexec ${GO} "$@"\n`), "script"],
    ["other words", script(`exec ${GO} "$1"\n`), "script"],
    ["another command before", script(`. ./x\nexec ${GO} "$@"\n`), "script"],
    ["a script of another language", { executable: `#!/usr/bin/env python3\nimport os\n` }, "script"],
  ])("%s", (_name, entry, want) => {
    using tree = writeTree({
      "bin/go": entry,
      "bin/other": script("exit 1\n"),
      "bin/wrapped-go": script("exit 1\n"),
    });
    const host = hostAt(tree.at("bin"), { env: { PATH: `${tree.at("bin")}:/usr/bin:/bin` } });
    expect(kindOfGo(tree.at("bin/go"), { host, settings: { goroot: GOROOT } })).toBe(want);
  });

  test("a go whose installation is another", () => {
    const host = hostAt("/");
    expect(kindOfGo(GO, { host, settings: { goroot: "/none" } })).toBe("chooser");
    expect(kindOfGo(GO, { host, settings: { goroot: undefined } })).toBe("chooser");
  });
});

describe("maySwitch()", () => {
  test.each([
    ["", false],
    ["local", false],
    ["auto", true],
    ["path", true],
    ["go1.26.8", true],
    ["local+auto", true],
  ])("GOTOOLCHAIN=%s: %p", (value, want) => {
    expect(maySwitch({ get: () => value })).toBe(want);
  });
});

describe.skipIf(GO === "")("askGo()", () => {
  test("gives equal answers to equal questions, and others where a setting differs", async () => {
    using tree = writeTree({ "go.mod": "module example.com/app\n" });
    const ask = (env: Record<string, string>): ReturnType<typeof askGo> => {
      const world = goWorld(tree.path, env);
      return askGo({ ...world, cwd: tree.path, env: world.host.env });
    };
    const [first, again, other] = await Promise.all([ask({}), ask({}), ask({ GOFLAGS: "-tags=x" })]);
    expect(first?.values).toMatchObject({ GOROOT, GOMOD: join(tree.path, "go.mod"), GOFLAGS: "-buildvcs=false" });
    expect(again).toEqual(first);
    expect(other?.digest).not.toBe(first?.digest ?? "");
    expect(other?.values["GOFLAGS"]).toBe("-tags=x");
  });

  test("has no answer of a go that fails", async () => {
    using tree = writeTree({ go: script("exit 1\n"), garbage: script("echo x\n") });
    for (const name of ["go", "garbage", "none"]) {
      const world = goWorld(tree.path);
      expect(await askGo({ ...world, go: `./${name}`, cwd: tree.path, env: world.host.env })).toBeUndefined();
    }
  });
});
