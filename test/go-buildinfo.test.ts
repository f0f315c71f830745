/** The reader beside `go version -m -json` of the real Go, and on files that are damaged or made to harm. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readFileSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { KoError, messageOf } from "../lib/errors.ts";
import { type GoBuildInfo, parseBuildInfo, readBuildInfo } from "../lib/go-buildinfo.ts";
import { cacheFolder, findCounterpart, prepareKnative } from "./helpers/counterparts.ts";
import { rejectionOf } from "./helpers/failures.ts";
import { goMod, HELLO, mainGo } from "./helpers/go.ts";
import { askGoVersion } from "./helpers/sbom.ts";
import { type Files, type Tree, writeTree } from "./helpers/world-folders.ts";
import { commitTree, output } from "./helpers/world-programs.ts";

/** Milliseconds: the first build for a platform compiles the runtime for it. */
const BUILD_TIMEOUT = 180_000;

const USES_UUID =
  'package main\n\nimport "github.com/google/uuid"\n\nfunc main() { println(uuid.NewSHA1(uuid.NameSpaceURL, nil).String()) }\n';
const UUID_SUMS = [
  "github.com/google/uuid v1.6.0 h1:NIvaJDMOsjHA8n1jAhLSgzrAzy1Hgr+hNrb57e+94F0=",
  "github.com/google/uuid v1.6.0/go.mod h1:TIyPZe4MgqvfeYDBFedMoGGpEw/LqOeaOT+nhxU+yHo=",
  "",
].join("\n");
const UUID: Files = {
  "go.mod": goMod("example.com/ids", { more: "\nrequire github.com/google/uuid v1.6.0\n" }),
  "go.sum": UUID_SUMS,
  "main.go": USES_UUID,
};
const DEP_MAIN = 'package main\n\nimport "example.com/dep/words"\n\nfunc main() { println(words.Hello) }\n';
const DEP: Files = {
  "dep/go.mod": goMod("example.com/dep"),
  "dep/words/w.go": 'package words\n\nconst Hello = "hello"\n',
};

interface ProgramCase {
  readonly name: string;
  readonly files?: Files;
  /** Makes the tree a git repository, with a tag if one is given. */
  readonly commit?: string | boolean;
  /** Changes the tree after the commit. */
  readonly edit?: Files;
  readonly env?: Readonly<Record<string, string>>;
  readonly args?: readonly string[];
  /** Runs before `go build`, in the tree. */
  readonly before?: readonly string[];
  /** What shows that the case is the one that its name promises. */
  readonly shows: (info: GoBuildInfo) => unknown;
  readonly expected: unknown;
}

const platform = (os: string, arch: string): Readonly<Record<string, string>> => ({ GOOS: os, GOARCH: arch });
const settingOf = (info: GoBuildInfo, name: string): string | undefined =>
  info.settings.find(({ key }) => key === name)?.value;

