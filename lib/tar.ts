/**
 * Writes tar archives as Go's archive/tar does, byte for byte, so that diffIDs equal those of the original ko.
 *
 * Headers are USTAR if the entry fits, else PAX (https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html);
 * owners are numbers without names (docs/rules.md D2). tar-stream cannot be used: it writes PAX values as UTF-8 only
 * (docs/rules.md, Bun 7).
 */
import { closeSync, constants, fstatSync, lstatSync, openSync, readSync, realpathSync, type Stats } from "node:fs";
import { posix } from "node:path";
import { KoError, messageOf } from "./errors.ts";

export interface TarEntry {
  /** The path, with `/` on all systems. Directories have no trailing slash. */
  readonly name: string;
  readonly type: "file" | "directory" | "symlink";
  /** Permission bits, such as `0o555`. */
  readonly mode: number;
  /** Whole seconds since 1970. */
  readonly mtime: number;
  /** Bytes; 0 except for files. */
  readonly size: number;
  /** Owner; at most 2097151. @default 0 */
  readonly uid?: number;
  /** Group; at most 2097151. @default 0 */
  readonly gid?: number;
  /** The target of a symlink. */
  readonly linkName?: string;
  /** Additional PAX records. Those for the fields above are made of the fields. */
  readonly pax?: Readonly<Record<string, string | Uint8Array>>;
  /** The bytes of a file, the path of a file that has them, or a stream that is opened when the entry is written. */
  readonly content?: Uint8Array | FileContent | { open(signal: AbortSignal): AsyncIterable<Uint8Array> };
}

/** A file that has the bytes of an entry. */
export interface FileContent {
  readonly path: string;
  /** The file that was found at the path, which has no symlinks: no other may be read in its place. @default any */
  readonly found?: { readonly dev: number; readonly ino: number };
}

export interface PackTarOptions {
  readonly signal: AbortSignal;
  /** True yields all chunks in the same memory, which saves garbage. A chunk is valid until the next. @default false */
  readonly reuse?: boolean;
}

const RUN_AGAIN = "Run ko again when nothing writes to the file.";

/** The length of all chunks of {@link packTar} except the last: 1 MiB. */
export const TAR_BLOCK_BYTES: number = 1024 * 1024;

const RECORD = 512;
const NAME_BYTES = 100;
const PREFIX_BYTES = 155;
/** The largest number of eleven octal digits: 8 GiB - 1. */
const MAX_OCTAL_11 = 0o77777777777;
const TYPE_FLAGS = { file: "0", directory: "5", symlink: "2" } as const;
/** Keys of PAX records that are made of the fields of an entry only, as in Go. */
const OWN_PAX_KEYS: ReadonlySet<string> = new Set(
  "path linkpath size uid gid uname gname mtime atime ctime".split(" "),
);

/** Keeps `open` from waiting for a writer, if a fifo has replaced the file. Windows has no such flag. */
const NONBLOCK: number = constants.O_NONBLOCK ?? 0;

const NOTHING: Uint8Array = new Uint8Array(0);
/** The end of an archive, and, in parts, the padding of entries. */
const ZEROS: Uint8Array = new Uint8Array(2 * RECORD);

/**
 * Packs entries, in their order, into an archive that ends with two zero records.
 *
 * Files are opened one at a time. All chunks but the last have {@link TAR_BLOCK_BYTES}.
 *
 * @throws {KoError} If a file cannot be read, is not a regular file, or has another size than its entry.
 */
export async function* packTar(
  entries: Iterable<TarEntry> | AsyncIterable<TarEntry>,
  options: PackTarOptions,
): AsyncGenerator<Uint8Array<ArrayBuffer>, void, void> {
  const { signal, reuse = false } = options;
  const out = new BlockWriter(reuse);
  for await (const entry of entries) {
    signal.throwIfAborted();
    yield* out.put(tarHeader(entry));
    if (entry.type !== "file") continue;
    const { content = NOTHING, size } = entry;
    if (content instanceof Uint8Array) {
      if (content.byteLength !== size)
        throw new TypeError(`the content of the tar entry ${entry.name} is not ${size} bytes long`);
      yield* out.put(content);
    } else if ("open" in content) {
      yield* putStream(out, { source: content.open(signal), name: entry.name, size });
    } else {
      for (const block of putFile(out, { ...content, size })) {
        yield block;
        signal.throwIfAborted();
      }
    }
    yield* out.put(ZEROS.subarray(0, paddingOf(size)));
  }
  yield* out.put(ZEROS);
  yield* out.end();
}

/**
 * Returns the header of an entry: one record of 512 bytes, or more with PAX records.
 *
 * Like Go's `FormatUnknown` (https://pkg.go.dev/archive/tar#Format), it chooses PAX if the name is not ASCII or cannot
 * be split, the target of a symlink is not ASCII or over 100 bytes, the size is 8 GiB or more, the time is before 1970
 * or after 2242, or there are additional records.
 */
