import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { truncateSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { describeError, UsageError } from "../lib/errors.ts";
import type { Host } from "../lib/host.ts";
import { type Input, type InputRequest, readInputs } from "../lib/yaml-inputs.ts";
import { fetchInput } from "../lib/yaml-inputs-url.ts";
import { silentLog } from "../lib/log.ts";
import { hostAt } from "./helpers/hostat.ts";
import { type Tree, type TreeEntry, writeTree } from "./helpers/tree.ts";

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
    expect(warnings).toEqual(['folder "empty" holds no .yaml, .yml or .json file; -R reads its subfolders too']);
    expect(await failure(read(tree, { files: ["empty"] }))).toBe(
      'Error: Cannot find any YAML in "empty": there is no .yaml, .yml or .json file\n  Add -R to read the subfolders too.',
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
          '  Type -f "app.yaml" if you mean that.',
          'Error: Cannot read "app.yaml/x": a part of the path is no folder',
          'Error: Cannot read "dangling/x.yaml": there is no such file',
          'Error: Cannot read "circle.yaml": its symbolic links lead in a circle',
          'Error: Cannot read "pipe": it is a named pipe, wanted a file or a folder',
          'Error: Cannot read "socket": it is a socket, wanted a file or a folder',
          'Error: Cannot read "/dev/zero": it is a device, wanted a file or a folder',
          'Error: Cannot read "d.yaml": it is a named pipe, wanted a file or a folder',
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

  test.each<[Partial<InputRequest>, string]>([
    [{}, "Cannot read any YAML: neither -f nor -k says where it is"],
    [{ files: ["a", ""] }, "Cannot use --filename: one of its values is empty"],
    [{ kustomize: "" }, "Cannot use --kustomize: its value is empty"],
  ])("refuses %j as wrong usage", (request, message) => {
    using tree = writeTree({});
    expect(read(tree, request)).rejects.toThrow(new UsageError(message));
  });

  test("stops when ko is told to", async () => {
    using tree = writeTree({ "x.yaml": "x" });
    const reason = new Error("stop");
    const works = [["x.yaml"], ["x.yaml", "x.yaml"]].map((names) => {
      return read(tree, { files: names }, { host: { signal: AbortSignal.abort(reason) } });
    });
    expect(await Promise.allSettled(works)).toEqual(works.map(() => ({ status: "rejected", reason })));
  });
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
        "  Install it (https://kubernetes.io/docs/tasks/tools/), or put its folder on PATH.",
    );
  });
});

describe("fetchInput()", () => {
  const asked: { readonly path: string; readonly authorization: string | null }[] = [];
  let server: Bun.Server<undefined>;
  let origin = "";
  beforeAll(() => {
    server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      idleTimeout: 0,
      fetch: (request) => {
        const { pathname, search } = new URL(request.url);
        asked.push({ path: pathname + search, authorization: request.headers.get("authorization") });
        return answer(pathname);
      },
    });
    origin = server.url.origin;
  });
  afterAll(() => server.stop(true));

  function answer(path: string): Response {
    const [, kind = "", value = ""] = /^\/(\w+)(?:\/(.*))?$/.exec(path) ?? [];
    if (kind === "ok") return new Response("a: b\n");
    if (kind === "to") return new Response(null, { status: 302, headers: { location: decodeURIComponent(value) } });
    if (kind === "loop") return new Response(null, { status: 307, headers: { location: "/loop" } });
    if (kind === "page") return new Response("<!DOCTYPE html>", { headers: { "content-type": "text/html" } });
    if (kind === "bomb") {
      const body = Bun.gzipSync(new Uint8Array(1 << 20));
      return new Response(body, { headers: { "content-encoding": "gzip" } });
    }
    if (kind === "silent")
      return new Response(new ReadableStream({ type: "bytes", pull: () => new Promise(() => {}) }));
    if (kind === "half") {
      return new Response(
        new ReadableStream<Uint8Array>({
          start: (controller) => controller.enqueue(new TextEncoder().encode("a: ")),
        }),
      );
    }
    return new Response("secret of the server", { status: Number(value) || 404 });
  }

  const get = async (url: string, options = {}): Promise<string> => {
    const host = hostAt("/");
    const work = fetchInput(url, {
      host: { ...host, env: { HTTP_PROXY: "http://127.0.0.1:1" } },
      signal: host.signal,
      ...options,
    });
    return work.then((bytes) => new TextDecoder().decode(bytes), describeError);
  };

  test("reads a file of a server on this machine, past the proxy", async () => {
    expect(await get(`${origin}/ok`)).toBe("a: b\n");
  });

  test("follows redirects, and shows the user's name and password to the first server only", async () => {
    using other = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: (request) => new Response(`got ${request.headers.get("authorization")}`),
    });
    asked.length = 0;
    const withUser = `${origin.replace("//", "//me:p%40ss@")}/to`;
    expect(await get(`${withUser}/%2Fok`)).toBe("a: b\n");
    const authorization = `Basic ${btoa("me:p@ss")}`;
    expect(asked).toEqual([
      { path: "/to/%2Fok", authorization },
      { path: "/ok", authorization },
    ]);
    expect(await get(`${withUser}/${encodeURIComponent(`${other.url.origin}/x`)}`)).toBe("got null");
  });

  test.each<[string, string, string]>([
    ["an error", "/status/500", "the answer is 500 Internal Server Error, wanted 200"],
    ["too many redirects", "/loop", "it leads on more than 10 times"],
    [
      "a redirect to a server without TLS",
      "/to/http%3A%2F%2Fexample.com%2Fx%3Fsig%3Dcanary",
      'it leads to "http://example.com/x?sig=REDACTED", and only https is taken, or http on this machine',
    ],
    [
      "a redirect to a file",
      "/to/file%3A%2F%2F%2Fetc%2Fpasswd",
      'it leads to "file:///etc/passwd", and only https is taken, or http on this machine',
    ],
    ["too much after decompression", "/bomb", "it is more than 100 bytes"],
    ["no answer", "/silent", "no answer for 0.2 s"],
    ["half a body", "/half", "no byte came for 0.2 s"],
    [
      "a web page",
      "/page",
      "it is a web page, wanted YAML\n  Name the raw file: the page shows it with much around it.",
    ],
  ])("fails on %s", async (_, path, why) => {
    const message = await get(`${origin}${path}?token=canary`, { maxBytes: 100, patience: 200 });
    expect(message).toBe(`Error: Cannot read "${origin}${path}?token=REDACTED": ${why}`);
  });

  test.each([
    ["http://example.com/x.yaml", "only https is taken, or http on this machine"],
    ["http://user:canary@10.0.0.1/x.yaml?sig=canary", "only https is taken, or http on this machine"],
    ["http://127.0.0.1:1/x?sig=canary", "the server cannot be asked, or broke off (ECONNREFUSED)"],
  ])("does not ask %s", async (url, why) => {
    const message = await get(url);
    expect(message).toEndWith(`": ${why}`);
    expect(message).not.toContain("canary");
  });

  test("ends at once when ko is told to", async () => {
    const controller = new AbortController();
    const host = hostAt("/");
    const work = fetchInput(`${origin}/silent`, { host, signal: controller.signal });
    const reason = new Error("stop");
    controller.abort(reason);
    expect(await Promise.allSettled([work])).toEqual([{ status: "rejected", reason }]);
  });

  test("is what readInputs() does with a URL, the secret parts hidden in the name", async () => {
    using tree = writeTree({});
    expect(await read(tree, { files: [`${origin}/ok?sig=canary`] })).toEqual([`${origin}/ok?sig=REDACTED: a: b\n`]);
  });
});
