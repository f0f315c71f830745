import { describe, expect, test } from "bun:test";
import { truncateSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { describeError, UsageError } from "../lib/errors.ts";
import type { Host } from "../lib/host.ts";
import { type Input, type InputRequest, readInputs } from "../lib/yaml-inputs.ts";
import { silentLog } from "../lib/log.ts";
import { type Tree, type TreeEntry, writeTree } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";

interface World {
  readonly host?: Partial<Host>;
  readonly maxBytes?: number;
  readonly warnings?: string[];
}

/** The inputs, each as `name: text`. */
async function read(tree: Tree, request: Partial<InputRequest>, world: World = {}): Promise<readonly string[]> {
  const host = hostAt(tree.path, world.host);
  const log = { info: () => {}, debug: () => {}, warn: (text: string) => void world.warnings?.push(text) };
  const inputs = await readInputs(
    { files: [], recursive: false, kustomize: undefined, ...request },
    { host, log, signal: host.signal, ...(world.maxBytes === undefined ? {} : { maxBytes: world.maxBytes }) },
  );
  return inputs.map(show);
}

function show({ name, bytes }: Input): string {
  return `${name}: ${new TextDecoder().decode(bytes)}`;
}

/** What a failing work tells, or what it gave instead. */
async function failure(work: Promise<unknown>): Promise<string> {
  return work.then((value) => `no failure, but ${JSON.stringify(value)}`, describeError);
}

const STDIN: Partial<Host> = { readStdin: () => Promise.resolve(new TextEncoder().encode("in")) };

describe("readInputs()", () => {
  const files: Readonly<Record<string, TreeEntry>> = {
    "app.txt": "app",
    "c/b.yaml": "b",
    "c/a.yml": "a",
    "c/Z.json": "{}",
    "c/.hidden.yaml": "hidden",
    "c/.#b.yaml": { link: "nobody@nowhere:1" },
    "c/a.yml~": "backup",
    "c/notes.md": "notes",
    "c/upper.YAML": "upper",
    "c/link.yaml": { link: "../app.txt" },
    "c/named.yaml/x.yaml": "x",
    "c/b/inner.yaml": "inner",
    "c/.git/config.yaml": "git",
    "c/loop": { link: "." },
    "c/up": { link: ".." },
    "c/gone": { link: "nowhere" },
    "far/f.yaml": "f",
    "c/far": { link: "../far" },
  };
  const folder = ["c/Z.json: {}", "c/a.yml: a", "c/b.yaml: b", "c/link.yaml: app"];
  test.each<[string, Partial<InputRequest>, readonly string[]]>([
    ["a file, whatever its name", { files: ["app.txt"] }, ["app.txt: app"]],
    ["a dotfile that is named", { files: ["c/.hidden.yaml"] }, ["c/.hidden.yaml: hidden"]],
    ["a folder's own YAML and JSON, by name", { files: ["c"] }, folder],
    ["a folder with a slash at the end", { files: ["c/"] }, folder],
    ["a folder through a link", { files: ["c/far"] }, ["c/far/f.yaml: f"]],
    [
      "a folder with all below it, links too, each folder once",
      { files: ["c"], recursive: true },
      [
        "c/Z.json: {}",
        "c/a.yml: a",
        "c/b/inner.yaml: inner",
        "c/b.yaml: b",
        "c/far/f.yaml: f",
        "c/link.yaml: app",
        "c/named.yaml/x.yaml: x",
      ],
    ],
    [
      "several in their order",
      { files: ["far", "app.txt", "c/b"] },
      ["far/f.yaml: f", "app.txt: app", "c/b/inner.yaml: inner"],
    ],
    [
      "one file under three names once",
      { files: ["c/b.yaml", "./c/../c/b.yaml", "c"] },
      ["c/b.yaml: b", ...folder.filter((name) => name !== "c/b.yaml: b")],
    ],
    ["standard input, once", { files: ["app.txt", "-", "-"] }, ["app.txt: app", "-: in"]],
    ["standard input by its path", { files: ["/dev/stdin", "-"] }, ["-: in"]],
  ])("reads %s", async (_, request, wanted) => {
    using tree = writeTree(files);
    expect(await read(tree, request, { host: STDIN })).toEqual([...wanted]);
  });

  test("reads the folder it is in, and absolute paths", async () => {
    using tree = writeTree({ "a.yaml": "a", "sub/b.yaml": "b" });
    expect(await read(tree, { files: ["."] })).toEqual(["a.yaml: a"]);
    expect(await read(tree, { files: [tree.at("sub")] })).toEqual([`${tree.at("sub/b.yaml")}: b`]);
  });

  test("keeps the order of a thousand files, and every byte", async () => {
    const names = Array.from({ length: 1000 }, (_, i) => `f${String(i).padStart(4, "0")}.yaml`);
    using tree = writeTree(Object.fromEntries(names.map((name) => [`d/${name}`, `x: ${name}\r\n`])));
    expect(await read(tree, { files: ["d"] })).toEqual(names.map((name) => `d/${name}: x: ${name}\r\n`));
  });

  test("warns of a folder without YAML beside others, and fails if there is nothing else", async () => {
    using tree = writeTree({ "empty/notes.md": "", "empty/sub/a.yaml": "a", "b.yaml": "b" });
    const warnings: string[] = [];
    expect(await read(tree, { files: ["empty", "b.yaml"] }, { warnings })).toEqual(["b.yaml: b"]);
    expect(warnings).toEqual(['directory "empty" holds no .yaml, .yml or .json file; -R reads its subdirectories too']);
    expect(await failure(read(tree, { files: ["empty"] }))).toBe(
      'Error: Cannot find YAML in "empty": there is no .yaml, .yml or .json file\n  Add -R to read subdirectories too.',
    );
  });

  test("reads what the shell's <(command) gives", async () => {
    using tree = writeTree({
      "read.ts": `
        import { readInputs } from ${JSON.stringify(join(import.meta.dir, "../lib/yaml-inputs.ts"))};
        import { createHost } from ${JSON.stringify(join(import.meta.dir, "../lib/host.ts"))};
        import { silentLog } from ${JSON.stringify(join(import.meta.dir, "../lib/log.ts"))};
        const host = createHost();
        const request = { files: process.argv.slice(2), recursive: false, kustomize: undefined };
        const inputs = await readInputs(request, { host, log: silentLog, signal: host.signal });
        console.log(inputs.map(({ bytes }) => new TextDecoder().decode(bytes)).join());`,
    });
    const script = `${JSON.stringify(process.execPath)} read.ts <(printf one) <(head -c 100000 /dev/zero | tr '\\0' x) <(true)`;
    const { stdout, stderr } = await hostAt(tree.path).run(["bash", "-c", script], { timeout: 20_000 });
    expect([stderr, new TextDecoder().decode(stdout)]).toEqual(["", `one,${"x".repeat(100_000)},\n`]);
  });

  test("fails with all that cannot be read, in order", async () => {
    using tree = writeTree({
      "app.yaml": "",
      "dangling/x.yaml": { link: "nowhere" },
      "circle.yaml": { link: "circle.yaml" },
    });
    await hostAt(tree.path).run(["mkfifo", "pipe", "d.yaml"]);
    const server = createServer().listen(tree.at("socket"));
    try {
      const names = ["ap.yaml", "app.yaml/x", "dangling", "circle.yaml", "pipe", "socket", "/dev/zero", "d.yaml"];
      expect(await failure(read(tree, { files: names }))).toBe(
        [
          'Error: Cannot read "ap.yaml": there is no such file',
          '  Did you mean -f "app.yaml"?',
          'Error: Cannot read "app.yaml/x": a part of the path is not a directory',
          'Error: Cannot read "dangling/x.yaml": there is no such file',
          'Error: Cannot read "circle.yaml": its symbolic links form a cycle',
          'Error: Cannot read "pipe": it is a named pipe, wanted a file or a directory',
          'Error: Cannot read "socket": it is a socket, wanted a file or a directory',
          'Error: Cannot read "/dev/zero": it is a device, wanted a file or a directory',
          'Error: Cannot read "d.yaml": it is a named pipe, wanted a file or a directory',
        ].join("\n"),
      );
      expect(await failure(read(tree, { files: ["."] }))).toContain('"circle.yaml"');
    } finally {
      server.close();
    }
  });

  test("refuses a file that is too large, also one that is mostly a hole", async () => {
    using tree = writeTree({ "x.yaml": "12345", "huge.yaml": "" });
    expect(await read(tree, { files: ["x.yaml"] }, { maxBytes: 5 })).toEqual(["x.yaml: 12345"]);
    expect(await failure(read(tree, { files: ["x.yaml"] }, { maxBytes: 4 }))).toBe(
      'Error: Cannot read "x.yaml": it is more than 4 bytes',
    );
    truncateSync(tree.at("huge.yaml"), 2 ** 40);
    expect(await failure(read(tree, { files: ["huge.yaml"] }))).toBe(
      'Error: Cannot read "huge.yaml": it is more than 268435456 bytes',
    );
  });

  test.each<[Partial<InputRequest>, string]>([[{}, "Cannot read YAML: neither -f nor -k is given"]])(
    "refuses %j as wrong usage",
    (request, message) => {
      using tree = writeTree({});
      expect(read(tree, request)).rejects.toThrow(new UsageError(message));
    },
  );

  test("stops when ko is told to", async () => {
    using tree = writeTree({ "x.yaml": "x" });
    const reason = new Error("stop");
    const works = [["x.yaml"], ["x.yaml", "x.yaml"]].map((names) => {
      return read(tree, { files: names }, { host: { signal: AbortSignal.abort(reason) } });
    });
    expect(await Promise.allSettled(works)).toEqual(works.map(() => ({ status: "rejected", reason })));
  });
});

test("a folder whose name was cut short is named", async () => {
  using tree = writeTree({ "config/a.yaml": "a", "other/b.yaml": "b" });
  expect(await failure(read(tree, { files: ["conf/"] }))).toBe(
    'Error: Cannot read "conf/": there is no such file\n  Did you mean -f "config"?',
  );
});

test("a kustomization in a folder of -f is told, with what to type", async () => {
  using tree = writeTree({ "k/kustomization.yaml": "resources: []", "k/a.yaml": "a", "k/deep/Kustomization": "" });
  const warnings: string[] = [];
  await read(tree, { files: ["k"], recursive: true }, { warnings });
  expect(warnings).toEqual([
    "k/deep/Kustomization is for kustomize, and no object of a cluster: for its result use -k k/deep",
    "k/kustomization.yaml is for kustomize, and no object of a cluster: for its result use -k k",
  ]);
});

describe("readInputs() with kept bytes", () => {
  test("reads standard input once, and files each time", async () => {
    using tree = writeTree({ "a.yaml": "1" });
    let times = 0;
    const host = hostAt(tree.path, { readStdin: async () => new TextEncoder().encode(`in ${++times}`) });
    const kept = new Map<string, Uint8Array>();
    const again = async (): Promise<readonly string[]> => {
      const request = { files: ["-", "a.yaml"], recursive: false, kustomize: undefined };
      return (await readInputs(request, { host, log: silentLog, signal: host.signal, kept })).map(show);
    };
    expect(await again()).toEqual(["-: in 1", "a.yaml: 1"]);
    tree.write({ "a.yaml": "2" });
    expect(await again()).toEqual(["-: in 1", "a.yaml: 2"]);
  });
});

describe("readInputs() with -k", () => {
  const tree = {
    "k/kustomization.yaml": "resources: [cm.yaml]\nnamePrefix: pre-\n",
    "k/cm.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  ref: ko://example.com/app\n",
  };
  const kubectl = Bun.which("kubectl");
  if (kubectl === null && process.env["CI"]) throw new Error("the tests need kubectl");

  test.skipIf(kubectl === null)("reads what kubectl kustomize prints, after the files", async () => {
    using folder = writeTree({ ...tree, "x.yaml": "x" });
    expect(await read(folder, { files: ["x.yaml"], kustomize: "k" })).toEqual([
      "x.yaml: x",
      "kubectl kustomize k: apiVersion: v1\ndata:\n  ref: ko://example.com/app\nkind: ConfigMap\nmetadata:\n  name: pre-a\n",
    ]);
  });

  test("says when kubectl fails, and when there is none", async () => {
    using folder = writeTree({ ...tree, "bin/kubectl": { executable: "#!/bin/sh\nexit 3\n" } });
    const path = `${folder.at("bin")}:/usr/bin:/bin`;
    expect(await failure(read(folder, { kustomize: "k" }, { host: { env: { PATH: path } } }))).toBe(
      `Error: Cannot read "kubectl kustomize k": Cannot run ${folder.at("bin/kubectl")}: exit code 3`,
    );
    expect(await failure(read(folder, { kustomize: "k" }, { host: { env: { PATH: "/nowhere" } } }))).toBe(
      'Error: Cannot read "kubectl kustomize k": Cannot find kubectl: it is not on PATH\n' +
        "  Install kubectl (https://kubernetes.io/docs/tasks/tools/), or add its directory to PATH.",
    );
  });
});
