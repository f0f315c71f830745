import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type KodataOptions, type KodataProblem, binaryEntries, kodataEntries } from "../lib/kodata.ts";
import type { FileContent, TarEntry } from "../lib/tar.ts";
import { failureOf } from "./helpers/failures.ts";
import { kodataOptions, type Walked, walkFailure, walkKodata } from "./helpers/world-folders.ts";

/** Holds `repo`, with a `.git` folder, and whatever else a test puts beside it. Without links in its path. */
let folder: string;
/** `repo/cmd/app/kodata`, of which `cmd/app` exists. */
let kodata: string;
let warnings: string[];

beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), "ko-kodata-test-")));
  kodata = join(folder, "repo/cmd/app/kodata");
  mkdirSync(dirname(kodata), { recursive: true });
  mkdirSync(join(folder, "repo/.git"));
  warnings = [];
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("kodataEntries()", () => {
  test("gives the folders in the image alone when there is no kodata", () => {
    expect([...kodataEntries(options())]).toEqual([
      { name: "/var", ...DIRECTORY },
      { name: "/var/run", ...DIRECTORY },
      { name: "/var/run/ko", ...DIRECTORY },
    ]);
  });

  test("goes on behind entries that cannot be packed, if there is a list for their errors", () => {
    tree({ "a/x": "1", "b/y": "2", "c/z": "3" });
    symlinkSync("/etc/passwd", join(kodata, "a/out"));
    symlinkSync(".", join(kodata, "b/again"));
    symlinkSync("/etc/group", join(kodata, "out"));
    const problems: KodataProblem[] = [];
    const names = [...kodataEntries(options({ problems }))].map(({ name }) => name.replace("/var/run/ko/", ""));
    expect(names.slice(3)).toEqual(["a", "a/x", "b", "b/y", "c", "c/z"]);
    expect(problems.map(({ path }) => path)).toEqual(["a/out", "b/again", "out"].map((name) => join(kodata, name)));
    expect(() => [...kodataEntries(options())]).toThrow(problems[0]?.error.message);
  });

  test("sorts by bytes, folder by folder, and gives everything the same mode and time", () => {
    tree({ "a/b": "1", "a-b": "22", "a.b/c": "333", B: "", "\uff5e": "", "😀": "", "a/\u00e9": "", "empty/": "" });
    chmodSync(join(kodata, "a-b"), 0o600);
    const entry = (name: string, content: string): TarEntry => file({ name, content, mtime: 5 });
    const directory = { ...DIRECTORY, mtime: 5 };
    expect([...kodataEntries(options({ mtime: 5 }))].slice(2)).toEqual([
      { name: "/var/run/ko", ...directory },
      entry("B", ""),
      { name: "/var/run/ko/a", ...directory },
      entry("a/b", "1"),
      entry("a/\u00e9", ""),
      entry("a-b", "22"),
      { name: "/var/run/ko/a.b", ...directory },
      entry("a.b/c", "333"),
      { name: "/var/run/ko/empty", ...directory },
      entry("\uff5e", ""),
      entry("😀", ""),
    ]);
  });

  test("follows links to files and folders, in kodata and in the work tree, and links in those", () => {
    tree({ "real/file": "1" });
    tree({ LICENSE: "license", "web/index.html": "html", "web/deep/x": "x" }, join(folder, "repo"));
    link({ at: "LICENSE", to: "../../../LICENSE" });
    link({ at: "again", to: "real" });
    link({ at: "chain", to: "LICENSE" });
    link({ at: "web", to: "../../../web" });
    symlinkSync("../LICENSE", join(folder, "repo/web/license"));
    expect(contents()).toEqual({
      LICENSE: "license",
      again: "",
      "again/file": "1",
      chain: "license",
      real: "",
      "real/file": "1",
      web: "",
      "web/deep": "",
      "web/deep/x": "x",
      "web/index.html": "html",
      "web/license": "license",
    });
    expect(warnings).toEqual([]);
  });

  test("takes one folder by several links", () => {
    tree({ "real/file": "1" });
    link({ at: "a", to: "real" });
    link({ at: "b", to: "a" });
    link({ at: "real/self", to: "file" });
    expect(Object.keys(contents())).toEqual("a a/file a/self b b/file b/self real real/file real/self".split(" "));
  });

  test("works below a link to the repository", () => {
    tree({ f: "1" });
    tree({ LICENSE: "license" }, join(folder, "repo"));
    link({ at: "LICENSE", to: "../../../LICENSE" });
    symlinkSync("repo", join(folder, "alias"));
    expect(contents({ directory: join(folder, "alias/cmd/app/kodata") })).toEqual({ LICENSE: "license", f: "1" });
  });

  describe("refuses links that leave", () => {
    const outside = (): void => {
      tree({ f: "1" });
      tree({ secret: "s", "repo-evil/secret": "s", "sub/f": "" }, folder);
    };
    test.each([
      ["the work tree", "../../../../secret"],
      ["it for a sibling whose name begins like it", "../../../../repo-evil/secret"],
      ["it for its own parent", "../../../.."],
      ["it by an absolute path", "/etc/passwd"],
    ])("%s", async (_what, to) => {
      outside();
      link({ at: "out", to });
      const target = realpathSync(join(kodata, "out"));
      const common = target.startsWith(folder) ? folder : "/";
      expect(await failure()).toEqual({
        message: `Cannot pack the symlink "${kodata}/out": it leads to "${target}", wanted a path inside "${folder}/repo"`,
        hint: `Set KO_DATA_PATH_ALLOWED_ROOT=${common}, a folder that contains both, or copy the file.`,
      });
    });

    test("kodata, where there is no work tree", async () => {
      outside();
      rmSync(join(folder, "repo/.git"), { recursive: true });
      tree({ main: "" }, join(folder, "repo/cmd/app"));
      link({ at: "in", to: "f" });
      expect(contents()).toEqual({ f: "1", in: "1" });
      link({ at: "out", to: "../main" });
      expect((await failure()).message).toEndWith(`wanted a path inside "${kodata}"`);
    });

    test("through a linked folder", async () => {
      outside();
      tree({ "web/x": "" }, join(folder, "repo"));
      symlinkSync("../../secret", join(folder, "repo/web/s"));
      link({ at: "web", to: "../../../web" });
      expect((await failure()).message).toStartWith(`Cannot pack the symlink "${folder}/repo/web/s"`);
    });

    test("unless KO_DATA_PATH_ALLOWED_ROOT, a folder above kodata, permits it", () => {
      outside();
      link({ at: "secret", to: "../../../../secret" });
      symlinkSync(".", join(folder, "alias"));
      for (const allowedRoot of [folder, join(folder, "alias"), "/"]) {
        expect(contents({ allowedRoot })).toEqual({ f: "1", secret: "s" });
      }
    });

    test.each(["repo-evil", "no such folder", "repo/cmd/app/kodata/f"])(
      "and says so when KO_DATA_PATH_ALLOWED_ROOT counts for nothing: %s",
      async (name) => {
        outside();
        link({ at: "secret", to: "../../../../secret" });
        const allowedRoot = join(folder, name);
        expect((await failure({ allowedRoot })).message).toEndWith(
          `inside "${folder}/repo" (KO_DATA_PATH_ALLOWED_ROOT is "${allowedRoot}", which is not a folder above kodata)`,
        );
      },
    );

    test("and takes KO_DATA_PATH_ALLOWED_ROOT in place of the work tree where it is narrower", async () => {
      tree({ LICENSE: "license" }, join(folder, "repo"));
      tree({ f: "1" });
      link({ at: "LICENSE", to: "../../../LICENSE" });
      expect((await failure({ allowedRoot: join(folder, "repo/cmd") })).message).toEndWith(
        `inside "${folder}/repo/cmd"`,
      );
    });
  });

  test("refuses a folder that a symlink replaces while it is read", async () => {
    tree({ "sub/f": "1" });
    tree({ "secrets/f": "s" }, folder);
    const { message } = await failureOf(() => {
      for (const { name } of kodataEntries(options())) {
        if (name !== "/var/run/ko/sub") continue;
        rmSync(join(kodata, "sub"), { recursive: true });
        symlinkSync(join(folder, "secrets"), join(kodata, "sub"));
      }
    });
    expect(message).toBe(`Cannot pack "${kodata}/sub": it was replaced while it was read`);
  });

  describe("ends where links go in circles", () => {
    test.each([
      ["to its own folder", "."],
      ["to kodata's parent", ".."],
      ["to the work tree", "../../.."],
    ])("by a link %s", async (_what, to) => {
      tree({ f: "1" });
      link({ at: "round", to });
      const target = realpathSync(join(kodata, "round"));
      const message = `Cannot pack the symlink "${kodata}/round": it leads to "${target}", which contains the symlink`;
      expect((await failure()).message).toBe(message);
    });

    test("by two folders that lead to each other", async () => {
      tree({ "a/f": "1", "b/f": "2" });
      link({ at: "a/b", to: "../b" });
      link({ at: "b/a", to: "../a" });
      expect((await failure()).message).toBe(
        `Cannot pack the symlink "${kodata}/b/a": it leads to "${kodata}/a", which contains the symlink`,
      );
    });

    test("by a link to itself", async () => {
      tree({ f: "1" });
      link({ at: "self", to: "self" });
      expect((await failure()).message).toBe(`Cannot follow the symlink "${kodata}/self": the symlinks form a circle`);
    });
  });

  describe("refuses symlinks that repeat each other endlessly", () => {
    const message = async (): Promise<string> => (await failure()).message;

    beforeEach(() => mkdirSync(kodata));

    test("two to each folder: 2^40 entries", async () => {
      tree({ "l0/f": "1" }, join(folder, "repo"));
      for (let i = 1; i <= 40; i++) {
        mkdirSync(join(folder, `repo/l${i}`));
        for (const name of ["a", "b"]) symlinkSync(`../l${i - 1}`, join(folder, `repo/l${i}`, name));
      }
      link({ at: "x", to: "../../../l40" });
      expect(await message()).toContain(`symlinks lead to "${folder}/repo/l0" more than 1000 times`);
    });

    test("many to each folder, in few levels", async () => {
      tree({ "l0/f": "1" }, join(folder, "repo"));
      for (let i = 1; i <= 3; i++) {
        mkdirSync(join(folder, `repo/l${i}`));
        for (let n = 0; n < 60; n++) symlinkSync(`../l${i - 1}`, join(folder, `repo/l${i}/${n}`));
      }
      link({ at: "x", to: "../../../l3" });
      expect(await message()).toContain(`symlinks lead to "${folder}/repo/l0" more than 1000 times`);
    });

    test("one behind the other", async () => {
      for (let i = 0; i <= 110; i++) mkdirSync(join(folder, `repo/l${i}`));
      for (let i = 1; i <= 110; i++) symlinkSync(`../l${i - 1}`, join(folder, `repo/l${i}/a`));
      link({ at: "x", to: "../../../l110" });
      expect(await message()).toContain("it lies behind 100 others");
    });
  });

  test("packs a folder that many symlinks lead to", () => {
    tree({ "shared/f": "1" });
    for (let i = 0; i < 300; i++) link({ at: `l${i}`, to: "shared" });
    expect([...kodataEntries(options())]).toHaveLength(3 + 2 + 600);
  });

  test("leaves out links to nothing, with a warning", () => {
    tree({ f: "1" });
    link({ at: ".#f", to: "user@host.1234:1700000000" });
    link({ at: "through", to: "f/x" });
    expect(contents()).toEqual({ f: "1" });
    expect(warnings).toEqual([
      `The symlink "${kodata}/.#f" is left out: its target does not exist.`,
      `The symlink "${kodata}/through" is left out: its target does not exist.`,
    ]);
  });

  test.each([
    ["fifo", (path: string) => mkfifo(path)],
    ["socket", (path: string) => void listeners.push(Bun.listen({ unix: path, socket: { data: () => {} } }))],
  ])("refuses a %s, itself and by a link", async (kind, make) => {
    tree({ f: "1" });
    make(join(kodata, "odd"));
    expect((await failure()).message).toBe(`Cannot pack "${kodata}/odd": it is a ${kind}, wanted a file or a folder`);
    link({ at: "a", to: "odd" });
    expect((await failure()).message).toBe(`Cannot pack "${kodata}/odd": it is a ${kind}, wanted a file or a folder`);
  });
  const listeners: { stop(close?: boolean): void }[] = [];
  afterEach(() => {
    for (const listener of listeners.splice(0)) listener.stop(true);
  });

  test("refuses a device, by a link that may lead there", async () => {
    tree({ f: "1" });
    link({ at: "null", to: "/dev/null" });
    expect((await failure({ allowedRoot: "/" })).message).toBe(
      'Cannot pack "/dev/null": it is a device, wanted a file or a folder',
    );
  });

  test("names what it cannot read", () => {
    tree({ "closed/f": "1" });
    chmodSync(join(kodata, "closed"), 0);
    // The superuser reads everything, but for that needs a capability, which is taken away here.
    const script = `
      import { kodataEntries } from ${JSON.stringify(join(import.meta.dir, "../lib/kodata.ts"))};
      try { [...kodataEntries({ directory: ${JSON.stringify(kodata)}, os: "linux", mtime: 0, log: console })]; }
      catch (error) { console.log(error.message); }`;
    const user = process.getuid?.() === 0 ? ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] : [];
    if (user[0] !== undefined && Bun.which(user[0]) === null) return console.warn("skipped: the test needs setpriv");
    const result = Bun.spawnSync([...user, process.execPath, "-e", script], { cwd: "/" });
    const output = result.stdout.toString() + result.stderr.toString();
    expect(output).toMatch(/^Cannot read "[^"]*\/kodata\/closed": EACCES/);
    return chmodSync(join(kodata, "closed"), 0o755);
  });

  test("names a file whose name is no text", async () => {
    tree({ f: "1" });
    expect(Bun.spawnSync(["sh", "-c", 'touch "$1/$(printf "a\\\\377")"', "sh", kodata]).exitCode).toBe(0);
    expect((await failure()).message).toBe(`Cannot read "${kodata}/a\ufffd": its name is not valid UTF-8`);
  });

  test.each([
    ["a symlink", () => symlinkSync("/", kodata)],
    ["not a folder", () => writeFileSync(kodata, "")],
  ])("packs nothing and warns when kodata is %s itself", (what, make) => {
    make();
    expect(contents()).toEqual({});
    expect(warnings).toEqual([
      `Nothing of "${kodata}" is packed: it is ${what}. Make it a folder; symlinks may be in it.`,
    ]);
  });

  test("has other roots and PAX records for Windows, and no links", () => {
    tree({ "d/f": "1" });
    link({ at: "out", to: "/etc/passwd" });
    expect([...kodataEntries(options({ os: "windows" }))]).toEqual([
      ...["Hives", "Files", "Files/var", "Files/var/run", "Files/var/run/ko", "Files/var/run/ko/d"].map(
        (name): TarEntry => ({ name, ...DIRECTORY }),
      ),
      {
        ...FILE,
        name: "Files/var/run/ko/d/f",
        size: 1,
        pax: OWNER,
        content: found(join(kodata, "d/f")),
      },
    ]);
    expect(warnings).toEqual([
      `The symlink "${kodata}/out" is left out: images for Windows get no symlinks from kodata.`,
    ]);
  });
});

