/** Temporary folders, written from plain objects or empty, gone when disposed of; and the folder for the state of daemons. */
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { kodataEntries, type KodataOptions } from "../../lib/kodata.ts";
import { type Failure, failureOf } from "./failures.ts";

/**
 * What a path of a tree is: a file's text or bytes, an executable file, a file of any mode, a symbolic link, or (`null`)
 * an empty folder.
 */
export type TreeEntry =
  | string
  | Uint8Array
  | null
  | { readonly executable: string }
  | { readonly text: string; readonly mode: number }
  | { readonly link: string };

/** Paths below the root of a tree, and what is there. */
export type Files = Readonly<Record<string, TreeEntry>>;

export interface Tree extends Disposable {
  /** Absolute, without symbolic links. */
  readonly path: string;
  /** An absolute path in it. */
  at(path: string): string;
  write(entries: Files): void;
}

export interface Folder extends AsyncDisposable {
  /** Absolute. */
  readonly path: string;
}

/** Writes a temporary folder: `using tree = writeTree({ "cmd/app/main.go": "package main" })`. */
export function writeTree(entries: Files): Tree {
  const root = realpathSync(mkdtempSync(join(tmpdir(), "ko-test-")));
  const tree: Tree = {
    path: root,
    at: (path) => join(root, path),
    write: (more) => {
      for (const [path, entry] of Object.entries(more)) writeEntry(join(root, path), entry);
    },
    [Symbol.dispose]: () => rmSync(root, { recursive: true, force: true }),
  };
  tree.write(entries);
  return tree;
}

/** An empty folder that is gone, with all in it, at the end of the block: `await using folder = await makeFolder()`. */
export async function makeFolder(parent: string = tmpdir()): Promise<Folder> {
  const path = await mkdtemp(join(parent, "ko-test-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** The folder in which daemons keep their state, absolute: `npm test` sets `KO_TEST_STATE` to one in memory. */
export function stateFolder(): string {
  return process.env["KO_TEST_STATE"] || tmpdir();
}

function writeEntry(path: string, entry: TreeEntry): void {
  if (entry === null) {
    mkdirSync(path, { recursive: true });
    return;
  }
  mkdirSync(dirname(path), { recursive: true });
  if (typeof entry === "string" || entry instanceof Uint8Array) writeFileSync(path, entry);
  else if ("link" in entry) symlinkSync(entry.link, path);
  else if ("mode" in entry) {
    writeFileSync(path, entry.text);
    chmodSync(path, entry.mode);
  } else {
    writeFileSync(path, entry.executable);
    chmodSync(path, 0o755);
  }
}

export interface Walked {
  /** What would be packed below `/var/run/ko`, with contents; folders are empty texts. */
  readonly contents: Readonly<Record<string, string>>;
  readonly warnings: readonly string[];
}

/** For Linux, with the time 0, unless `some` says otherwise. */
export function kodataOptions(
  directory: string,
  some: Partial<KodataOptions> & { readonly warnings?: string[] },
): KodataOptions {
  const { warnings, ...rest } = some;
  const log = { info: () => {}, debug: () => {}, warn: (message: string) => void warnings?.push(message) };
  return { directory, os: "linux", mtime: 0, allowedRoot: undefined, log, ...rest };
}

export function walkKodata(directory: string, some: Partial<KodataOptions> = {}): Walked {
  const contents: Record<string, string> = {};
  const warnings: string[] = [];
  for (const { name, content } of [...kodataEntries(kodataOptions(directory, { ...some, warnings }))].slice(3)) {
    const path = content !== undefined && "path" in content ? content.path : undefined;
    contents[name.slice("/var/run/ko/".length)] = path === undefined ? "" : readFileSync(path, "utf8");
  }
  return { contents, warnings };
}

/** The words of the KoError that the walk fails with. */
export async function walkFailure(directory: string, some: Partial<KodataOptions> = {}): Promise<Failure> {
  return failureOf(() => Array.from(kodataEntries(kodataOptions(directory, some))));
}
