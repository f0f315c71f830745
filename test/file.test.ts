import { describe, expect, test } from "bun:test";
import { lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, symlinkSync } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { KoError, messageOf, UsageError } from "../lib/errors.ts";
import {
  checkWritableFile,
  isBelow,
  isInside,
  look,
  lookAtLink,
  readChunks,
  readEntries,
  readNames,
  realPath,
  withLock,
  writeArchiveFile,
  writeOutputFile,
} from "../lib/file.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { makeFolder, writeTree } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";
import { runToEnd } from "./helpers/world-programs.ts";

describe("isInside() and isBelow()", () => {
  test.each([
    ["/a", "/a", "itself"],
    ["/a/b", "/a", "below"],
    ["/a/..b", "/a", "below"],
    ["/a", "/", "below"],
    ["/", "/", "itself"],
    ["/ab", "/a", "outside"],
    ["/a", "/a/b", "outside"],
    ["/a/c", "/a/b", "outside"],
    ["/", "/a", "outside"],
    ["/a\\b", "/a", "outside"],
    ["C:\\a", "C:\\a", "itself"],
    ["c:\\A", "C:\\a", "itself"],
    ["C:\\a\\b", "C:\\a", "below"],
    ["C:/a/b", "C:\\a", "below"],
    ["C:\\a", "C:\\", "below"],
    ["C:\\a\\..b", "C:\\a", "below"],
    ["C:\\ab", "C:\\a", "outside"],
    ["C:\\a", "C:\\a\\b", "outside"],
    ["D:\\a\\b", "C:\\a", "outside"],
    ["\\\\host\\share\\a", "\\\\host\\share", "below"],
  ] as const)("%s is, seen from %s, %s", (path, folder, place) => {
    expect({ inside: isInside(path, folder), below: isBelow(path, folder) }).toEqual({
      inside: place !== "outside",
      below: place === "below",
    });
  });
});

describe("look(), lookAtLink(), realPath(), readNames() and readEntries()", () => {
  test("tell a file, a folder, a symlink and one that leads nowhere apart", () => {
    using tree = writeTree({
      file: "x",
      "dir/b": "",
      "dir/a": "",
      link: { link: "file" },
      broken: { link: "nowhere" },
    });
    const names = ["file", "dir", "link", "broken", "gone", "file/below"];
    const kind = (stats: ReturnType<typeof look>): string =>
      stats === undefined ? "none" : stats.isSymbolicLink() ? "link" : stats.isDirectory() ? "dir" : "file";
    expect(
      names.map((name) => {
        const path = tree.at(name);
        return [kind(look(path)), kind(lookAtLink(path)), realPath(path)?.slice(tree.path.length + 1)];
      }),
    ).toEqual([
      ["file", "file", "file"],
      ["dir", "dir", "dir"],
      ["file", "link", "file"],
      ["none", "link", undefined],
      ["none", "none", undefined],
      ["none", "none", undefined],
    ]);
    expect({ names: readNames(tree.at("dir")), entries: readEntries(tree.at("dir")).length }).toEqual({
      names: ["a", "b"],
      entries: 2,
    });
    expect([readNames(tree.at("file")), readEntries(tree.at("gone"))]).toEqual([[], []]);
  });
});

describe("readChunks()", () => {
  test.each([0, 1, 256 * 1024, 700_000])(
    "gives all of a file of %d bytes, in pieces that can be kept",
    async (size) => {
      const bytes = new Uint8Array(size).map((_, i) => i % 251);
      using tree = writeTree({ file: bytes });
      const pieces = await Array.fromAsync(readChunks(tree.at("file")));
      expect(Buffer.concat(pieces).equals(bytes)).toBe(true);
      expect(pieces.length).toBe(Math.ceil(size / (256 * 1024)));
    },
  );

  test("says what it is that cannot be read", async () => {
    using tree = writeTree({});
    const path = tree.at("gone");
    const read = (what?: string): Promise<unknown> =>
      rejectionOf(Array.fromAsync(readChunks(path, what === undefined ? {} : { what })));
    expect(messageOf(await read())).toStartWith(`Cannot read "${path}": ENOENT`);
    expect(messageOf(await read("the layer"))).toStartWith("Cannot read the layer: ENOENT");
  });

  test("stops when it is told to", async () => {
    using tree = writeTree({ file: "text" });
    const reason = new Error("enough");
    expect(await rejectionOf(Array.fromAsync(readChunks(tree.at("file"), { signal: AbortSignal.abort(reason) })))).toBe(
      reason,
    );
  });
});

