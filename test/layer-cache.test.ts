import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, rmSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Cache } from "../lib/cache.ts";
import { type Compression, CompressionPool, FAST_GZIP } from "../lib/compress.ts";
import type { Layer } from "../lib/image.ts";
import { binaryEntries, kodataEntries } from "../lib/kodata.ts";
import { LayerStore, type StoredLayer } from "../lib/layer-cache.ts";
import { silentLog } from "../lib/log.ts";
import { digestOf, hexOf, MEDIA_TYPES } from "../lib/oci.ts";
import type { TarEntry } from "../lib/tar.ts";
import { noTiming } from "../lib/timing.ts";
import { failureOf } from "./helpers/failures.ts";
import { randomBytes } from "./helpers/images.ts";
import { type CacheBox, makeCacheBox } from "./helpers/world-cache.ts";
import { type Tree, writeTree } from "./helpers/world-folders.ts";

const pool = new CompressionPool({ workers: 0 });
afterAll(() => pool[Symbol.asyncDispose]());

/** Milliseconds: files that were written that long before are settled, and their marks count. */
const SETTLED_MS = 60_000;

const DIGEST = `sha256:${"0".repeat(64)}` as const;

/** A run: its store, and which layers it made. */
interface Run extends AsyncDisposable {
  readonly store: LayerStore;
  readonly cache: Cache | undefined;
  readonly made: readonly string[];
  program(tree: Tree, known?: StoredLayer): Promise<StoredLayer>;
  kodata(tree: Tree): Promise<StoredLayer>;
}

interface RunOptions {
  /** @default gzip */
  readonly compression?: Compression;
  /** @default true */
  readonly cached?: boolean;
  /** @default none but the calling thread */
  readonly pool?: CompressionPool;
}

async function startRun(box: CacheBox, options: RunOptions = {}): Promise<Run> {
  const { compression = FAST_GZIP, cached = true } = options;
  const host = box.host();
  const cache = cached ? box.open() : undefined;
  const own = cache === undefined ? await host.tempFolder("ko-test") : undefined;
  const made: string[] = [];
  const store = new LayerStore({
    context: {
      host,
      cache,
      log: silentLog,
      signal: new AbortController().signal,
      timing: {
        ...noTiming,
        time: (_, what, work) => (made.push(typeof what === "string" ? what : what.text), work()),
      },
    },
    pool: options.pool ?? pool,
    compression,
    jobs: 0,
    folder: own?.path ?? (await cache?.work()) ?? "",
  });
  return {
    store,
    cache,
    made,
    program: (tree, known) => {
      const path = tree.at("app");
      const entries = (): readonly TarEntry[] =>
        binaryEntries({ path, name: "/ko-app/app", os: "linux", size: Bun.file(path).size });
      return store.program("app", { entries, known: known?.tar });
    },
    kodata: (tree) =>
      store.kodata("kodata", async () => {
        const directory = tree.at("kodata");
        return [...kodataEntries({ directory, os: "linux", mtime: 0, allowedRoot: undefined, log: silentLog })];
      }),
    [Symbol.asyncDispose]: async () => {
      await cache?.[Symbol.asyncDispose]();
      await own?.[Symbol.asyncDispose]();
    },
  };
}

function writeProgram(): Tree {
  return writeTree({ app: randomBytes("app", 50_000), "kodata/a": "a\n", "kodata/sub/b": "b\n" });
}

