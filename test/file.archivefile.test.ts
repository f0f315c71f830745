import { describe, expect, test } from "bun:test";
import { lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { writeArchiveFile } from "../lib/file.ts";
import { KoError } from "../lib/errors.ts";
import { makeFolder } from "./helpers/world-folders.ts";
import { hostAt } from "./helpers/world-host.ts";
import { runToEnd } from "./helpers/world-programs.ts";

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