const PROGRAMS: readonly ProgramCase[] = [
  {
    name: "a plain program",
    shows: ({ main, deps, path }) => ({ main, deps, path }),
    expected: { main: { path: "example.com/hello", version: "(devel)" }, deps: [], path: "example.com/hello" },
  },
  {
    name: "a pseudo-version, of a commit without a tag",
    commit: true,
    args: ["-buildvcs=true"],
    shows: ({ main }) => main?.version.replace(/[0-9a-f]{12}$/, "HASH"),
    expected: "v0.0.0-20240102030405-HASH",
  },
  {
    name: "a version of a tag, with changes",
    commit: "v1.2.3",
    edit: { "main.go": `${mainGo()}// changed\n` },
    args: ["-buildvcs=true"],
    shows: (info) => [info.main?.version.endsWith("+dirty"), settingOf(info, "vcs.modified")],
    expected: [true, "true"],
  },
  {
    name: "-buildvcs=false, in a commit",
    commit: true,
    args: ["-buildvcs=false"],
    env: { GOFLAGS: "-buildvcs=true" },
    shows: (info) => [info.main?.version, settingOf(info, "vcs.revision")],
    expected: ["(devel)", undefined],
  },
  {
    name: "a module from the proxy",
    files: UUID,
    shows: ({ deps }) => deps.map(({ path, version, sum }) => [path, version, sum]),
    expected: [["github.com/google/uuid", "v1.6.0", "h1:NIvaJDMOsjHA8n1jAhLSgzrAzy1Hgr+hNrb57e+94F0="]],
  },
  {
    name: "a module replaced by a folder",
    files: {
      ...DEP,
      "go.mod": goMod("example.com/app", {
        more: "\nrequire example.com/dep v0.1.0\n\nreplace example.com/dep => ./dep\n",
      }),
      "main.go": DEP_MAIN,
    },
    shows: ({ deps }) => deps,
    expected: [{ path: "example.com/dep", version: "v0.1.0", replace: { path: "./dep", version: "(devel)" } }],
  },
  {
    name: "a module replaced by another version",
    files: {
      ...UUID,
      "go.mod": goMod("example.com/ids", {
        more: "\nrequire github.com/google/uuid v1.3.0\n\nreplace github.com/google/uuid => github.com/google/uuid v1.6.0\n",
      }),
    },
    shows: ({ deps: [dep] }) => [dep?.version, dep?.sum, dep?.replace?.version],
    expected: ["v1.3.0", undefined, "v1.6.0"],
  },
  {
    name: "a vendored program",
    files: UUID,
    before: ["go", "mod", "vendor"],
    args: ["-mod=vendor"],
    shows: ({ deps }) => deps.map(({ version }) => version),
    expected: ["v1.6.0"],
  },
  {
    name: "a module of a workspace",
    files: {
      ...DEP,
      "go.mod": goMod("example.com/app"),
      "main.go": DEP_MAIN,
      "go.work": "go 1.21\n\nuse .\nuse ./dep\n",
    },
    env: { GOWORK: "" },
    shows: ({ deps }) => deps,
    expected: [{ path: "example.com/dep", version: "(devel)" }],
  },
  {
    name: "no modules at all",
    files: { "src/example.com/hello/main.go": mainGo() },
    env: { GO111MODULE: "off", GOFLAGS: "" },
    args: ["example.com/hello"],
    shows: ({ main, deps, path }) => ({ main, deps, path }),
    expected: { main: undefined, deps: [], path: "example.com/hello" },
  },
  {
    name: "-ldflags=-s -w, without symbols",
    args: ["-trimpath=false", "-ldflags=-s -w"],
    shows: (info) => settingOf(info, "-ldflags"),
    expected: "-s -w",
  },
  {
    name: "settings that go quotes",
    args: ["-trimpath=false", "-ldflags=-X 'main.v=a\tb' -X \"main.w=\\`ü\"", "-tags=x,y"],
    shows: (info) => [settingOf(info, "-ldflags"), settingOf(info, "-tags")],
    expected: ["-X 'main.v=a\tb' -X \"main.w=\\`ü\"", "x,y"],
  },
  ...[
    ["windows", "amd64"],
    ["linux", "arm64"],
    ["linux", "386"],
    ["linux", "s390x"],
    ["darwin", "arm64"],
  ].map(([os = "", arch = ""]): ProgramCase => ({
    name: `${os}/${arch}`,
    env: platform(os, arch),
    shows: (info) => [settingOf(info, "GOOS"), settingOf(info, "GOARCH")],
    expected: [os, arch],
  })),
];

/** Builds a program for linux/amd64, unless the case says otherwise; the path of the binary. */
async function build(tree: Tree, { args = [], before, commit, edit = {}, env }: Partial<ProgramCase>): Promise<string> {
  const clean = { GOFLAGS: "-buildvcs=false", GOWORK: "off", GOPATH: process.env["GOPATH"] };
  const gopath = env?.["GO111MODULE"] === "off" ? { GOPATH: tree.path } : {};
  const all = { ...process.env, ...clean, ...platform("linux", "amd64"), CGO_ENABLED: "0", ...env, ...gopath };
  const options = { cwd: tree.path, env: all };
  if (commit !== undefined) await commitTree(tree.path);
  if (typeof commit === "string") await output(["git", "tag", commit], options);
  tree.write(edit);
  if (before !== undefined) await output(before, options);
  const file = tree.at("program.out");
  await output(["go", "build", "-trimpath", "-o", file, ...args], options);
  return file;
}