describe("binaryEntries()", () => {
  test("puts the program below ko-app, the folder's name without the first slash", () => {
    expect(binaryEntries({ path: "/tmp/x", name: "/ko-app/app", os: "linux", size: 7 })).toEqual([
      { name: "ko-app", ...DIRECTORY },
      { ...FILE, name: "/ko-app/app", size: 7, content: { path: "/tmp/x" } },
    ]);
  });

  test("gives Windows its folders and its owner", () => {
    expect(binaryEntries({ path: "/tmp/x", name: "/ko-app/app", os: "windows", size: 7 })).toEqual([
      { name: "Hives", ...DIRECTORY },
      { name: "Files", ...DIRECTORY },
      { name: "Files/ko-app", ...DIRECTORY },
      { ...FILE, name: "Files/ko-app/app", size: 7, pax: OWNER, content: { path: "/tmp/x" } },
    ]);
  });

  test.each<[string, string, readonly string[]]>([
    ["/manager", "linux", ["/manager"]],
    ["/usr/local/bin/x", "linux", ["usr", "usr/local", "usr/local/bin", "/usr/local/bin/x"]],
    ["/manager", "windows", ["Hives", "Files", "Files/manager"]],
    ["/a/b", "windows", ["Hives", "Files", "Files/a", "Files/a/b"]],
  ])("puts folders above %s on %s", (name, os, expected) => {
    expect(binaryEntries({ path: "/tmp/x", name, os, size: 7 }).map((entry) => entry.name)).toEqual([...expected]);
  });
});

