import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync, zstdDecompressSync } from "node:zlib";
import { type Codec, CompressionPool, FAST_GZIP } from "../lib/compress.ts";
import { findCounterparts } from "./helpers/counterparts.ts";
import { buildGotar, type Gotar } from "./helpers/go-fixtures.ts";

const { signal } = new AbortController();
const MIB = 1024 * 1024;
const ZSTD: Codec = { kind: "zstd" };
let folder: string;
let gotar: Gotar;
/** A real program: the assembler of the Go distribution, about 5 MB. */
let program: Uint8Array;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ko-compress-test-"));
  gotar = buildGotar(folder);
  const go = Bun.spawnSync(["go", "tool", "-n", "asm"]).stdout.toString().trim();
  program = readFileSync(go);
  expect(program.byteLength).toBeGreaterThan(4 * MIB);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("CompressionPool#begin()", () => {
  /** A stream, and a promise that resolves when it has been read to its end. */
  function stream(content: Uint8Array): { readonly source: AsyncIterable<Uint8Array>; readonly read: Promise<void> } {
    const { promise, resolve } = Promise.withResolvers<void>();
    const source = (async function* () {
      yield* chunks(content, MIB);
      resolve();
    })();
    return { source, read: promise };
  }

  test.each<Codec>([FAST_GZIP, ZSTD])(
    "changes no byte of the compressed stream, whatever changed: %j",
    async (codec) => {
      await using pool = new CompressionPool({ workers: 2 });
      const [changed, shorter, longer] = [
        new Uint8Array(program),
        program.subarray(0, 3 * MIB + 5),
        new Uint8Array(9 * MIB),
      ];
      changed.set([1, 2, 3], 100);
      changed.set([1, 2, 3], 2 * MIB + 7);
      longer.set(program);
      for (const now of [program, changed, shorter, longer]) {
        const { read, source } = stream(program);
        const early = pool.begin(source, { codec, signal });
        await read;
        const blocks = await early.stop();
        // The last block may not have been read before the stop.
        const count = Math.floor(program.byteLength / MIB);
        expect(blocks.length).toBeGreaterThanOrEqual(count);
        const packed = await collect(pool.compress(stream(now).source, { codec, signal, early }));
        expect(Buffer.compare(packed, await collect(pool.compress(stream(now).source, { codec, signal })))).toBe(0);
        // Blocks that were used are released.
        const used = Math.min(count, Math.ceil(now.byteLength / MIB));
        expect(blocks.slice(0, used).every((block) => block === undefined)).toBe(true);
      }
    },
  );

  test("uses a block that was compressed in advance, if it has not changed", async () => {
    await using pool = new CompressionPool({ workers: 2 });
    const { read, source } = stream(program);
    const early = pool.begin(source, { codec: FAST_GZIP, signal });
    await read;
    const blocks = await early.stop();
    // Bytes that only the block compressed in advance can have.
    const [, second] = blocks;
    if (second === undefined) throw new Error("it was not compressed");
    const mark = new TextEncoder().encode("early");
    blocks[1] = { ...second, packed: mark };
    const packed = await collect(pool.compress(stream(program).source, { codec: FAST_GZIP, signal, early }));
    expect(packed.includes(mark)).toBe(true);
  });

  test("is limited to some megabytes, and ignores failures", async () => {
    await using pool = new CompressionPool({ workers: 2 });
    const noise = crypto.getRandomValues(new Uint8Array(65_536));
    const endless = (async function* () {
      for (;;) yield noise;
    })();
    const early = pool.begin(endless, { codec: FAST_GZIP, signal });
    const { promise, resolve } = Promise.withResolvers<void>();
    const broken = (async function* () {
      yield noise;
      resolve();
      throw new Error("the file is gone");
    })();
    const failed = pool.begin(broken, { codec: FAST_GZIP, signal });
    await promise;
    expect(await failed.stop()).toEqual([]);
    const blocks = await early.stop();
    const bytes = blocks.reduce((sum, block) => sum + (block?.packed.byteLength ?? 0), 0);
    expect(bytes).toBeLessThan(30 * MIB);
  });
});

