/** What Go, git and earlier runs leave behind: package lists, programs, repositories, records. */
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findRepository } from "../../lib/git-folder.ts";
import { findWorkTree, listRefs, planTags } from "../../lib/git.ts";
import { parseBuildInfo, readBuildInfo } from "../../lib/go-buildinfo.ts";
import { readModulePath } from "../../lib/go-modules.ts";
import { parsePackages, splitQuoted } from "../../lib/go.ts";
import { makeImageDocument } from "../../lib/sbom.ts";
import { findReferences } from "../../lib/yaml-references.ts";
import { splitDocuments } from "../../lib/yaml.ts";
import { randomImage } from "../helpers/images.ts";
import { type Check, expectSame, joinParts, partsOf, type Target, textOf, tryParse } from "./fuzz-target.ts";

const INFO = [
  "path\texample.com/app",
  "mod\texample.com/app\t(devel)\t",
  "dep\texample.com/b\tv1.2.3\th1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
  "=>\texample.com/c\tv1.0.0\th1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
  'build\t-ldflags="-s -w"',
  "build\tvcs.revision=0123",
].join("\n");

const PACKAGES = JSON.stringify({
  Dir: "/src/app",
  ImportPath: "example.com/app",
  Name: "main",
  Module: { Path: "example.com/app", Main: true, Dir: "/src", GoMod: "/src/go.mod", GoVersion: "1.21" },
  GoFiles: ["main.go"],
  EmbedPatterns: ["x"],
  EmbedFiles: ["x"],
  Deps: ["fmt"],
  Imports: ["fmt"],
  Error: { ImportStack: ["a"], Pos: "main.go:1:1", Err: "no" },
  DepsErrors: [{ ImportStack: ["a"], Pos: "", Err: "no" }],
});

/** A 64-bit little-endian ELF file with one writable segment that holds build information. */
function makeElf(): Uint8Array {
  const string = (text: string): Buffer =>
    Buffer.concat([Buffer.from(varint(text.length)), Buffer.from(text, "latin1")]);
  const frame = "\x30\x77\xaf\x0c\x92\x74\x08\x02\x41\xe1\xc1\x07\xe6\xd6\x18\xe6";
  const data = Buffer.concat([
    Buffer.from("\xff Go buildinf:\x08\x02", "latin1"),
    Buffer.alloc(16),
    string("go1.26.0"),
    string(`${frame}${INFO}\n${frame}`),
  ]);
  const file = Buffer.alloc(128);
  file.write("\x7fELF\x02\x01\x01", "latin1");
  file.writeBigUInt64LE(64n, 0x20);
  file.writeUInt16LE(56, 0x36);
  file.writeUInt16LE(1, 0x38);
  file.writeUInt16LE(64, 0x3a);
  file.writeUInt32LE(1, 64);
  file.writeUInt32LE(6, 68);
  file.writeBigUInt64LE(128n, 72);
  file.writeBigUInt64LE(0x400000n, 80);
  file.writeBigUInt64LE(BigInt(data.byteLength), 96);
  return new Uint8Array(Buffer.concat([file, data]));
}

/** A PE file with one writable section that holds the data of {@link makeElf}. */
function makePe(): Uint8Array {
  const data = Buffer.from(makeElf().subarray(128));
  const file = Buffer.alloc(192);
  file.write("MZ", "latin1");
  file.writeUInt32LE(64, 0x3c);
  file.write("PE\0\0", 64, "latin1");
  file.writeUInt16LE(1, 64 + 6);
  const section = 64 + 24;
  file.write(".data", section, "latin1");
  file.writeUInt32LE(data.byteLength, section + 8);
  file.writeUInt32LE(0x1000, section + 12);
  file.writeUInt32LE(data.byteLength, section + 16);
  file.writeUInt32LE(192, section + 20);
  file.writeUInt32LE(0xc0000040, section + 36);
  return new Uint8Array(Buffer.concat([file, data]));
}

function varint(value: number): readonly number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...varint(value >>> 7)];
}

async function makeFolder(stack: AsyncDisposableStack): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "ko-fuzz-"));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** The build information of a program, and the SBOM made from it. */
async function openPrograms(stack: AsyncDisposableStack): Promise<Check> {
  const path = join(await makeFolder(stack), "program");
  const image = await randomImage({ layers: 1 });
  // The seed must be read, or its mutations test nothing.
  await writeFile(path, makeElf());
  expectSame((await readBuildInfo(path)).path, "example.com/app", "the path in the seed");
  return async (input) => {
    await writeFile(path, input);
    const read = await tryParse(() => readBuildInfo(path));
    for (const program of [read ?? parseBuildInfo("go1.26", textOf(input))]) {
      const document = makeImageDocument(image, { programs: [program], koVersion: "1" });
      expectSame(JSON.parse(textOf(document)).spdxVersion, "SPDX-2.3", "the version of the SBOM");
      expectSame(makeImageDocument(image, { programs: [program], koVersion: "1" }), document, "the SBOM, made again");
    }
  };
}