const DIRECTORY = { type: "directory", mode: 0o555, mtime: 0, size: 0 } as const;
const FILE = { type: "file", mode: 0o555, mtime: 0 } as const;
const OWNER = { "MSWINDOWS.rawsd": "AQAAgBQAAAAkAAAAAAAAAAAAAAABAgAAAAAABSAAAAAhAgAAAQIAAAAAAAUgAAAAIQIAAA==" };

function options(some: Partial<KodataOptions> = {}): KodataOptions {
  return kodataOptions(kodata, { ...some, warnings });
}

function file(entry: { readonly name: string; readonly content: string; readonly mtime: number }): TarEntry {
  const { name, content, mtime } = entry;
  return {
    ...FILE,
    name: `/var/run/ko/${name}`,
    mtime,
    size: Buffer.byteLength(content),
    content: found(join(kodata, name)),
  };
}

function found(path: string): FileContent {
  const { dev, ino } = lstatSync(path);
  return { path, found: { dev, ino } };
}

function contents(some: Partial<KodataOptions> = {}): Walked["contents"] {
  const walked = walkKodata(some.directory ?? kodata, some);
  warnings.push(...walked.warnings);
  return walked.contents;
}

function failure(some: Partial<KodataOptions> = {}): ReturnType<typeof walkFailure> {
  return walkFailure(kodata, some);
}

/** Writes files, and folders where a name ends with a slash; below kodata unless told otherwise. */
function tree(files: Readonly<Record<string, string>>, below: string = kodata): void {
  for (const [name, content] of Object.entries(files)) {
    const path = join(below, name);
    mkdirSync(name.endsWith("/") ? path : dirname(path), { recursive: true });
    if (!name.endsWith("/")) writeFileSync(path, content);
  }
}

function link({ at, to }: { readonly at: string; readonly to: string }): void {
  symlinkSync(to, join(kodata, at));
}

function mkfifo(path: string): void {
  expect(Bun.spawnSync(["mkfifo", path]).exitCode).toBe(0);
}