describe("CompressionPool#compress()", () => {
  test.each<Codec>([{ kind: "gzip", level: 1 }, { kind: "gzip", level: 6 }, { kind: "zstd" }])(
    "gives the same bytes as %j, whatever the number of workers and the sizes of the chunks",
    async (codec) => {
      const want = await compress(program, { workers: 0, chunk: MIB, codec });
      for (const [workers, chunk] of [
        [1, 64 * 1024],
        [2, MIB],
        [4, 999_983],
        [2, 32 * MIB],
      ] as const) {
        expect(Buffer.compare(await compress(program, { workers, chunk, codec }), want)).toBe(0);
      }
      expect(Buffer.compare(codec.kind === "gzip" ? gunzipSync(want) : zstdDecompressSync(want), program)).toBe(0);
    },
  );

  test("makes zstd frames that the zstd program reads", async () => {
    const found = findCounterparts(["zstd"]);
    if (found === undefined) return;
    const file = join(folder, "program.zst");
    writeFileSync(file, await compress(program, { workers: 2, chunk: MIB, codec: ZSTD }));
    expect(Bun.spawnSync([found.zstd, "-t", file]).exitCode).toBe(0);
    const { stdout } = Bun.spawnSync([found.zstd, "-dc", file], { maxBuffer: 64 * MIB });
    expect(Buffer.compare(stdout, program)).toBe(0);
  });

  test("makes gzip that gzip, Go and Python read", async () => {
    const file = join(folder, "program.gz");
    writeFileSync(file, await compress(program, { workers: 2, chunk: MIB }));
    expect(Bun.spawnSync(["gzip", "-t", file]).exitCode).toBe(0);
    expect(Buffer.compare(gotar(["gunzip", file]), program)).toBe(0);
    const python = Bun.which("python3");
    if (python === null) return console.warn("skipped: the test needs python3 to read with it");
    const read = "import gzip,sys; sys.stdout.buffer.write(gzip.open(sys.argv[1]).read())";
    const { stdout } = Bun.spawnSync([python, "-c", read, file], { maxBuffer: 64 * MIB });
    expect(Buffer.compare(stdout, program)).toBe(0);
  });

  test("makes gzip of level 1 no larger than the original does of a real program", async () => {
    const file = join(folder, "program");
    writeFileSync(file, program);
    const ours = await compress(program, { workers: 2, chunk: MIB });
    expect(ours.byteLength).toBeLessThan(gotar(["gzip", file]).byteLength);
  });

  test.each([
    [0, 1],
    [MIB, 1],
    [MIB + 1, 2],
    [4 * MIB + 1, 5],
    [9 * MIB + 5, 10],
  ])("makes of %d bytes %d zstd frames", async (size, frames) => {
    const content = new Uint8Array(size).fill(7);
    const zstd = await compress(content, { workers: 2, chunk: 300_000, codec: ZSTD });
    const magic = Buffer.from("28b52ffd", "hex");
    let found = 0;
    for (let at = zstd.indexOf(magic); at >= 0; at = zstd.indexOf(magic, at + 1)) found++;
    expect(found).toBe(frames);
    expect(Buffer.compare(zstdDecompressSync(zstd), content)).toBe(0);
  });

  test.each([
    [0, 1],
    [1, 1],
    [MIB - 1, 1],
    [MIB, 1],
    [MIB + 1, 2],
    [4 * MIB, 4],
    [4 * MIB + 1, 5],
    [9 * MIB + 5, 10],
  ])("makes of %d bytes %d gzip members, each without a name and a time", async (size, members) => {
    const content = new Uint8Array(size).fill(7);
    const gzip = await compress(content, { workers: 2, chunk: 300_000 });
    const header = Buffer.from("1f8b08000000000004ff", "hex");
    let found = 0;
    for (let at = gzip.indexOf(header); at >= 0; at = gzip.indexOf(header, at + 1)) found++;
    expect(found).toBe(members);
    expect(Buffer.compare(gunzipSync(gzip), content)).toBe(0);
  });

  test("makes gzip smaller with each higher level, and zstd smaller than the fastest gzip", async () => {
    const sizes: number[] = [];
    for (const codec of [FAST_GZIP, ...([4, 6, 9] as const).map((level) => ({ kind: "gzip", level }) as const), ZSTD]) {
      sizes.push((await compress(program, { workers: 2, chunk: MIB, codec })).byteLength);
    }
    const [zstd = 0, ...smallFirst] = sizes.toReversed();
    expect(smallFirst).toEqual(smallFirst.toSorted((a, b) => a - b));
    expect(new Set(sizes).size).toBe(sizes.length);
    expect(zstd).toBeLessThan(sizes[0] ?? 0);
  });

  test("compresses in the calling thread, to the same bytes, if the workers cannot start", async () => {
    const want = await compress(program, { workers: 0, chunk: MIB });
    await using pool = new CompressionPool({ workers: 2, module: new URL("./no-such.worker.ts", import.meta.url) });
    expect(Buffer.compare(await collect(pool.compress(chunks(program, MIB), { codec: FAST_GZIP, signal })), want)).toBe(
      0,
    );
  });

  test("serves several streams at once, each with a codec of its own", async () => {
    const codecs = [FAST_GZIP, ZSTD, FAST_GZIP, ZSTD, FAST_GZIP];
    await using pool = new CompressionPool({ workers: 2 });
    const streams = codecs.map((codec) => collect(pool.compress(chunks(program, MIB), { codec, signal })));
    for (const [i, got] of (await Promise.all(streams)).entries()) {
      const want = await compress(program, { workers: 0, chunk: MIB, codec: codecs[i] ?? FAST_GZIP });
      expect(Buffer.compare(got, want)).toBe(0);
    }
  });

  test("leaves the caller's memory alone", async () => {
    const block = new Uint8Array(MIB).fill(3);
    await using pool = new CompressionPool({ workers: 1 });
    const gzip = await collect(pool.compress(repeat(block, 8), { codec: FAST_GZIP, signal }));
    expect(block.byteLength).toBe(MIB);
    expect(gunzipSync(gzip).byteLength).toBe(8 * MIB);
  });

  test("throws the error of its source, and can be used afterwards", async () => {
    await using pool = new CompressionPool({ workers: 2 });
    async function* source(): AsyncGenerator<Uint8Array> {
      yield* chunks(program, MIB);
      throw new Error("the source broke");
    }
    expect(await collect(pool.compress(source(), { codec: FAST_GZIP, signal })).catch(String)).toBe(
      "Error: the source broke",
    );
    expect(
      gunzipSync(await collect(pool.compress(chunks(program, MIB), { codec: FAST_GZIP, signal }))).byteLength,
    ).toBe(program.byteLength);
  });

  test("stops when aborted, and ends its source", async () => {
    const controller = new AbortController();
    await using pool = new CompressionPool({ workers: 2 });
    let ended = false;
    async function* source(): AsyncGenerator<Uint8Array> {
      try {
        for (;;) yield program;
      } finally {
        ended = true;
      }
    }
    const stream = pool.compress(source(), { codec: FAST_GZIP, signal: controller.signal });
    await stream.next();
    controller.abort(new Error("enough"));
    expect(await stream.next().catch(String)).toBe("Error: enough");
    expect(ended).toBe(true);
  });
});