describe("checkWritableFile()", () => {
  test.each(["new", "old", "dir/new", "link", "/dev/null"])("takes %s, and leaves no trace", async (path) => {
    using tree = writeTree({ old: "x", dir: null, link: { link: "dir/real" } });
    const before = readdirSync(tree.path, { recursive: true });
    await checkWritableFile(path.startsWith("/") ? path : tree.at(path), "--timing");
    expect(readdirSync(tree.path, { recursive: true })).toEqual(before);
  });

  test.each([
    ["dir", "it is a folder"],
    ["nowhere/new", "the folder TREE/nowhere does not exist"],
    ["old/new", "the folder TREE/old does not exist"],
  ])("refuses %s", async (path, why) => {
    using tree = writeTree({ old: "x", dir: null });
    const error = await rejectionOf(checkWritableFile(tree.at(path), "--timing"));
    expect(error).toEqual(
      new UsageError(`Cannot write --timing "${tree.at(path)}": ${why.replace("TREE", tree.path)}`),
    );
  });
});

describe("writeOutputFile()", () => {
  test("writes the text, and no other file", async () => {
    using tree = writeTree({});
    await writeOutputFile(tree.at("out"), "text\n", "--timing");
    expect(readdirSync(tree.path)).toEqual(["out"]);
    expect(readFileSync(tree.at("out"), "utf8")).toBe("text\n");
  });

  test("replaces what was there, through a link that stays one", async () => {
    using tree = writeTree({
      "dir/real": "old and longer than what comes now, much longer\n".repeat(9),
      link: { link: "dir/real" },
    });
    await writeOutputFile(tree.at("link"), "text\n", "--timing");
    expect(readFileSync(tree.at("dir/real"), "utf8")).toBe("text\n");
    expect([lstatSync(tree.at("link")).isSymbolicLink(), readdirSync(tree.at("dir"))]).toEqual([true, ["real"]]);
  });

  test("writes to a pipe, and does not replace it", async () => {
    using tree = writeTree({});
    const fifo = tree.at("fifo");
    expect(Bun.spawnSync(["mkfifo", fifo]).exitCode).toBe(0);
    const reader = Bun.spawn(["cat", fifo]);
    await writeOutputFile(fifo, "text\n", "--timing");
    expect(await reader.stdout.text()).toBe("text\n");
    expect(lstatSync(fifo).isFIFO()).toBe(true);
  });

  test("leaves nothing behind when it fails, and says which file", async () => {
    using tree = writeTree({ dir: null });
    const error = await rejectionOf(writeOutputFile(tree.at("dir"), "text\n", "--timing"));
    expect(error).toBeInstanceOf(KoError);
    expect(messageOf(error)).toBe(`Cannot write --timing "${tree.at("dir")}"`);
    expect(readdirSync(tree.path)).toEqual(["dir"]);
  });
});

const { signal } = new AbortController();
const host = hostAt("/");

async function* chunksOf(...texts: readonly string[]): AsyncGenerator<Uint8Array, void, void> {
  for (const text of texts) yield new TextEncoder().encode(text);
}

async function* breaking(...texts: readonly string[]): AsyncGenerator<Uint8Array, void, void> {
  yield* chunksOf(...texts);
  throw new KoError("Cannot read the layer");
}