describe("readBuildInfo()", () => {
  test.each(PROGRAMS.map((item) => [item.name, item] as const))(
    "%s: the same as go version -m",
    async (_name, item) => {
      using tree = writeTree(item.files ?? HELLO);
      const file = await build(tree, item);
      const info = await readBuildInfo(file);
      expect(info).toEqual(await askGoVersion(file));
      expect(item.shows(info)).toEqual(item.expected);
    },
    BUILD_TIMEOUT,
  );

  test.skipIf(!existsSync(join(cacheFolder(), "knative.dev-serving-v0.45.0")))(
    "Knative's autoscaler: the same as go version -m",
    async () => {
      const tree = await prepareKnative();
      using out = writeTree({});
      const file = out.at("autoscaler");
      const env = { ...process.env, CGO_ENABLED: "0", GOFLAGS: "-buildvcs=false", GOWORK: "off" };
      await output(["go", "build", "-trimpath", "-o", file, "./cmd/autoscaler"], { cwd: tree, env });
      const info = await readBuildInfo(file);
      expect(info).toEqual(await askGoVersion(file));
      // A vendored or empty list would be equal, too.
      expect(info.deps.length).toBeGreaterThan(70);
      expect(info.deps.find(({ path }) => path === "knative.dev/pkg")?.sum).toStartWith("h1:");
    },
    10 * 60_000,
  );

  test.each(["ko", "crane", "dockerd", "etcd", "kube-apiserver"] as const)(
    "%s, where it is installed: the same as go version -m, from a few KB of the file",
    async (name) => {
      const file = findCounterpart(name);
      if (file === undefined) return;
      const before = bytesRead();
      const info = await readBuildInfo(file);
      const read = bytesRead() - before;
      expect(info).toEqual(await askGoVersion(file));
      expect(read).toBeLessThan(256 * 1024);
    },
    30_000,
  );
});

/** Bytes that this process has read, as Linux counts them; 0 elsewhere. */
function bytesRead(): number {
  return process.platform === "linux" ? Number(/^rchar: (\d+)/m.exec(readFileSync("/proc/self/io", "utf8"))?.[1]) : 0;
}

