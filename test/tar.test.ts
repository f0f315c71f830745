import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  appendFileSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { extract } from "tar-stream";
import { TAR_BLOCK_BYTES, type TarEntry, packTar, tarHeader } from "../lib/tar.ts";
import { failureOf } from "./helpers/failures.ts";
import { buildGotar, type Gotar, toGotarInput } from "./helpers/go-fixtures.ts";

const { signal } = new AbortController();
let folder: string;
let gotar: Gotar;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ko-tar-test-"));
  gotar = buildGotar(folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const FILE = { type: "file", mode: 0o555, mtime: 0, size: 0 } as const;
const DIRECTORY = { type: "directory", mode: 0o555, mtime: 0, size: 0 } as const;
const LINK = { type: "symlink", mode: 0o777, mtime: 0, size: 0 } as const;
const seg = (length: number): string => "s".repeat(length);

const HEADERS: readonly (readonly [string, TarEntry])[] = [
  ["an empty file", { ...FILE, name: "/var/run/ko/f" }],
  ["a directory without a slash", { ...DIRECTORY, name: "ko-app" }],
  ["a directory with a slash", { ...DIRECTORY, name: "ko-app/" }],
  ["a time and another mode", { ...FILE, name: "a", mode: 0o1777, mtime: 1_700_000_000, size: 5 }],
  ["owner and group", { ...FILE, name: "a", uid: 65532, gid: 1000 }],
  ["a time before 1970", { ...FILE, name: "a", mtime: -1 }],
  ["the last time that octal digits hold", { ...FILE, name: "a", mtime: 8_589_934_591 }],
  ["a time beyond octal digits", { ...FILE, name: "a", mtime: 8_589_934_592 }],
  ["a name of 99 bytes", { ...FILE, name: seg(99) }],
  ["a name of 100 bytes", { ...FILE, name: seg(100) }],
  ["a name of 101 bytes without a slash", { ...FILE, name: seg(101) }],
  ["a long name with its only slash in front", { ...FILE, name: `/${seg(100)}` }],
  ["a long name that can be split", { ...FILE, name: `/var/run/ko/${seg(90)}/${seg(60)}` }],
  ["a prefix of 155 bytes and a suffix of 100", { ...FILE, name: `${seg(155)}/${seg(100)}` }],
  ["a prefix of 156 bytes", { ...FILE, name: `${seg(156)}/${seg(99)}` }],
  ["a suffix of 101 bytes", { ...FILE, name: `${seg(50)}/${seg(101)}` }],
  ["a name over 256 bytes with many slashes", { ...FILE, name: `/${"abcdefghi/".repeat(30)}end` }],
  ["a long directory with a slash at its end", { ...DIRECTORY, name: `${seg(60)}/${seg(60)}/` }],
  ["a long directory cut at a slash", { ...DIRECTORY, name: `${seg(99)}/${seg(101)}/` }],
  ["a non-ASCII name cut at a slash", { ...DIRECTORY, name: `é${seg(99)}/x` }],
  ["a non-ASCII name", { ...FILE, name: "/var/run/ko/größe/日本.txt" }],
  ["a character beyond U+FFFF", { ...FILE, name: "/var/run/ko/😀" }],
  ["a long non-ASCII name", { ...FILE, name: `/var/run/ko/${"é".repeat(80)}/${"ü".repeat(80)}` }],
  ["a name with control characters", { ...FILE, name: "a\nb\x7f\x01c" }],
  ["a name with double slashes and PAX", { ...FILE, name: "//a///b/../cé", pax: { k: "v" } }],
  ["a link", { ...LINK, name: "a", linkName: "b" }],
  ["a link to 100 bytes", { ...LINK, name: "a", linkName: seg(100) }],
  ["a link to 101 bytes", { ...LINK, name: "a", linkName: `x/${seg(99)}` }],
  ["a non-ASCII link", { ...LINK, name: "a", linkName: "ä" }],
  ["the largest size that octal digits hold", { ...FILE, name: "a", size: 0o77777777777 }],
  ["a size of 8 GiB", { ...FILE, name: "a", size: 2 ** 33 }],
  ["a size of 8 GiB with a long name", { ...FILE, name: `${seg(80)}/${seg(80)}`, size: 2 ** 33 }],
  ["a PAX record", { ...FILE, name: "Files/ko-app/app", pax: { "MSWINDOWS.rawsd": "AQAAgBQAAAAkAAAA==" } }],
  ["a PAX record with a name that could be split", { ...FILE, name: `${seg(80)}/${seg(80)}`, pax: { k: "v" } }],
  ["PAX bytes from 0x80 on", { ...FILE, name: "/ko-app/app", pax: { "SCHILY.xattr.security.capability": bytes() } }],
  ["PAX keys in the order of their bytes", { ...FILE, name: "é", pax: { z: "1", a: "2", "Z.b": "3", "a.b": "4" } }],
  ["PAX keys that are Go's own", { ...FILE, name: "a", pax: { path: "x", mtime: "5", "GNU.sparse.major": "1" } }],
  ["no PAX records in the map", { ...FILE, name: "a", pax: {} }],
  ...[1, 90, 93, 94, 95, 96, 990, 991, 992, 993, 994].map((length) => {
    return [`a PAX value of ${length} bytes`, { ...FILE, name: "a", pax: { k: seg(length) } }] as const;
  }),
];

/** Every value of a byte. */
function bytes(): Uint8Array {
  return Uint8Array.from({ length: 256 }, (_, i) => i);
}

describe("tarHeader()", () => {
  let want: readonly string[];
  beforeAll(() => {
    const out = gotar(["header"], toGotarInput(HEADERS.map(([, entry]) => entry)));
    want = Buffer.from(out).toString().trim().split("\n");
  });

  test.each(HEADERS.map(([what, entry], i) => ({ what, entry, i })))("equals Go's: $what", ({ entry, i }) => {
    expect(Buffer.from(tarHeader(entry)).toString("hex")).toBe(want[i] ?? "");
  });
});

describe("packTar()", () => {
  test("gives the same bytes in shared memory", async () => {
    const content = crypto.getRandomValues(new Uint8Array(60_000));
    const entries = Array.from({ length: 50 }, (_, i) => ({
      ...FILE,
      name: `f${i}`,
      size: content.byteLength,
      content,
    }));
    const [own, shared] = [new Bun.CryptoHasher("sha256"), new Bun.CryptoHasher("sha256")];
    for await (const chunk of packTar(entries, { signal })) own.update(chunk);
    for await (const chunk of packTar(entries, { signal, reuse: true })) shared.update(chunk);
    expect(shared.digest("hex")).toBe(own.digest("hex"));
  });

  test("takes the content of a file from a stream, in pieces of any size, when its turn comes", async () => {
    const content = bytes();
    const opened: AbortSignal[] = [];
    const stream = {
      open: async function* (given: AbortSignal) {
        opened.push(given);
        for (let at = 0, size = 1; at < content.byteLength; at += size, size = size * 7 + 1) {
          yield content.subarray(at, at + size);
        }
      },
    };
    const entry = { ...FILE, name: "a", size: content.byteLength };
    const after = { ...FILE, name: "b" };
    const streamed = await pack([{ ...entry, content: stream }, after]);
    expect(streamed.equals(await pack([{ ...entry, content }, after]))).toBe(true);
    expect(opened).toEqual([signal]);
  });

  test.each([
    ["shorter", 4],
    ["longer", 6],
  ])("does not write an archive whose stream is %s than its header says", (_what, size) => {
    const stream = {
      open: async function* () {
        yield new Uint8Array(size);
      },
    };
    const packed = packTar([{ ...FILE, name: "a", size: 5, content: stream }], { signal });
    expect(Array.fromAsync(packed)).rejects.toThrow("the content of the tar entry a is not 5 bytes long");
  });

  test("equals Go's archive of many entries, with contents around the sizes of records and blocks", async () => {
    const sizes = [0, 1, 511, 512, 513, 1024, TAR_BLOCK_BYTES - 1024, TAR_BLOCK_BYTES, TAR_BLOCK_BYTES + 1, 3_000_000];
    const entries: TarEntry[] = [
      { ...DIRECTORY, name: "/var" },
      ...sizes.map((size): TarEntry => ({ ...FILE, name: `/var/f${size}`, size, content: noise(size) })),
      { ...LINK, name: "/var/link", linkName: "f1" },
      { ...FILE, name: `/var/${"é".repeat(100)}`, size: 3, content: noise(3), pax: { k: Uint8Array.of(0x80) } },
    ];
    const want = gotar(["tar"], toGotarInput(entries));

    expect(Buffer.compare(await pack(entries), want)).toBe(0);
    const fromFiles = entries.map((entry, i): TarEntry => {
      if (!(entry.content instanceof Uint8Array)) return entry;
      const path = join(folder, `content-${i}`);
      writeFileSync(path, entry.content);
      return { ...entry, content: { path } };
    });
    expect(Buffer.compare(await pack(fromFiles), want)).toBe(0);
  });

  test("gives blocks of 1 MiB but for the last", async () => {
    const lengths: number[] = [];
    const content = noise(2 * TAR_BLOCK_BYTES);
    const entries: readonly TarEntry[] = [{ ...FILE, name: "a", size: content.byteLength, content }];
    for await (const block of packTar(entries, { signal })) lengths.push(block.byteLength);
    expect(lengths).toEqual([TAR_BLOCK_BYTES, TAR_BLOCK_BYTES, 512 + 1024]);
  });

  test("is read by another implementation", async () => {
    const name = `/var/run/ko/${"日".repeat(60)}`;
    const entries: readonly TarEntry[] = [{ ...FILE, name, mtime: 7, size: 2, content: Buffer.from("hi") }];
    const seen: unknown[] = [];
    const reader = extract();
    reader.on("entry", (header, stream, next) => {
      const { name: path, size, mode, mtime } = header;
      seen.push({ path, size, mode, mtime: (mtime?.getTime() ?? NaN) / 1000 });
      stream.on("end", next);
      stream.resume();
    });
    const done = Promise.withResolvers<void>();
    reader.on("finish", () => done.resolve());
    reader.on("error", (error) => done.reject(error));
    reader.end(await pack(entries));
    await done.promise;
    expect(seen).toEqual([{ path: name, size: 2, mode: 0o555, mtime: 7 }]);
  });

  describe("refuses a file that differs from its entry", () => {
    const cases: readonly (readonly [string, (path: string) => void, RegExp])[] = [
      ["it has shrunk", (path) => truncateSync(path, 9), /had 10 bytes when it was found and has 9 now/],
      ["it has grown", (path) => appendFileSync(path, "x"), /had 10 bytes when it was found and has 11 now/],
      ["it is gone", (path) => rmSync(path), /ENOENT/],
      ["a folder took its place", (path) => symlinkTo(path, "/"), /not a regular file any more/],
      ["a fifo took its place", (path) => fifoAt(path), /not a regular file any more/],
    ];
    test.each(cases)("%s", async (what, change, why) => {
      const path = join(folder, what);
      writeFileSync(path, "0123456789");
      change(path);
      const { message } = await failureOf(() => pack([{ ...FILE, name: "a", size: 10, content: { path } }]));
      expect(message).toContain(`"${path}"`);
      expect(message).toMatch(why);
    });
  });

  test("refuses a file that was empty and is not any more", async () => {
    const path = join(folder, "no longer empty");
    writeFileSync(path, "x");
    expect((await failureOf(() => pack([{ ...FILE, name: "a", content: { path } }]))).message).toBe(
      `Cannot pack "${path}": it had 0 bytes when it was found and has 1 now`,
    );
  });

  test("notices that a file shrinks or grows while it is read", async () => {
    for (const change of [
      (path: string) => truncateSync(path, 2_000_000),
      (path: string) => appendFileSync(path, "x"),
    ]) {
      const path = join(folder, "moving");
      writeFileSync(path, noise(5_000_000));
      const blocks = packTar([{ ...FILE, name: "a", size: 5_000_000, content: { path } }], { signal });
      await blocks.next();
      change(path);
      expect((await failureOf(() => Array.fromAsync(blocks))).message).toContain(
        "had 5000000 bytes when it was found and has ",
      );
    }
  });

  test("refuses another file where a symlink took the place of a part of the path, not one that an editor wrote", async () => {
    const root = realpathSync(folder);
    for (const name of ["data", "secrets"]) mkdirSync(join(root, name));
    for (const name of ["data/f", "secrets/f"]) writeFileSync(join(root, name), name.slice(0, 4));
    const path = join(root, "data/f");
    const { dev, ino } = lstatSync(path);
    const packAll = (): Promise<Buffer> =>
      pack([{ ...FILE, name: "a", size: 4, content: { path, found: { dev, ino } } }]);
    expect((await packAll()).toString("latin1", 512, 516)).toBe("data");
    writeFileSync(`${path}.new`, "edit");
    renameSync(`${path}.new`, path);
    expect((await packAll()).toString("latin1", 512, 516)).toBe("edit");
    renameSync(join(root, "data"), join(root, "before"));
    symlinkSync("secrets", join(root, "data"));
    const message = `Cannot pack "${path}": a symlink took the place of a part of the path since it was found`;
    expect((await failureOf(packAll())).message).toBe(message);
    rmSync(join(root, "data"));
    renameSync(join(root, "before"), join(root, "data"));
    rmSync(path);
    symlinkSync("../secrets/f", path);
    expect((await failureOf(packAll())).message).toBe(message);
  });

  test("stops in the middle of a file when aborted", async () => {
    const controller = new AbortController();
    const path = join(folder, "long");
    writeFileSync(path, noise(5_000_000));
    const entries: readonly TarEntry[] = [{ ...FILE, name: "a", size: 5_000_000, content: { path } }];
    const blocks = packTar(entries, { signal: controller.signal });
    await blocks.next();
    controller.abort(new Error("enough"));
    expect(await blocks.next().catch((thrown: unknown) => thrown)).toEqual(new Error("enough"));
  });
});

async function pack(entries: readonly TarEntry[]): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(packTar(entries, { signal })));
}

function noise(size: number): Buffer {
  const buffer = Buffer.alloc(size);
  for (let i = 0; i < size; i++) buffer[i] = (i * 2654435761) >>> 24;
  return buffer;
}

function symlinkTo(path: string, target: string): void {
  rmSync(path);
  symlinkSync(target, path);
}

function fifoAt(path: string): void {
  rmSync(path);
  expect(Bun.spawnSync(["mkfifo", path]).exitCode).toBe(0);
}