describe("writeArchiveFile()", () => {
  test("writes a new file that everybody may read, and nothing else", async () => {
    await using folder = await makeFolder();
    const path = join(folder.path, "a.tar");
    await writeArchiveFile(path, chunksOf("one ", "two"), { host, signal });
    expect(readFileSync(path, "utf8")).toBe("one two");
    expect(statSync(path).mode & 0o777).toBe(0o644 & ~process.umask());
    expect(readdirSync(folder.path)).toEqual(["a.tar"]);
  });

  test("replaces a file, through a link", async () => {
    await using folder = await makeFolder();
    const [path, link] = [join(folder.path, "a.tar"), join(folder.path, "link")];
    await Bun.write(path, "something longer than what comes");
    symlinkSync("a.tar", link);
    await writeArchiveFile(link, chunksOf("new"), { host, signal });
    expect([readFileSync(path, "utf8"), readlinkSync(link)]).toEqual(["new", "a.tar"]);
  });

  test.each([
    ["the source breaks", () => breaking("part"), signal, "Cannot read the layer"],
    ["it is interrupted", () => chunksOf("part"), AbortSignal.abort(new KoError("interrupted")), "interrupted"],
  ])("leaves the old file when %s", async (_what, source, abort, message) => {
    await using folder = await makeFolder();
    const path = join(folder.path, "a.tar");
    await Bun.write(path, "old");
    expect(writeArchiveFile(path, source(), { host, signal: abort })).rejects.toThrow(message);
    await writeArchiveFile(path, source(), { host, signal: abort }).catch(() => {});
    expect(readFileSync(path, "utf8")).toBe("old");
    expect(readdirSync(folder.path)).toEqual(["a.tar"]);
  });

  test("says why it cannot write", async () => {
    await using folder = await makeFolder();
    const path = join(folder.path, "missing", "a.tar");
    expect(writeArchiveFile(path, chunksOf("x"), { host, signal })).rejects.toThrow(
      `Cannot write the archive "${path}": ENOENT`,
    );
    mkdirSync(join(folder.path, "missing"));
    expect(writeArchiveFile(join(folder.path, "missing"), chunksOf("x"), { host, signal })).rejects.toThrow(
      "it is a folder, a file is wanted",
    );
  });

  test("says that a device is full, and leaves the device", async () => {
    await using folder = await makeFolder();
    const link = join(folder.path, "full");
    symlinkSync("/dev/full", link);
    expect(writeArchiveFile(link, chunksOf("x"), { host, signal })).rejects.toThrow(
      'Cannot write the archive "/dev/full": ENOSPC',
    );
    expect(lstatSync("/dev/full").isCharacterDevice()).toBe(true);
  });

  test("says that the disk is full, and leaves no part of a file", async () => {
    // Files of this shell may not grow beyond 1 MB; the signal that says so is ignored.
    await using folder = await makeFolder();
    const script = join(folder.path, "write.ts");
    await Bun.write(
      script,
      `import { writeArchiveFile } from "${join(import.meta.dir, "..", "lib", "file.ts")}";
       import { createHost } from "${join(import.meta.dir, "..", "lib", "host.ts")}";
       const host = createHost();
       async function* source() { for (let i = 0; i < 3; i++) yield new Uint8Array(1_000_000); }
       await writeArchiveFile("${join(folder.path, "a.tar")}", source(), { host, signal: host.signal })
         .then(() => console.log("written"), (error) => console.log(error.message));`,
    );
    const { stdout } = await runToEnd(
      ["bash", "-c", 'trap "" XFSZ; ulimit -f 1000; exec "$0" "$1"', process.execPath, script],
      {
        cwd: folder.path,
        env: process.env,
      },
    );
    expect(stdout).toBe(`Cannot write the archive "${join(folder.path, "a.tar")}": EFBIG: file too large, write\n`);
    expect(readdirSync(folder.path)).toEqual(["write.ts"]);
  });

  test("writes into a named pipe, and waits for its reader", async () => {
    await using folder = await makeFolder();
    const pipe = join(folder.path, "pipe");
    await runToEnd(["mkfifo", pipe], { cwd: folder.path, env: process.env });
    const big = "x".repeat(300_000);
    const written = writeArchiveFile(pipe, chunksOf(big, big), { host, signal });
    const { stdout } = await runToEnd(["sh", "-c", `wc -c < '${pipe}'`], { cwd: folder.path, env: process.env });
    await written;
    expect(stdout.trim()).toBe("600000");
    expect(statSync(pipe).isFIFO()).toBe(true);
  });

  test("stops waiting for the reader of a pipe when it is interrupted", async () => {
    await using folder = await makeFolder();
    const pipe = join(folder.path, "pipe");
    await runToEnd(["mkfifo", pipe], { cwd: folder.path, env: process.env });
    const stop = new AbortController();
    const written = writeArchiveFile(pipe, chunksOf("x"), { host, signal: stop.signal });
    stop.abort(new KoError("interrupted"));
    expect(written).rejects.toThrow();
    await written.catch(() => {});
  });

  describe("to standard output", () => {
    const script = `
      import { writeArchiveFile } from "${join(import.meta.dir, "..", "lib", "file.ts")}";
      import { createHost } from "${join(import.meta.dir, "..", "lib", "host.ts")}";
      const host = createHost();
      async function* source() { for (let i = 0; i < 12; i++) yield new Uint8Array(250_000).fill(i); }
      await writeArchiveFile("-", source(), { host, signal: host.signal })
        .catch((error) => { host.err(error.message + "\\n"); process.exitCode = 3; });`;
    const wanted = Buffer.concat(Array.from({ length: 12 }, (_, i) => new Uint8Array(250_000).fill(i)));
    const sum = new Bun.CryptoHasher("sha256").update(wanted).digest("hex");

    test.each([
      ["a pipe", '"$0" "$1" | sha256sum', `${sum}  -\n`, ""],
      ["a pipe whose reader is slow", '"$0" "$1" | { sleep 0.2; sha256sum; }', `${sum}  -\n`, ""],
      ["a file", '"$0" "$1" > out; sha256sum < out', `${sum}  -\n`, ""],
      ["the end of a file", 'printf abc > out; "$0" "$1" >> out; tail -c +4 out | sha256sum', `${sum}  -\n`, ""],
      ["a full device", '"$0" "$1" > /dev/full; echo $?', "3\n", "Cannot write to standard output\n"],
      [
        "a reader that goes away",
        '{ "$0" "$1"; echo $? >&2; } | head -c 3 > /dev/null',
        "",
        "Cannot write to standard output\n3\n",
      ],
    ])("writes to %s", async (_what, line, stdout, stderr) => {
      await using folder = await makeFolder();
      await Bun.write(join(folder.path, "write.ts"), script);
      const argv = ["bash", "-c", line, process.execPath, join(folder.path, "write.ts")];
      const result = await runToEnd(argv, { cwd: folder.path, env: process.env });
      expect({ stdout: result.stdout, stderr: result.stderr }).toEqual({ stdout, stderr });
    });
  });
});