describe("LayerStore", () => {
  test("makes a layer once, whoever asks", async () => {
    using box = makeCacheBox();
    using tree = writeProgram();
    await using run = await startRun(box);
    const [first, second] = await Promise.all([run.program(tree), run.program(tree)]);
    expect([first === second, run.made]).toEqual([true, ["app"]]);
  });

  test.each<[string, Compression]>([
    ["gzip", FAST_GZIP],
    ["zstd", { kind: "zstd" }],
    ["none", { kind: "none" }],
  ])("gives the next run the same layers without making them: %s", async (_, compression) => {
    using box = makeCacheBox();
    using tree = writeProgram();
    box.wait(SETTLED_MS);
    const program = await inRun(box, { compression }, async (run) => {
      const [made] = await Promise.all([run.program(tree), run.kodata(tree)]);
      expect(run.made.toSorted()).toEqual(["app", "kodata"]);
      return { made, bytes: await read(made.layer), kodata: (await run.kodata(tree)).layer.descriptor };
    });
    await inRun(box, { compression }, async (run) => {
      const again = await run.program(tree, program.made);
      expect(again.layer.descriptor).toEqual(program.made.layer.descriptor);
      expect((await run.kodata(tree)).layer.descriptor).toEqual(program.kodata);
      expect(Buffer.compare(await read(again.layer), program.bytes)).toBe(0);
      expect(run.made).toEqual([]);
    });
  });

  test("gives the same layer of a program that it began with while it changed", async () => {
    using box = makeCacheBox();
    const large = randomBytes("app", 6_000_000);
    using tree = writeTree({ app: large, early: large });
    await using workers = new CompressionPool({ workers: 2 });
    const right = await inRun(box, { cached: false }, async (run) => (await run.program(tree)).layer.descriptor);
    for (const before of [large, large.subarray(0, 5_000_000), randomBytes("other", 6_000_000)]) {
      tree.write({ early: before });
      const path = tree.at("early");
      await inRun(box, { cached: false, pool: workers }, async (run) => {
        run.store.begin("app", binaryEntries({ path, name: "/ko-app/app", os: "linux", size: before.byteLength }));
        expect((await run.program(tree)).layer.descriptor).toEqual(right);
      });
    }
    // And what is begun, and never made, is no hindrance.
    await inRun(box, { cached: false, pool: workers }, async (run) => {
      run.store.begin("app", binaryEntries({ path: tree.at("gone"), name: "/ko-app/app", os: "linux", size: 10 }));
      await run.store.settle();
    });
  });

  test("makes a layer of another compression anew; its tar is the same", async () => {
    using box = makeCacheBox();
    using tree = writeProgram();
    const gzip = await inRun(box, {}, (run) => run.program(tree));
    await inRun(box, { compression: { kind: "gzip", level: 9 } }, async (run) => {
      const best = await run.program(tree, gzip);
      expect([best.layer.diffId, run.made]).toEqual([gzip.layer.diffId, ["app"]]);
      expect(best.layer.descriptor.digest).not.toBe(gzip.layer.descriptor.digest);
    });
    await inRun(box, { compression: { kind: "none" } }, async (run) => {
      const plain = await run.program(tree, gzip);
      expect(plain.layer.descriptor).toEqual({
        mediaType: MEDIA_TYPES.ociTarLayer,
        digest: gzip.layer.diffId,
        size: gzip.tar.size,
      });
      expect(digestOf(await read(plain.layer))).toBe(gzip.layer.diffId);
      expect(run.made).toEqual([]);
    });
  });

  test.each<[string, (path: string) => void]>([
    ["removed", (path) => rmSync(path)],
    ["cut", (path) => truncateSync(path, 100)],
    ["changed", (path) => writeFileSync(path, "?", { flag: "r+" })],
    ["touched", (path) => utimesSync(path, new Date(), new Date())],
  ])("makes a kept layer again that is %s, when its bytes are wanted", async (_, harm) => {
    using box = makeCacheBox();
    using tree = writeProgram();
    const first = await inRun(box, {}, (run) => run.program(tree));
    await inRun(box, {}, async (run) => {
      harm(run.cache?.path(first.layer.descriptor.digest) ?? "");
      const again = await run.program(tree, first);
      expect([again.layer.descriptor, run.made]).toEqual([first.layer.descriptor, []]);
      for (let i = 0; i < 2; i++) expect(digestOf(await read(again.layer))).toBe(first.layer.descriptor.digest);
      expect(run.made).toHaveLength(1);
    });
  });

  test("makes a kept layer again that somebody removes while it is in use", async () => {
    using box = makeCacheBox();
    using tree = writeProgram();
    const first = await inRun(box, {}, (run) => run.program(tree));
    await inRun(box, {}, async (run) => {
      const again = await run.program(tree, first);
      expect(digestOf(await read(again.layer))).toBe(first.layer.descriptor.digest);
      rmSync(box.place, { recursive: true });
      expect(digestOf(await read(again.layer))).toBe(first.layer.descriptor.digest);
    });
  });

  test("has the bytes of a layer that it made itself, whatever becomes of the cache's", async () => {
    using box = makeCacheBox();
    using tree = writeProgram();
    await inRun(box, {}, async (run) => {
      const made = await run.program(tree);
      for (const name of readdirSync(join(box.place, "v1/content"))) rmSync(join(box.place, "v1/content", name));
      expect(digestOf(await read(made.layer))).toBe(made.layer.descriptor.digest);
    });
  });

  test("has one content for two folders with the same files", async () => {
    using box = makeCacheBox();
    using one = writeProgram();
    using two = writeProgram();
    box.wait(SETTLED_MS);
    const layers: string[] = [];
    for (const tree of [one, two, one, two]) {
      await inRun(box, {}, async (run) => {
        layers.push((await run.kodata(tree)).layer.descriptor.digest);
        expect(run.made).toEqual(layers.length <= 2 ? ["kodata"] : []);
      });
    }
    expect(new Set(layers).size).toBe(1);
  });

  test.each<[string, (tree: Tree) => void]>([
    ["edited", (tree) => tree.write({ "kodata/a": "b\n" })],
    ["replaced by the same text", (tree) => (rmSync(tree.at("kodata/a")), tree.write({ "kodata/a": "a\n" }))],
    ["added", (tree) => tree.write({ "kodata/new": "" })],
    ["removed", (tree) => rmSync(tree.at("kodata/sub/b"))],
    ["renamed", (tree) => (rmSync(tree.at("kodata/a")), tree.write({ "kodata/c": "a\n" }))],
  ])("makes kodata anew when a file in it is %s", async (_, edit) => {
    using box = makeCacheBox();
    using tree = writeProgram();
    box.wait(SETTLED_MS);
    await inRun(box, {}, (run) => run.kodata(tree));
    edit(tree);
    await inRun(box, {}, async (run) => {
      const { layer } = await run.kodata(tree);
      const fresh = await inRun(box, { cached: false }, (other) => other.kodata(tree));
      expect([layer.descriptor, run.made]).toEqual([fresh.layer.descriptor, ["kodata"]]);
    });
  });

  test("keeps no kodata whose files may still be changing", async () => {
    using box = makeCacheBox();
    using tree = writeProgram();
    for (let i = 0; i < 2; i++) {
      await inRun(box, {}, async (run) => {
        await run.kodata(tree);
        expect(run.made).toEqual(["kodata"]);
      });
    }
  });

  test("keeps a constant of the program, and believes no record of another one", async () => {
    using box = makeCacheBox();
    const entries = (text: string): readonly TarEntry[] => [
      { name: "f", type: "file", mode: 0o444, mtime: 0, size: text.length, content: Buffer.from(text) },
    ];
    const { descriptor, diffId } = await inRun(box, {}, (run) => run.store.fixed("a thing", () => entries("one")));
    const { digest, size } = descriptor;
    const expected = { digest, size, diffId };
    for (const options of [{ expected }, {}]) {
      await inRun(box, {}, async (run) => {
        expect((await run.store.fixed("a thing", () => entries("two"), options)).descriptor).toEqual(descriptor);
        expect(run.made).toEqual([]);
        await run.store.fixed("another thing", () => entries("two"));
        expect(run.made).toEqual(options.expected === undefined ? [] : ["another thing"]);
      });
    }
    for (const other of [{ digest: DIGEST }, { diffId: DIGEST }, { size: size + 1 }]) {
      await inRun(box, {}, async (run) => {
        const options = { expected: { ...expected, ...other } };
        const made = await run.store.fixed("a thing", () => entries("one"), options);
        expect([made.descriptor, run.made]).toEqual([descriptor, ["a thing"]]);
      });
    }
  });

  describe("believes no record whose content is another tar", () => {
    const gzip = (...parts: readonly Uint8Array[]): Buffer =>
      Buffer.concat(parts.map((part) => Bun.gzipSync(pure(part))));
    const zstd = (...parts: readonly Uint8Array[]): Buffer =>
      Buffer.concat(parts.map((part) => Bun.zstdCompressSync(pure(part))));
    const evil = (tar: Buffer): Buffer => Buffer.from(tar.toString("latin1").replace("app", "apq"), "latin1");
    const forgeries: Readonly<Record<string, readonly [Compression["kind"], (tar: Buffer) => Uint8Array]>> = {
      "another tar": ["gzip", (tar) => gzip(evil(tar))],
      "another tar in zstd": ["zstd", (tar) => zstd(evil(tar))],
      "another format": ["gzip", (tar) => zstd(tar)],
      "the tar and another one": ["gzip", (tar) => gzip(tar, evil(tar))],
      "the tar and another one in zstd": ["zstd", (tar) => zstd(tar, evil(tar))],
      "the tar, zeros and another one": [
        "gzip",
        (tar) => Buffer.concat([gzip(tar), Buffer.alloc(64), gzip(evil(tar))]),
      ],
      "the tar and bytes after it": ["zstd", (tar) => Buffer.concat([zstd(tar), Buffer.from("more")])],
      "half of the tar": ["gzip", (tar) => gzip(tar.subarray(0, tar.length / 2))],
      "a stream that is cut": ["gzip", (tar) => gzip(tar).subarray(0, -20)],
      "a frame that is cut": ["zstd", (tar) => zstd(tar).subarray(0, -20)],
      "a bomb": ["gzip", () => gzip(new Uint8Array(64 << 20))],
      nothing: ["gzip", () => new Uint8Array(0)],
    };
    test.each(Object.keys(forgeries))("%s", async (name) => {
      const [kind, forge] = forgeries[name] ?? ["gzip", gzip];
      const compression: Compression = kind === "zstd" ? { kind } : FAST_GZIP;
      using box = makeCacheBox();
      using tree = writeProgram();
      const first = await inRun(box, { compression }, (run) => run.program(tree));
      const plain = { compression: { kind: "none" }, cached: false } as const;
      const tar = await inRun(box, plain, async (run) => read((await run.program(tree)).layer));
      const forged = forge(tar);
      for (const way of ["open", "prove"] as const) {
        await inRun(box, { compression }, async (run) => {
          const { cache } = run;
          const [record] = readdirSync(join(box.place, "v1/records")).filter((each) => each.startsWith("layer-"));
          const key = record?.slice("layer-".length, -".json".length) ?? "";
          const kept = { digest: digestOf(forged), size: forged.byteLength };
          cache?.keepBytes(forged, kept.digest);
          cache?.write("layer", key, { tar: first.tar, kept });
          const { layer } = await run.program(tree, first);
          expect(layer.descriptor).toMatchObject(kept);
          let size = 0;
          const work = async (): Promise<void> => {
            if (way === "prove") await layer.prove?.();
            else for await (const chunk of layer.open()) size += chunk.byteLength;
          };
          const { message } = await failureOf(work());
          expect(message).toBe(`Cannot use the cached layer ${first.layer.diffId}: its content was changed`);
          // A reader of the whole content would not have got it.
          expect(size).toBeLessThan(Math.max(1, forged.byteLength));
          expect(cache?.damage).toBe(message);
          expect([cache?.read("layer", key), cache?.has(kept)]).toEqual([undefined, false]);
          // The binary is sound, so the next run makes its layer again.
          cache?.write("layer", key, { tar: first.tar, kept: { digest: first.layer.descriptor.digest, size: 1 } });
        });
        await inRun(box, { compression }, async (run) => {
          expect(await failureOf(run.program(tree, first).then(({ layer }) => read(layer)))).toMatchObject({
            message: `Cannot use the cached layer ${first.layer.diffId}: its content was changed`,
          });
        });
        rmSync(box.place, { recursive: true });
        await inRun(box, { compression }, (run) => run.program(tree));
      }
    });

    test.each(["../../../../etc/passwd", "sha256:../../x", 7, null])(
      "nor a digest that is none: %p",
      async (digest) => {
        using box = makeCacheBox();
        using tree = writeProgram();
        const first = await inRun(box, {}, (run) => run.program(tree));
        writeFileSync(join(box.place, "x"), "mine");
        const [record = ""] = readdirSync(join(box.place, "v1/records"));
        await inRun(box, {}, async (run) => {
          run.cache?.write("layer", record.slice("layer-".length, -5), { tar: first.tar, kept: { digest, size: 4 } });
          expect((await run.program(tree, first)).layer.descriptor).toEqual(first.layer.descriptor);
        });
        expect(existsSync(join(box.place, "x"))).toBe(true);
      },
    );

    test("and proves a sound one once, with little memory", async () => {
      using box = makeCacheBox();
      using tree = writeTree({ app: new Uint8Array(200 << 20) });
      const first = await inRun(box, {}, (run) => run.program(tree));
      await inRun(box, {}, async (run) => {
        const { layer } = await run.program(tree, first);
        const before = process.memoryUsage.rss();
        await layer.prove?.();
        expect(process.memoryUsage.rss() - before).toBeLessThan(100 << 20);
        rmSync(box.place, { recursive: true });
        await layer.prove?.();
        expect(run.made).toEqual([]);
      });
    });
  });

  test("works without a cache, and then keeps nothing", async () => {
    using box = makeCacheBox();
    using tree = writeProgram();
    const cached = await inRun(box, {}, (run) => run.program(tree));
    rmSync(box.place, { recursive: true });
    const layer = await inRun(box, { cached: false }, async (run) => {
      const made = await run.program(tree, cached);
      await run.kodata(tree);
      return made.layer.descriptor;
    });
    expect([layer, existsSync(box.place)]).toEqual([cached.layer.descriptor, false]);
  });

  test("fails no build when what it makes cannot be kept", async () => {
    using box = makeCacheBox();
    using tree = writeProgram();
    await inRun(box, {}, async (run) => {
      rmSync(join(box.place, "v1/content"), { recursive: true });
      rmSync(join(box.place, "v1/records"), { recursive: true });
      for (const name of ["content", "records"]) writeFileSync(join(box.place, "v1", name), "");
      const { layer } = await run.program(tree);
      expect(hexOf(digestOf(await read(layer)))).toBe(hexOf(layer.descriptor.digest));
    });
  });
});

function pure(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes);
}

/** What one run comes to. */
async function inRun<T>(box: CacheBox, options: RunOptions, work: (run: Run) => Promise<T>): Promise<T> {
  await using run = await startRun(box, options);
  return await work(run);
}

async function read(layer: Layer): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(layer.open()));
}