export function tarHeader(entry: TarEntry): Uint8Array {
  const { name, linkName = "" } = entry;
  const records = new Map<string, Uint8Array>();
  const split = splitName(name);
  const short = isAscii(name) && name.length <= NAME_BYTES;
  let ustar = short || split !== undefined;
  // In a PAX header a long name has a record, even if USTAR could split it.
  if (!short) records.set("path", Buffer.from(name));
  const need = (key: string, text: string): void => {
    records.set(key, Buffer.from(text));
    ustar = false;
  };
  if (!isAscii(linkName) || linkName.length > NAME_BYTES) need("linkpath", linkName);
  if (entry.size > MAX_OCTAL_11) need("size", String(entry.size));
  if (entry.mtime < 0 || entry.mtime > MAX_OCTAL_11) need("mtime", String(entry.mtime));
  for (const [key, value] of Object.entries(entry.pax ?? {})) {
    ustar = false;
    if (OWN_PAX_KEYS.has(key) || key.startsWith("GNU.sparse.")) continue;
    records.set(key, typeof value === "string" ? Buffer.from(value) : value);
  }
  const main = { ...entry, linkName };
  if (ustar) return mainRecord({ ...main, name: split?.suffix ?? name, prefix: split?.prefix ?? "" });
  const record = mainRecord({ ...main, name: asciiOnly(name), linkName: asciiOnly(linkName), prefix: "" });
  if (records.size === 0) return record;
  const body = Buffer.concat([...records].sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, v]) => paxRecord(key, v)));
  const head = paxHeadRecord(name, body.byteLength);
  return Buffer.concat([head, body, Buffer.alloc(paddingOf(body.byteLength)), record]);
}

/** Collects bytes into blocks of {@link TAR_BLOCK_BYTES}. */
class BlockWriter {
  readonly #reuse: boolean;
  #block = new Uint8Array(TAR_BLOCK_BYTES);
  #used = 0;

  constructor(reuse: boolean) {
    this.#reuse = reuse;
  }

  /** The unused part of the block; never empty. */
  get free(): Uint8Array {
    return this.#block.subarray(this.#used);
  }