const module = join(import.meta.dir, "..", "lib", "file.ts");

/** A process that takes the lock, says so, and keeps it until it is ended. */
async function holdLock(folder: string, file: string): Promise<Bun.Subprocess> {
  const script = join(folder, "hold.ts");
  await writeFile(
    script,
    `import { withLock } from ${JSON.stringify(module)};
     await withLock(${JSON.stringify(file)}, async () => {
       console.log("held");
       await new Promise((resolve) => setInterval(resolve, 2 ** 30));
     }, { signal: new AbortController().signal });`,
  );
  const child = Bun.spawn([process.execPath, script], { stdio: ["ignore", "pipe", "inherit"] });
  for await (const _ of child.stdout) break;
  return child;
}

describe("withLock()", () => {
  test("lets one work at a time, in one process and in several, and leaves no file", async () => {
    await using folder = await makeFolder();
    const file = join(folder.path, "lock");
    const counter = join(folder.path, "counter");
    const script = join(folder.path, "count.ts");
    await writeFile(counter, "0");
    await writeFile(
      script,
      `import { withLock } from ${JSON.stringify(module)};
       import { readFile, writeFile } from "node:fs/promises";
       const { signal } = new AbortController();
       const add = () => withLock(${JSON.stringify(file)}, async () => {
         const value = Number(await readFile(${JSON.stringify(counter)}, "utf8"));
         await writeFile(${JSON.stringify(counter)}, String(value + 1));
       }, { signal });
       for (let i = 0; i < 10; i++) await Promise.all([add(), add()]);`,
    );
    const children = [0, 1, 2].map(() => Bun.spawn([process.execPath, script], { stdio: ["ignore", 2, 2] }));
    expect(await Promise.all(children.map((child) => child.exited))).toEqual([0, 0, 0]);
    expect(await readFile(counter, "utf8")).toBe("60");
    expect((await readdir(folder.path)).sort()).toEqual(["count.ts", "counter"]);
  });

  test("gives what the work gives, and lets go when it fails", async () => {
    await using folder = await makeFolder();
    const file = join(folder.path, "lock");
    const failed = withLock(file, () => Promise.reject(new RangeError("work")), { signal });
    expect(await failed.catch(String)).toBe("RangeError: work");
    expect(await withLock(file, async () => 42, { signal })).toBe(42);
  });

  test("is free again when the process that held it was killed", async () => {
    await using folder = await makeFolder();
    const file = join(folder.path, "lock");
    const holder = await holdLock(folder.path, file);
    holder.kill("SIGKILL");
    await holder.exited;
    expect(await withLock(file, async () => "free", { signal })).toBe("free");
    expect(await readdir(folder.path)).toEqual(["hold.ts"]);
  });

  test("gives up after a while, and at once when the run is interrupted", async () => {
    await using folder = await makeFolder();
    const file = join(folder.path, "lock");
    const holder = await holdLock(folder.path, file);
    try {
      const late = withLock(file, async () => "no", { signal, patience: 40 });
      expect(await late.catch((error: unknown) => error)).toEqual(
        new KoError(`Cannot lock "${file}": another process has held it for 0 seconds`, {
          hint: "Wait for the other ko to end, then try again.",
          transient: true,
        }),
      );
      const controller = new AbortController();
      const interrupted = withLock(file, async () => "no", { signal: controller.signal });
      controller.abort(new KoError("interrupted"));
      expect(await interrupted.catch(() => "interrupted")).toBe("interrupted");
    } finally {
      holder.kill("SIGKILL");
      await holder.exited;
    }
  });

  test("fails where there is no folder for the file", async () => {
    await using folder = await makeFolder();
    const file = join(folder.path, "none", "lock");
    expect(await withLock(file, async () => "no", { signal }).catch(String)).toBe(`KoError: Cannot lock "${file}"`);
  });
});