/** A work tree whose `.git` file, HEAD, packed-refs, commondir and go.mod come from the input. */
async function openRepository(stack: AsyncDisposableStack): Promise<Check> {
  const folder = await makeFolder(stack);
  const [tree, own] = [join(folder, "tree"), join(folder, "own")];
  await mkdir(tree);
  await mkdir(join(own, "refs", "tags", "a"), { recursive: true });
  await mkdir(join(own, "objects"));
  const files = [join(tree, ".git"), join(own, "HEAD"), join(own, "packed-refs"), join(own, "commondir")];
  files.push(join(own, "config"), join(own, "gitdir"), join(tree, "go.mod"));
  return async (input) => {
    const parts = partsOf(input, files.length);
    for (const [i, file] of files.entries()) await writeFile(file, parts[i] ?? "");
    for (const each of [tree, own]) {
      await tryParse(() => findWorkTree(each));
      await tryParse(() => listRefs(each));
      await tryParse(() => planTags(each));
      await tryParse(() => findRepository(each));
      await tryParse(() => readModulePath(each));
    }
    expectSame(await readFile(files[0] ?? ""), Buffer.from(parts[0] ?? ""), "the .git file");
  };
}

/** With a tag, which is for the yaml package: only what it finds is recorded. */
const DOCUMENT = "a: !!str ko://example.com/a # x\nb: [ko://example.com/b]\n";

/** A document whose references are recalled from a record: a damaged record must not damage the document. */
async function checkRecord(input: Uint8Array): Promise<void> {
  let record: unknown;
  try {
    record = JSON.parse(textOf(input));
  } catch {
    return;
  }
  const [document] = splitDocuments(new TextEncoder().encode(DOCUMENT), "f.yaml");
  if (document === undefined) throw new Error("no document");
  const records = { read: () => record, write: () => {}, remove: () => {} };
  await tryParse(() => findReferences(document, { records }));
}

export const GO_TARGETS: readonly Target[] = [
  {
    name: "go-list",
    seeds: [`${PACKAGES}\n${PACKAGES}\n`, '{\n\t"ImportPath": "a",\n\t"Name": "main"\n}\n'],
    words: [...'{ } [ ] , : null "Dir": "Module": "Error": "Deps": "GoFiles": "Standard":true'.split(" "), "}\n{"],
    open: () => async (input) => void (await tryParse(() => parsePackages(input))),
  },
  {
    name: "go-flags",
    seeds: ["-ldflags='-s -w' -tags \"a b\" -v", "'a' \"b\" c"],
    words: [..."' \" \\ - =".split(" "), " ", "\t"],
    open: () => async (input) => void (await tryParse(() => splitQuoted(textOf(input)))),
  },
  {
    name: "program",
    seeds: [makeElf(), makePe(), INFO],
    words: [
      ...'path mod dep => build \t \n \xff h1: v0.0.0 (devel) " ` = -ldflags='.split(" "),
      "\x7fELF",
      "MZ",
      "PE\0\0",
    ],
    open: openPrograms,
  },
  {
    name: "git",
    seeds: [
      joinParts(
        "gitdir: ../own\n",
        "ref: refs/heads/main\n",
        "# pack-refs with: peeled fully-peeled sorted\n0123456789012345678901234567890123456789 refs/tags/v1\n",
        "../own\n",
        "[core]\n\tworktree = ../tree\n",
        "../tree/.git\n",
        "module example.com/app // x\n\ngo 1.21\n",
      ),
    ],
    words: [...'gitdir: ref: refs/ ../ .. / . [core] worktree = \\ " module'.split(" "), "\n=====\n", "\n", "\0"],
    open: openRepository,
  },
  {
    name: "record",
    seeds: [
      '[{"start":3,"end":23,"at":3,"value":"ko://example.com/a","style":"plain","before":"","after":""}]',
      '{"references":[{"start":3,"end":23,"value":"ko://example.com/a","style":"plain"}]}',
    ],
    words: [...'{ } [ ] , : null -1 0 1e9 1.5 "start": "end": "value": "style": "plain" "block"'.split(" ")],
    open: () => checkRecord,
  },
];