  /** Counts the first `size` bytes of {@link free} as written. @returns the block if it is full */
  advance(size: number): Uint8Array<ArrayBuffer> | undefined {
    this.#used += size;
    if (this.#used < TAR_BLOCK_BYTES) return undefined;
    const full = this.#block;
    if (!this.#reuse) this.#block = new Uint8Array(TAR_BLOCK_BYTES);
    this.#used = 0;
    return full;
  }

  *put(bytes: Uint8Array): Generator<Uint8Array<ArrayBuffer>, void, void> {
    for (let at = 0; at < bytes.byteLength;) {
      const { free } = this;
      const part = bytes.subarray(at, at + free.byteLength);
      free.set(part);
      at += part.byteLength;
      const full = this.advance(part.byteLength);
      if (full !== undefined) yield full;
    }
  }

  *end(): Generator<Uint8Array<ArrayBuffer>, void, void> {
    if (this.#used > 0) yield this.#block.subarray(0, this.#used);
  }
}

interface PutStreamOptions {
  readonly source: AsyncIterable<Uint8Array>;
  /** The name of the entry. */
  readonly name: string;
  /** Bytes, as in the header. */
  readonly size: number;
}

async function* putStream(
  out: BlockWriter,
  { source, name, size }: PutStreamOptions,
): AsyncGenerator<Uint8Array<ArrayBuffer>, void, void> {
  let rest = size;
  for await (const chunk of source) {
    rest -= chunk.byteLength;
    if (rest < 0) break;
    yield* out.put(chunk);
  }
  if (rest !== 0) throw new TypeError(`the content of the tar entry ${name} is not ${size} bytes long`);
}

interface PutFileOptions extends FileContent {
  /** Bytes, as in the header. */
  readonly size: number;
}

/** Reads a file synchronously, which is several times as fast for small files. The caller awaits after each block. */
function* putFile(out: BlockWriter, options: PutFileOptions): Generator<Uint8Array<ArrayBuffer>, void, void> {
  const { found, path, size } = options;
  const file = reading(path, () => openSync(path, constants.O_RDONLY | NONBLOCK));
  try {
    const info = reading(path, () => fstatSync(file));
    if (!info.isFile()) throw new KoError(`Cannot pack "${path}": it is not a regular file any more`);
    if (found !== undefined && !isSame(info, found) && !isAt(path, info)) {
      throw new KoError(`Cannot pack "${path}": a symlink took the place of a part of the path since it was found`, {
        hint: RUN_AGAIN,
      });
    }
    if (info.size !== size) throw changed(path, { size, now: info.size });
    for (let rest = size; rest > 0;) {
      const { free } = out;
      const got = reading(path, () => readSync(file, free, 0, Math.min(free.byteLength, rest), null));
      if (got === 0) throw changed(path, { size, now: size - rest });
      rest -= got;
      const full = out.advance(got);
      if (full !== undefined) yield full;
    }
    const after = reading(path, () => fstatSync(file));
    if (after.size !== size) throw changed(path, { size, now: after.size });
  } finally {
    closeSync(file);
  }
}

/** Whether an open file is the one at a path without symlinks: an editor may replace a file in the meantime. */
function isAt(path: string, info: Stats): boolean {
  return reading(path, () => realpathSync(path) === path && isSame(lstatSync(path), info));
}

function isSame(a: Required<FileContent>["found"], b: Required<FileContent>["found"]): boolean {
  return a.dev === b.dev && a.ino === b.ino;
}

/** Calls the file system. Its failures become errors that name the file. */
function reading<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    throw new KoError(`Cannot read "${path}" to pack it: ${messageOf(cause)}`, { cause });
  }
}

function changed(path: string, sizes: { readonly size: number; readonly now: number }): KoError {
  return new KoError(`Cannot pack "${path}": it had ${sizes.size} bytes when it was found and has ${sizes.now} now`, {
    hint: RUN_AGAIN,
  });
}

interface MainRecord extends Omit<TarEntry, "pax" | "content"> {
  readonly linkName: string;
  /** Cut at the end of the field. */
  readonly prefix: string;
}

/** The record of the entry itself. */
function mainRecord(entry: MainRecord): Buffer {
  const record = Buffer.alloc(RECORD);
  putText(record.subarray(0, 100), entry.name);
  record.write(octal(entry.mode, 7), 100, "latin1");
  record.write(`${octal(entry.uid ?? 0, 7)}\0${octal(entry.gid ?? 0, 7)}`, 108, "latin1");
  // Like Go: zero if the number is in a PAX record.
  record.write(octal(entry.size > MAX_OCTAL_11 ? 0 : entry.size, 11), 124, "latin1");
  record.write(octal(entry.mtime < 0 || entry.mtime > MAX_OCTAL_11 ? 0 : entry.mtime, 11), 136, "latin1");
  record.write(TYPE_FLAGS[entry.type], 156, "latin1");
  putText(record.subarray(157, 257), entry.linkName);
  record.write("0000000\x000000000", 329, "latin1");
  record.write(entry.prefix, 345, PREFIX_BYTES, "latin1");
  return sealed(record);
}

/** The record that announces PAX records, with the name that Go gives it. */
function paxHeadRecord(name: string, size: number): Buffer {
  const slash = name.lastIndexOf("/") + 1;
  const paxName = asciiOnly(posix.join(name.slice(0, slash), "PaxHeaders.0", name.slice(slash)));
  const record = Buffer.alloc(RECORD);
  record.write(paxName.slice(0, NAME_BYTES).replace(/\/+$/, ""), 0, "latin1");
  record.write("0000000\x000000000\x000000000", 100, "latin1");
  record.write(octal(size, 11), 124, "latin1");
  record.write(octal(0, 11), 136, "latin1");
  record.write("x", 156, "latin1");
  return sealed(record);
}

/** Adds the magic and the checksum to a record. */
function sealed(record: Buffer): Buffer {
  record.write("ustar\x0000", 257, "latin1");
  record.fill(" ", 148, 156);
  let sum = 0;
  for (let i = 0; i < RECORD; i++) sum += record[i] ?? 0;
  record.write(`${octal(sum, 6)}\0 `, 148, "latin1");
  return record;
}

/** A PAX record, `length key=value\n`. The length includes its own digits. */
function paxRecord(key: string, value: Uint8Array): Buffer {
  const keyBytes = Buffer.from(key);
  const rest = keyBytes.byteLength + value.byteLength + " =\n".length;
  let size = rest + String(rest).length;
  if (String(size).length !== String(rest).length) size = rest + String(size).length;
  return Buffer.concat([Buffer.from(`${size} `), keyBytes, Buffer.from("="), value, Buffer.from("\n")]);
}

/** Copies ASCII text into a field. If it is cut at a slash, the slash goes too, as in Go. */
function putText(field: Buffer, text: string): void {
  field.write(text, "latin1");
  if (text.length > field.byteLength && field[field.byteLength - 1] === 0x2f) {
    field[text.slice(0, field.byteLength - 1).replace(/\/+$/, "").length] = 0;
  }
}

/** Splits a long ASCII name for USTAR, at the last slash that leaves a prefix of at most 155 bytes. */
function splitName(name: string): { readonly prefix: string; readonly suffix: string } | undefined {
  if (name.length <= NAME_BYTES || !isAscii(name)) return undefined;
  let limit = name.length;
  if (limit > PREFIX_BYTES + 1) limit = PREFIX_BYTES + 1;
  else if (name.endsWith("/")) limit--;
  const slash = name.slice(0, limit).lastIndexOf("/");
  const suffix = name.slice(slash + 1);
  if (slash <= 0 || suffix.length > NAME_BYTES || suffix === "") return undefined;
  return { prefix: name.slice(0, slash), suffix };
}

function isAscii(text: string): boolean {
  return !/[^\u0001-\u007f]/.test(text);
}

function asciiOnly(text: string): string {
  return text.replace(/[^\u0001-\u007f]/g, "");
}

function octal(value: number, digits: number): string {
  return value.toString(8).padStart(digits, "0");
}

function paddingOf(size: number): number {
  return (RECORD - (size % RECORD)) % RECORD;
}