describe("a compiled executable", () => {
  test("finds its workers", async () => {
    // lib/ is below ko.ts, as in the repository: the bundler moves compress.ts, but not the worker's entry point.
    const lib = join(import.meta.dir, "../lib");
    writeFileSync(
      join(folder, "ko.ts"),
      `const { CompressionPool } = await import("./lib/compress.ts");
       const OriginalWorker = globalThis.Worker;
       let ready = 0;
       globalThis.Worker = class extends OriginalWorker {
         constructor(...args) { super(...args); this.addEventListener("message", (e) => { if (e.data === "ready") ready++; }); }
       };
       async function* source() { for (let i = 0; i < 9; i++) yield new Uint8Array(1048576).fill(i); }
       const blocks = [];
       const pool = new CompressionPool({ workers: 2 });
       const { signal } = new AbortController();
       for (const codec of [{ kind: "gzip", level: 9 }, { kind: "zstd" }]) {
         const chunks = await Array.fromAsync(pool.compress(source(), { codec, signal }));
         blocks.push(chunks.length);
       }
       console.log(JSON.stringify({ ready, blocks }));`,
    );
    for (const name of ["async.ts", "compress.ts", "compress.worker.ts", "errors.ts", "log-style.ts"]) {
      await Bun.write(join(folder, "lib", name), Bun.file(join(lib, name)));
    }
    const flags = "--compile --splitting --bytecode --format=esm --minify-whitespace --minify-syntax";
    const built = Bun.spawnSync(
      [
        process.execPath,
        "build",
        ...flags.split(" "),
        "ko.ts",
        "lib/compress.worker.ts",
        "--outfile",
        "program-under-test",
      ],
      { cwd: folder },
    );
    expect(built.stderr.toString()).not.toContain("error");
    const { stdout, stderr } = Bun.spawnSync([join(folder, "program-under-test")], { cwd: "/", timeout: 20_000 });
    expect(stderr.toString()).toBe("");
    expect(JSON.parse(stdout.toString())).toEqual({ ready: 2, blocks: [9, 9] });
  });
});

interface CompressTestOptions {
  readonly workers: number;
  /** Bytes of a chunk. */
  readonly chunk: number;
  /** @default FAST_GZIP */
  readonly codec?: Codec;
}

async function compress(content: Uint8Array, options: CompressTestOptions): Promise<Buffer> {
  const { workers, chunk, codec = FAST_GZIP } = options;
  await using pool = new CompressionPool({ workers });
  return collect(pool.compress(chunks(content, chunk), { codec, signal }));
}

async function* chunks(content: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < content.byteLength; at += size) yield content.subarray(at, at + size);
}

async function* repeat(block: Uint8Array, times: number): AsyncGenerator<Uint8Array> {
  for (let i = 0; i < times; i++) yield block;
}

async function collect(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(stream));
}
