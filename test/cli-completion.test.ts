import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { complete, completionScript, formatCompletion } from "../lib/cli-completion.ts";
import { UsageError } from "../lib/errors.ts";
import { goMod, mainGo } from "./helpers/go.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";

const KO = join(import.meta.dir, "../ko.ts");

let tree: Tree;
beforeAll(() => {
  tree = writeTree({
    "bin/ko": { executable: `#!/bin/sh\nexec '${process.execPath}' --no-env-file '${KO}' "$@"\n` },
    "m/go.mod": goMod("example.com/m"),
    "m/cmd/api/main.go": mainGo(),
    "m/cmd/job/main.go": mainGo(),
    "m/cmd/job/broken.go": 'package main\n\nimport "example.org/nowhere"\n',
    "m/cmd/linux/main_linux.go": mainGo(),
    "m/lib/lib.go": "package lib\n",
    "m/my dir/a b.yaml": "",
    "m/conf.yaml": "",
    "m/config.yaml": "",
    "m/.hidden.yaml": "",
    "m/link": { link: "lib" },
    "plain/x.yaml": "",
  });
});
afterAll(() => tree[Symbol.dispose]());

const HOME = process.env["HOME"] ?? "";

/** The candidates' values for a command line, cut at blanks; `folder` is below the tree. */
async function ask(line: string, folder = "m"): Promise<readonly string[]> {
  const env = { PATH: process.env["PATH"] ?? "", HOME, GOFLAGS: "", GOENV: "off" };
  const { candidates } = await complete(line.split(" "), hostAt(tree.at(folder), { env }));
  return candidates.map(({ value }) => value);
}

describe("complete()", () => {
  const commands = [
    "build",
    "resolve",
    "apply",
    "create",
    "delete",
    "run",
    "config",
    "init",
    "check",
    "login",
    "logout",
    "base",
    "rebase",
    "size",
    "cache",
    "doctor",
    "completion",
    "version",
    "help",
  ];
  test.each<[string, readonly string[]]>([
    ["", commands],
    ["bu", ["build"]],
    ["pub", ["publish"]],
    ["-v re", ["resolve", "rebase"]],
    ["-t run", []],
    ["-t run bu", ["build"]],
    ["help ver", ["version"]],
    ["help env", ["environment"]],
    ["help version ", []],
    ["config sch", ["schema"]],
    ["build sch", []],
    ["cache ", ["clean"]],
    ["cache clean ", []],
    ["completion ", ["bash", "zsh", "fish", "powershell"]],
    ["version ", []],
    ["nonsense ", []],
    ["nonsense --", []],
    ["--v", ["--verbose"]],
    ["build --pl", ["--platform"]],
    ["build --pu", ["--push=false"]],
    ["build --bare --ba", ["--base-import-paths"]],
    ["build --tags=x --tags", ["--tags"]],
    ["build --tag", ["--tags", "--tag-only"]],
    ["build --push=", ["--push=true", "--push=false"]],
    ["build -B=f", ["-B=false"]],
    ["build --nonsense=", []],
    ["build --platform linux/arm", ["linux/arm64", "linux/arm/v7"]],
    ["build --platform=linux/arm", ["--platform=linux/arm64", "--platform=linux/arm/v7"]],
    ["build --platform linux/arm64,linux/arm", ["linux/arm64,linux/arm/v7"]],
    ["build --image-refs co", ["conf.yaml", "config.yaml"]],
    ["build --ti", ["--timing", "--timing="]],
    ["build --timing=co", ["--timing=conf.yaml", "--timing=config.yaml"]],
    ["build --timing ./cmd/j", ["./cmd/job"]],
    ["-t x --timing bu", ["build"]],
    ["build --timing=x --ti", []],
    ["resolve -f co", ["conf.yaml", "config.yaml"]],
    ["resolve -Rf co", ["conf.yaml", "config.yaml"]],
    ["resolve -f=conf.yaml,l", ["-f=conf.yaml,lib/", "-f=conf.yaml,link/"]],
    ["resolve -f .", [".hidden.yaml"]],
    ["resolve -f ./lib/", ["./lib/lib.go"]],
    ["resolve -f nowhere/", []],
    ["resolve -k ", ["cmd/", "lib/", "link/", "my dir/"]],
    ["apply --nam", ["--namespace"]],
    ["apply -n ", []],
    ["apply x -- --", []],
    ["delete -f con", ["conf.yaml", "config.yaml"]],
    ["delete --wait -", []],
    ["build ", ["./cmd/api", "./cmd/job", "./cmd/linux"]],
    ["build ./cmd/j", ["./cmd/job"]],
    ["build ./cmd/api ./cmd/j", ["./cmd/job"]],
    ["build -- ./cmd/j", ["./cmd/job"]],
    ["build ../p", ["../plain/"]],
    ["build k", ["ko://"]],
    ["build ko://example.com/m/cmd/a", ["ko://example.com/m/cmd/api"]],
    ["run exam", ["example.com/m/cmd/api", "example.com/m/cmd/job", "example.com/m/cmd/linux"]],
    ["run ./cmd/api ", []],
    ["run ./cmd/api -- ", []],
  ])("ends %j with %j", async (line, wanted) => {
    expect(await ask(line)).toEqual([...wanted]);
  });

  test("offers all flags of a command, and those of every command", async () => {
    expect(await ask("version -")).toEqual(["--verbose", "--quiet", "--help"]);
    expect(await ask("resolve --")).toContain("--filename");
  });

  test("finds import paths of the whole module from a subfolder", async () => {
    expect(await ask("build example.com/m/cmd/a", "m/lib")).toEqual(["example.com/m/cmd/api"]);
    expect(await ask("build ", "m/cmd/api")).toEqual(["."]);
  });

  test("is silent without a module, and without Go", async () => {
    expect(await ask("build ", "plain")).toEqual([]);
    expect(await ask("build example", "plain")).toEqual([]);
    const host = hostAt(tree.at("m"), { env: { PATH: "/nowhere" } });
    expect(await complete(["build", ""], host)).toEqual({ candidates: [], paths: false });
  });

  test("does not wait for a go that hangs", async () => {
    using slow = writeTree({ "bin/go": { executable: "#!/bin/sh\nexec sleep 60\n" } });
    const host = hostAt(slow.path, { env: { PATH: `${slow.at("bin")}:/usr/bin:/bin` } });
    const started = performance.now();
    expect(await complete(["build", ""], host)).toEqual({ candidates: [], paths: false });
    expect(performance.now() - started).toBeLessThan(10_000);
  });

  test("knows the home folder", async () => {
    const host = hostAt("/", { env: { HOME: tree.path } });
    expect(await complete(["resolve", "-f", "~/pl"], host)).toEqual({
      candidates: [{ value: "~/plain/" }],
      paths: true,
    });
  });
});

