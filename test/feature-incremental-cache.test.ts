/**
 * A cache that is damaged, removed, shared, too small or somebody else's costs time, and nothing else.
 */
import { afterEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { libraryGo } from "./helpers/go.ts";
import { makeScene, MODULES, type Moment, type Outcome, type Scene, SETTLED_MS } from "./helpers/world-bench.ts";
import { ourCommand, type Result, start } from "./helpers/world-programs.ts";

let scene: Scene | undefined;

afterEach(() => {
  scene?.[Symbol.dispose]();
  scene = undefined;
});

/** Opens a scene whose images go into a layout: then all layers are read. */
async function open(): Promise<Scene> {
  scene = makeScene(MODULES);
  scene.work.write({ "config/.ko.yaml": "defaultBaseImage: ko.builtin/static\n" });
  await Bun.sleep(SETTLED_MS);
  return scene;
}

let layouts = 0;

/** A build into a layout of its own. */
async function build(at: Scene, env: Readonly<Record<string, string>> = {}): Promise<Outcome> {
  const folder = at.work.at(`layout-${++layouts}`);
  const args = ["build", "-q", "--push=false", "-B", "--oci-layout-path", folder, "./cmd/app"];
  const outcome = await at.run({ args, env });
  return { ...outcome, images: outcome.images.replaceAll(folder, "LAYOUT") };
}

/** What is right. */
async function reference(at: Scene): Promise<string> {
  const { code, images, stderr } = await build(at, { KOCACHE: "off" });
  if (code !== 0) throw new Error(stderr);
  return images;
}

/** The entries of a cache, as `records/build-…`. */
function entriesOf(cache: string): readonly string[] {
  return ["records", "content"].flatMap((folder) =>
    readdirSync(join(cache, "v1", folder)).map((name) => join(cache, "v1", folder, name)),
  );
}

const DAMAGES: Readonly<Record<string, (path: string) => void>> = {
  truncated: (path) => truncateSync(path, Math.floor(statSync(path).size / 2)),
  emptied: (path) => truncateSync(path, 0),
  "grown by a byte": (path) => writeFileSync(path, "x", { flag: "a" }),
  "with a flipped bit": (path) => flip(path),
  "with a flipped bit and its old time": (path) => keepTimes(path, () => flip(path)),
  "with a flipped first bit and its old time": (path) => keepTimes(path, () => flip(path, 0)),
  removed: (path) => unlinkSync(path),
  "a folder": (path) => {
    unlinkSync(path);
    mkdirSync(join(path, "x"), { recursive: true });
  },
  unreadable: (path) => chmodSync(path, 0),
};

function flip(path: string, at?: number): void {
  const bytes = readFileSync(path);
  const place = at ?? Math.floor(bytes.length / 2);
  bytes[place] = (bytes[place] ?? 0) ^ 1;
  writeFileSync(path, bytes);
}

function keepTimes(path: string, work: () => void): void {
  const { atime, mtime } = statSync(path);
  work();
  utimesSync(path, atime, mtime);
}

describe("an entry is", () => {
  test.each(Object.entries(DAMAGES))("%s", async (_name, damage) => {
    const at = await open();
    const right = await reference(at);
    expect((await build(at)).images).toBe(right);
    const whole = at.work.at("whole");
    cpSync(at.cache, whole, { recursive: true, preserveTimestamps: true });
    const names = entriesOf(whole).map((path) => path.slice(whole.length));
    const kinds = new Set(names.map((name) => basename(name).replace(/-?[0-9a-f]{40,}(\.json)?$/, "")));
    expect(kinds).toEqual(new Set(["", "build", "layer", "programs", "setup", "shared"]));
    for (const name of [...names, undefined]) {
      rmSync(at.cache, { recursive: true });
      cpSync(whole, at.cache, { recursive: true, preserveTimestamps: true });
      // Then all of them at once.
      for (const each of name === undefined ? names : [name]) damage(join(at.cache, each));
      const outcome = await build(at);
      expect({ name, code: outcome.code, images: outcome.images, stderr: outcome.stderr }).toMatchObject({
        name,
        code: 0,
        images: right,
      });
    }
    // What shows nothing is found out when it is read, one run later maybe; that run starts again and keeps nothing. Then
    // all is as good as new.
    for (let i = 0; i < 2; i++) expect(await build(at)).toMatchObject({ code: 0, images: right });
    expect(await build(at)).toMatchObject({ code: 0, images: right, stderr: "", go: [] });
  });

  test("with a flipped bit that nothing shows, and its source has been edited", async () => {
    const at = await open();
    await build(at);
    at.tree.write({ "app/lib/lib.go": libraryGo("lib", "lib 2") });
    for (const path of entriesOf(at.cache)) keepTimes(path, () => path.includes("/content/") && flip(path, 1));
    await Bun.sleep(SETTLED_MS);
    const outcome = await build(at);
    expect([outcome.code, outcome.images]).toEqual([0, await reference(at)]);
  });

  test("of a binary flipped where nothing shows, and the layer's record has gone", async () => {
    const at = await open();
    const right = await reference(at);
    await build(at);
    for (const path of entriesOf(at.cache)) {
      if (path.includes("/content/")) keepTimes(path, () => flip(path));
      else if (basename(path).startsWith("layer")) unlinkSync(path);
    }
    const outcome = await build(at);
    expect([outcome.code, outcome.images]).toEqual([0, right]);
    expect(outcome.stderr).toContain("starting again without the cache");
    const next = await build(at);
    expect([next.code, next.images, next.stderr.includes("starting again")]).toEqual([0, right, false]);
  });
});

describe("while a program is compiled", () => {
  const moments: readonly Moment[] = ["before-list", "after-list", "before-build", "after-build"];
  const removed = ["", "/v1", "/v1/content", "/v1/records", "/v1/work"];
  test.each(removed.map((path) => [path === "" ? "the cache" : path.slice(1), path]))(
    "%s is removed",
    async (_name, path) => {
      const at = await open();
      const right = await reference(at);
      for (const moment of moments) {
        rmSync(at.cache, { recursive: true, force: true });
        at.at(moment, `rm -rf "$KOCACHE${path}"`);
        const outcome = await build(at);
        expect({ moment, code: outcome.code, images: outcome.images, stderr: outcome.stderr }).toMatchObject({
          moment,
          code: 0,
          images: right,
        });
        expect(await build(at)).toMatchObject({ code: 0, images: right });
      }
    },
  );

  test("the cache gets a file in the place of its folder", async () => {
    const at = await open();
    const right = await reference(at);
    at.at("after-build", 'rm -rf "$KOCACHE"; echo > "$KOCACHE"');
    expect(await build(at)).toMatchObject({ code: 0, images: right });
    expect(await build(at)).toMatchObject({ code: 0, images: right });
  });
});

describe("several runs at once", () => {
  test("share a cold cache, then a warm one", async () => {
    const at = await open();
    const cwd = at.tree.at("app");
    const run = (more = {}): Promise<Result> =>
      start([...ourCommand(), ...at.args], { cwd, env: { ...at.env, ...more } }).result;
    const right = await run({ KOCACHE: "off" });
    for (let round = 0; round < 3; round++) {
      const runs = await Promise.all([1, 2, 3, 4].map(() => run()));
      for (const { code, stderr, stdout } of runs) expect([code, stdout, stderr]).toEqual([0, right.stdout, ""]);
    }
    expect((await at.run()).go).toEqual([]);
    expect(readdirSync(join(at.cache, "v1", "work"))).toEqual([]);
    expect(entriesOf(at.cache).filter((path) => path.endsWith(".tmp"))).toEqual([]);
  });

  test("while the sources change between them", async () => {
    const at = await open();
    for (let round = 0; round < 3; round++) {
      at.tree.write({ "app/lib/lib.go": libraryGo("lib", `round ${round}`) });
      const [right, ...runs] = await Promise.all([reference(at), build(at), build(at), build(at)]);
      for (const { code, images } of runs) expect([code, images]).toEqual([0, right]);
    }
  });
});

describe("the cache's folder", () => {
  test("can be read by its owner only", async () => {
    const at = await open();
    const umask = process.umask(0);
    try {
      await build(at);
    } finally {
      process.umask(umask);
    }
    const look = (path: string): readonly string[] => {
      const { mode } = lstatSync(path);
      const below = statSync(path).isDirectory() ? readdirSync(path).flatMap((name) => look(join(path, name))) : [];
      return (mode & 0o077) === 0 ? below : [`${path} ${mode.toString(8)}`, ...below];
    };
    expect(look(join(at.cache, "v1"))).toEqual([]);
  });

  test("stays as small as KO_CACHE_MAX says", async () => {
    const at = await open();
    const size = (): number => entriesOf(at.cache).reduce((sum, path) => sum + statSync(path).size, 0);
    for (let round = 0; round < 4; round++) {
      at.tree.write({ "app/lib/lib.go": libraryGo("lib", `round ${round}`) });
      await Bun.sleep(SETTLED_MS);
      const [outcome, right] = await Promise.all([build(at, { KO_CACHE_MAX: "3MB" }), reference(at)]);
      expect([outcome.code, outcome.images, size() <= 3e6]).toEqual([0, right, true]);
    }
    const nothing = await build(at, { KO_CACHE_MAX: "0" });
    expect(nothing.code).toBe(0);
  });

  test("is nowhere with KOCACHE=off", async () => {
    const at = await open();
    at.work.write({ home: null, xdg: null, tmp: null });
    const folders = { HOME: at.work.at("home"), XDG_CACHE_HOME: at.work.at("xdg"), TMPDIR: at.work.at("tmp") };
    const gocache = Bun.spawnSync(["go", "env", "GOCACHE"]).stdout.toString().trim();
    const outcome = await build(at, { ...folders, GOCACHE: gocache, GOPATH: at.work.at("gopath"), KOCACHE: "off" });
    expect(outcome.code).toBe(0);
    for (const folder of Object.values(folders)) {
      // Go counts for itself.
      expect(readdirSync(folder).filter((name) => name !== ".config")).toEqual([]);
    }
    expect(existsSync(at.cache)).toBe(false);
  });

  test.skipIf(process.getuid?.() !== 0)("is left alone if it is somebody else's", async () => {
    const at = await open();
    const right = await reference(at);
    mkdirSync(join(at.cache, "v1"), { recursive: true });
    chownSync(join(at.cache, "v1"), 12345, 12345);
    const outcome = await build(at);
    expect(outcome).toMatchObject({ code: 0, images: right });
    expect(outcome.stderr).toMatch(/^Warning: The cache in ".*" cannot be used: .* belongs to another user/);
    expect(readdirSync(join(at.cache, "v1"))).toEqual([]);
  });

  test.each([
    ["below a file", "file/cache"],
    ["a file", "file"],
  ])("may be %s", async (_name, path) => {
    const at = await open();
    const right = await reference(at);
    at.work.write({ file: "" });
    const outcome = await build(at, { KOCACHE: at.work.at(path) });
    expect(outcome).toMatchObject({ code: 0, images: right });
    expect(outcome.stderr).toMatch(/^Warning: The cache in ".*" cannot be used: /);
  });

  test("may be a copy of another machine's", async () => {
    const at = await open();
    const right = await reference(at);
    await build(at);
    cpSync(at.cache, at.work.at("copy"), { recursive: true, preserveTimestamps: true });
    const outcome = await build(at, { KOCACHE: at.work.at("copy") });
    expect(outcome).toMatchObject({ code: 0, images: right, go: [] });
  });
});