describe("readBuildInfo(), of files that are damaged or made to harm", () => {
  let work: Tree;
  const samples: Record<"elf" | "elf32be" | "pe" | "macho", Buffer> = {
    elf: Buffer.of(),
    elf32be: Buffer.of(),
    pe: Buffer.of(),
    macho: Buffer.of(),
  };

  beforeAll(async () => {
    work = writeTree({});
    for (const [name, os, arch] of [
      ["elf", "linux", "amd64"],
      ["elf32be", "linux", "mips"],
      ["pe", "windows", "amd64"],
      ["macho", "darwin", "arm64"],
    ] as const) {
      using tree = writeTree(HELLO);
      samples[name] = readFileSync(await build(tree, { env: platform(os, arch) }));
    }
  }, BUILD_TIMEOUT);

  afterAll(() => work?.[Symbol.dispose]());

  const read = (bytes: Uint8Array): Promise<GoBuildInfo> => {
    work.write({ file: bytes });
    return readBuildInfo(work.at("file"));
  };
  /** The reason in the error, which must be a KoError. */
  const whyNot = async (bytes: Uint8Array): Promise<string> => {
    const error = await rejectionOf(read(bytes));
    if (!(error instanceof KoError)) throw error;
    return error.message.replace(/^Cannot read the build information of "[^"]+": /, "");
  };
  const edited = (sample: Buffer, edit: (bytes: Buffer) => void): Buffer => {
    const copy = Buffer.from(sample);
    edit(copy);
    return copy;
  };
  const magicAt = (sample: Buffer): number => sample.indexOf(Buffer.from("\xff Go buildinf:", "latin1"));

  test("reads 32-bit big-endian ELF", async () => {
    expect((await read(samples.elf32be)).settings).toContainEqual({ key: "GOARCH", value: "mips" });
  });

  test("reads an ELF file without section headers, by its segments", async () => {
    const bytes = edited(samples.elf, (copy) => {
      copy.fill(0, 0x28, 0x30);
      copy.fill(0, 0x3c, 0x40);
    });
    expect(await read(bytes)).toEqual(await read(samples.elf));
  });

  test("passes over a magic that is not aligned", async () => {
    const bytes = edited(samples.elf, (copy) => {
      copy.fill(0, 0x28, 0x30);
      copy.fill(0, 0x3c, 0x40);
      // The first writable segment begins at the magic: begin it earlier, at a false one.
      const at = magicAt(copy);
      Buffer.from("\xff Go buildinf:", "latin1").copy(copy, at - 24);
      const segments = Number(copy.readBigUInt64LE(0x20));
      for (let i = 0; i < copy.readUInt16LE(0x38); i++) {
        const segment = segments + i * 56;
        const isData = copy.readUInt32LE(segment) === 1 && (copy.readUInt32LE(segment + 4) & 3) === 2;
        if (!isData) continue;
        copy.writeBigUInt64LE(copy.readBigUInt64LE(segment + 8) - 32n, segment + 8);
        copy.writeBigUInt64LE(copy.readBigUInt64LE(segment + 16) - 32n, segment + 16);
      }
    });
    expect((await read(bytes)).path).toBe("example.com/hello");
  });

  test.each<[string, () => Uint8Array, string]>([
    ["an empty file", () => Buffer.of(), "it is not an ELF, PE or 64-bit Mach-O file"],
    ["a script", () => Buffer.from("#!/bin/sh\n"), "it is not an ELF, PE or 64-bit Mach-O file"],
    ["a WebAssembly module", () => Buffer.from("\0asm\x01\0\0\0"), "it is not an ELF, PE or 64-bit Mach-O file"],
    ["an ELF header that ends", () => samples.elf.subarray(0, 60), "it ends in its header"],
    ["a PE header that ends", () => samples.pe.subarray(0, 60), "it ends in its header"],
    [
      "a program for MS-DOS",
      () => edited(samples.pe, (b) => b.write("XX", b.readUInt32LE(0x3c))),
      "it is a program for MS-DOS",
    ],
    [
      "a table of sections behind the end",
      () => edited(samples.elf, (b) => b.writeBigUInt64LE(2n ** 64n - 1n, 0x28)),
      "it ends after SIZE bytes, in the middle of its data",
    ],
    [
      "65,535 sections",
      () => edited(samples.elf, (b) => b.writeUInt16LE(65535, 0x3c)),
      "it has 65535 sections: it is damaged",
    ],
    [
      "sections of no size",
      () => edited(samples.elf, (b) => b.writeUInt16LE(0, 0x3a)),
      "its table of sections is damaged",
    ],
    [
      "load commands of 4 GB",
      () => edited(samples.macho, (b) => b.writeUInt32LE(0xffffffff, 20)),
      "it says that 4294967295 bytes belong together: it is damaged",
    ],
    [
      "a load command of no size",
      () => edited(samples.macho, (b) => b.writeUInt32LE(0, 36)),
      "its load commands are damaged",
    ],
    ["no magic", () => edited(samples.elf, (b) => b.fill(0, magicAt(b), magicAt(b) + 14)), "it is not a Go program"],
    [
      "the pointers of a Go before 1.18",
      () => edited(samples.elf, (b) => b.fill(0, magicAt(b) + 15, magicAt(b) + 16)),
      "it was compiled by a Go before 1.18, which writes another format",
    ],
    [
      "a version of 2^63 bytes",
      () => edited(samples.elf, (b) => b.fill(0xff, magicAt(b) + 32, magicAt(b) + 40)),
      "its build information is damaged",
    ],
    [
      "a length without an end",
      () => edited(samples.elf, (b) => b.fill(0xff, magicAt(b) + 32, magicAt(b) + 50)),
      "its build information is damaged",
    ],
    [
      "no version",
      () => edited(samples.elf, (b) => b.fill(0, magicAt(b) + 32, magicAt(b) + 34)),
      "it is not a Go program",
    ],
    [
      "a text that the file cuts off",
      () => samples.elf.subarray(0, magicAt(samples.elf) + 60),
      "it ends after SIZE bytes, in the middle of its data",
    ],
  ])("%s is refused", async (_name, make, why) => {
    expect((await whyNot(make())).replace(/after \d+ bytes/, "after SIZE bytes")).toBe(why);
  });

  test("files that do not exist, folders and pipes are refused without waiting", async () => {
    work.write({ folder: null });
    await output(["mkfifo", work.at("pipe")], { cwd: work.path, env: process.env });
    const messages = [];
    for (const name of ["missing", "folder", "pipe"]) {
      messages.push(messageOf(await rejectionOf(readBuildInfo(work.at(name)))).replaceAll(work.path, "WORK"));
    }
    expect(messages).toEqual([
      `Cannot read the build information of "WORK/missing": ENOENT: no such file or directory, stat 'WORK/missing'`,
      `Cannot read the build information of "WORK/folder": it is not a file`,
      `Cannot read the build information of "WORK/pipe": it is not a file`,
    ]);
  });

  test("a data segment of 8 GB is searched at its beginning only", async () => {
    const bytes = edited(samples.elf, (copy) => {
      copy.fill(0, 0x28, 0x30);
      copy.fill(0, 0x3c, 0x40);
      const segments = Number(copy.readBigUInt64LE(0x20));
      for (let i = 0; i < copy.readUInt16LE(0x38); i++) {
        copy.writeBigUInt64LE(BigInt(copy.byteLength), segments + i * 56 + 8);
        copy.writeBigUInt64LE(2n ** 33n, segments + i * 56 + 32);
      }
    });
    work.write({ file: bytes });
    truncateSync(work.at("file"), 2 ** 33);
    const before = bytesRead();
    expect(messageOf(await rejectionOf(readBuildInfo(work.at("file"))))).toEndWith(": it is not a Go program");
    expect(bytesRead() - before).toBeLessThan(66 * 1024 * 1024);
  });

  test("each file that is cut off gives a KoError, or the whole information", async () => {
    for (const sample of Object.values(samples)) {
      const whole = await read(sample);
      const end = magicAt(sample) + 2048;
      const lengths = Array.from({ length: 200 }, (_, i) => Math.floor((end * i) / 200));
      for (const length of [...lengths, ...Array.from({ length: 100 }, (_, i) => i * 7)]) {
        const result = await read(sample.subarray(0, length)).catch((error: unknown) => error);
        if (!(result instanceof KoError)) expect(result).toEqual(whole);
      }
    }
  });

  test("2,000 files with changed headers give a KoError or build information", async () => {
    let state = 1;
    const random = (below: number): number => {
      state = (state * 1103515245 + 12345) & 0x7fffffff;
      return (state >> 8) % below;
    };
    for (const sample of Object.values(samples)) {
      const at = magicAt(sample);
      const isElf = sample[0] === 0x7f;
      const table = isElf && sample[5] === 1 ? Number(sample.readBigUInt64LE(0x28)) : 0;
      for (let i = 0; i < 500; i++) {
        const bytes = edited(sample, (copy) => {
          for (let edits = 1 + random(6); edits > 0; edits--) {
            const places = [random(0x40), random(0x400), at + random(64), table + random(0x600)];
            copy[places[random(4)] ?? 0] = [0, 0xff, 0x7f, 0x80, random(256)][random(5)] ?? 0;
          }
        });
        const result = await read(bytes).catch((error: unknown) => error);
        if (!(result instanceof KoError)) expect(result).toHaveProperty("goVersion");
      }
    }
  }, 60_000);
});