describe("formatCompletion()", () => {
  test("writes a line for each candidate, and what they are", () => {
    const candidates = [{ value: "a", description: "An a." }, { value: "b" }];
    expect(formatCompletion({ candidates, paths: false })).toBe("a\tAn a.\nb\n:words\n");
    expect(formatCompletion({ candidates: [], paths: true })).toBe(":paths\n");
  });
});

describe("completionScript()", () => {
  test("is for bash if nothing is named, and refuses a shell it does not know", () => {
    expect(completionScript()).toBe(completionScript("bash"));
    expect(() => completionScript("fsh")).toThrow(
      new UsageError('Cannot print a completion script for "fsh": the shell is not supported, the nearest is zsh'),
    );
    expect(() => completionScript("toString")).toThrow(UsageError);
  });

  /** What one types, `\t` for the Tab key, and what then stands on the line. */
  const typed: readonly (readonly [string, string])[] = [
    ["ko comp\t", "ko completion "],
    ["ko build --pus\t", "ko build --push=false "],
    ["ko build --platform=linux/s3\t", "ko build --platform=linux/s390x "],
    ["ko build --platform linux/arm64,linux/s3\t", "ko build --platform linux/arm64,linux/s390x "],
    ["ko build ./cmd/j\t", "ko build ./cmd/job "],
    ["ko build ko://example.com/m/cmd/j\t", "ko build ko://example.com/m/cmd/job "],
    ["ko apply -f my\t", "ko apply -f my\\ dir/"],
    ["ko apply -f my\\ dir/a\t", "ko apply -f my\\ dir/a\\ b.yaml "],
    ['ko apply -f "my dir/a\t', 'ko apply -f "my dir/a b.yaml" '],
    ["ko apply --filename=my\t", "ko apply --filename=my\\ dir/"],
    ["ko apply --timing=my\t", "ko apply --timing=my\\ dir/"],
    ["../bin/ko apply --namesp\t", "../bin/ko apply --namespace "],
  ];

  test.each([
    ["bash", ["--norc", "--noprofile", "-i"]],
    ["zsh", ["-f", "-i"]],
  ] as const)(
    "completes what is typed into %s, also when it is read twice",
    async (shell, args) => {
      const path = findShell(shell);
      if (path === undefined) return;
      await using terminal = openTerminal([path, ...args]);
      const source = `source <(ko completion ${shell})`;
      // The prompt is written so that the line as typed is no sign of it.
      await terminal.type(`${source}; ${source}; PS1='READY''> '\n`, "READY> ");
      for (const [keys, wanted] of typed) {
        await terminal.type(keys, wanted);
        // Ctrl-U drops what stands there.
        await terminal.type("\x15\n", "READY> ");
      }
      expect(terminal.errors()).toEqual([]);
    },
    60_000,
  );

  test("completes in fish, also when it is read twice", async () => {
    const fish = findShell("fish");
    if (fish === undefined) return;
    const lines = typed.map(([keys]) => keys.replace("\t", "").replaceAll("'", "\\'"));
    const script = [
      "ko completion fish | source",
      "ko completion fish | source",
      ...lines.map((line) => `complete -C '${line.replaceAll("\\", "\\\\")}' | string replace -r '\\t.*' ''`),
    ].join("\n");
    const env = { PATH: `${tree.at("bin")}:${process.env["PATH"]}`, HOME: tree.path, TERM: "dumb", GOCACHE: goCache() };
    const { stdout } = await hostAt(tree.at("m"), { env }).run([fish, "-c", script], { timeout: 30_000 });
    expect(new TextDecoder().decode(stdout).trimEnd().split("\n")).toEqual([
      "completion",
      "--push=false",
      "--platform=linux/s390x",
      "linux/arm64,linux/s390x",
      "./cmd/job",
      "ko://example.com/m/cmd/job",
      "my dir/",
      "my dir/a b.yaml",
      "my dir/a b.yaml",
      "--filename=my dir/",
      "--timing=my dir/",
      "--namespace",
    ]);
  });
});