describe("parseBuildInfo()", () => {
  test.each<[string, string, Partial<GoBuildInfo>]>([
    ["nothing", "", {}],
    ["unknown lines", "path\ta\nfuture\tx\ty\n\n\tz\n", { path: "a" }],
    ["CRLF", "path\ta\r\nmod\ta\tv1\th1:x\r\n", { path: "a", main: { path: "a", version: "v1", sum: "h1:x" } }],
    ["no line end at the end", "path\ta", { path: "a" }],
    [
      "a replacement with two columns",
      "dep\tb\tv1\n=>\t./b\t(devel)\n",
      { deps: [{ path: "b", version: "v1", replace: { path: "./b", version: "(devel)" } }] },
    ],
    [
      "a replacement with one column",
      "dep\tb\tv1\n=>\t./b\n",
      { deps: [{ path: "b", version: "v1", replace: { path: "./b", version: "" } }] },
    ],
    [
      "a replaced main module",
      "mod\ta\tv1\n=>\tc\tv2\th1:x\n",
      { main: { path: "a", version: "v1", replace: { path: "c", version: "v2", sum: "h1:x" } } },
    ],
    ["a replacement of nothing", "=>\t./b\t(devel)\npath\ta\n=>\tc\tv1\n", { path: "a" }],
    ["a module without a version", "dep\tb\n", { deps: [{ path: "b", version: "" }] }],
    [
      "settings",
      'build\tA=1\nbuild\tB=\nbuild\tC=x=y\nbuild\tbroken\nbuild\t=x\nbuild\t"D E"="\\x00\\u00fc\\U0001f600\\n\\"\\\\\\xff"\nbuild\tF=`g h`\nbuild\tG="\\Uffffffff\\xzz\\u-1-w\\x1g"\n',
      {
        settings: [
          { key: "A", value: "1" },
          { key: "B", value: "" },
          { key: "C", value: "x=y" },
          { key: "D E", value: '\0ü😀\n"\\\ufffd' },
          { key: "F", value: "g h" },
          { key: "G", value: "\ufffd\ufffd\ufffd\ufffd" },
        ],
      },
    ],
  ])("%s", (_name, text, expected) => {
    expect(parseBuildInfo("go1.26", text)).toEqual({
      goVersion: "go1.26",
      path: "",
      deps: [],
      settings: [],
      ...expected,
    });
  });
});