function goCache(): string {
  return process.env["GOCACHE"] ?? join(HOME, ".cache/go-build");
}

/** @throws {Error} If it is missing and `CI` is set. */
function findShell(name: string): string | undefined {
  const path = Bun.which(name) ?? undefined;
  if (path === undefined && process.env["CI"]) throw new Error(`the tests need ${name}: apt-get install ${name}`);
  if (path === undefined) console.warn(`skipped: the tests need ${name}`);
  return path;
}

interface Terminal extends AsyncDisposable {
  /** Types `keys` and waits until `wanted` has come. */
  type(keys: string, wanted: string): Promise<void>;
  /** Lines that tell of a failure. */
  errors(): readonly string[];
}

function openTerminal(argv: readonly string[]): Terminal {
  let all = "";
  let fresh = "";
  let check = (): void => {};
  const decoder = new TextDecoder();
  const child = Bun.spawn([...argv], {
    cwd: tree.at("m"),
    env: {
      PATH: `${tree.at("bin")}:${process.env["PATH"]}`,
      HOME: tree.path,
      TERM: "dumb",
      GOCACHE: goCache(),
      LC_ALL: "C.UTF-8",
    },
    terminal: {
      cols: 200,
      rows: 50,
      data: (_, data) => {
        const text = decoder.decode(data, { stream: true });
        all += text;
        fresh += text;
        check();
      },
    },
  });
  return {
    type: (keys, wanted) => {
      fresh = "";
      return new Promise((resolve, reject) => {
        const timer = setTimeout(
          () => reject(new Error(`typed ${JSON.stringify(keys)}, got ${JSON.stringify(fresh)}`)),
          20_000,
        );
        check = () => {
          if (!fresh.includes(wanted)) return;
          clearTimeout(timer);
          resolve();
        };
        child.terminal?.write(keys);
      });
    },
    errors: () => all.split(/\r?\n/).filter((line) => /error|readonly|not found|bad /i.test(line)),
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await child.exited;
      child.terminal?.close();
    },
  };
}
