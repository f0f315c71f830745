/**
 * The build information that Go's linker writes into a program: its modules, and the settings it was compiled with.
 *
 * It is found in ELF, PE and 64-bit Mach-O files as Go's debug/buildinfo finds it, by positioned reads of bounded size.
 * Programs of a Go before 1.18 are refused. https://pkg.go.dev/debug/buildinfo
 */
import { type FileHandle, open, stat } from "node:fs/promises";
import { KoError, messageOf } from "./errors.ts";

export interface GoModule {
  /** The module's path; for a {@link GoModule.replace}, also a folder such as `../lib`. */
  readonly path: string;
  /** `v1.2.3`, a pseudo-version, `(devel)`, or "". */
  readonly version: string;
  /** The hash of the module's files in go.sum's form: `h1:` and base64. */
  readonly sum?: string;
  /** The module that was compiled in this one's place, by a `replace` directive. */
  readonly replace?: GoModule;
}

export interface GoBuildInfo {
  /** `go1.26.8` */
  readonly goVersion: string;
  /** The import path of the main package; "" if the program has no build information beyond the version. */
  readonly path: string;
  /** The module of the main package; undefined if the program was compiled without modules. */
  readonly main?: GoModule;
  /** The modules of all other packages, in the order of `go version -m`. */
  readonly deps: readonly GoModule[];
  /** Flags, environment and version control, such as `-trimpath=true` and `vcs.revision=…`. */
  readonly settings: readonly GoBuildSetting[];
}

export interface GoBuildSetting {
  readonly key: string;
  readonly value: string;
}

/** The part of a file to search, in bytes. */
interface Range {
  readonly offset: number;
  readonly size: number;
  /** The address in memory, which decides the alignment. */
  readonly address: number;
}

const MAGIC = Buffer.from("\xff Go buildinf:", "latin1");
const ALIGNMENT = 16;
const HEADER_BYTES = 32;
/** Bit of the flags that says that the strings follow the header. Before Go 1.18 there were pointers instead. */
const INLINE = 0x2;
/** The strings that enclose the text about modules. */
const FRAME_BYTES = 16;

/** Limits for a damaged or hostile file: entries of a table, bytes of a read, of a table of names, of the search. */
const MAX_ENTRIES = 4096;
const MAX_READ_BYTES = 4 * 1024 * 1024;
const MAX_NAMES_BYTES = 1024 * 1024;
const SEARCH_CHUNK_BYTES = 1024 * 1024;
const MAX_SEARCH_BYTES = 64 * 1024 * 1024;
const MAX_VERSION_BYTES = 4096;

/**
 * Reads the build information of a Go program.
 *
 * @param path absolute
 * @throws {KoError} If the file cannot be read, is damaged, or is not a program of Go 1.18 or later.
 */
export async function readBuildInfo(path: string): Promise<GoBuildInfo> {
  let handle: FileHandle | undefined;
  try {
    const found = await stat(path);
    // Opening a pipe would wait for a writer.
    if (!found.isFile()) throw new KoError("it is not a file");
    handle = await open(path);
    return await readInfo(new ProgramFile(handle, found.size));
  } catch (cause) {
    throw new KoError(`Cannot read the build information of "${path}": ${messageOf(cause)}`, { cause });
  } finally {
    await handle?.close();
  }
}

/**
 * Parses the text about modules and settings, as `go version -m` prints it, without the indentation.
 *
 * Lines that it does not know are ignored: a new line of a later Go must not fail a build.
 */
export function parseBuildInfo(goVersion: string, text: string): GoBuildInfo {
  let path = "";
  let main: GoModule | undefined;
  const deps: GoModule[] = [];
  const settings: GoBuildSetting[] = [];
  let previous = "";
  for (const line of text.split("\n")) {
    const [word = "", ...columns] = line.replace(/\r$/, "").split("\t");
    if (word === "path") path = columns[0] ?? "";
    else if (word === "mod") main = readModule(columns);
    else if (word === "dep") deps.push(readModule(columns));
    else if (word === "build") settings.push(...readSetting(columns.join("\t")));
    else if (word === "=>" && previous === "mod" && main !== undefined)
      main = { ...main, replace: readModule(columns) };
    else if (word === "=>" && previous === "dep") {
      deps.push(...deps.splice(-1).map((replaced) => ({ ...replaced, replace: readModule(columns) })));
    }
    previous = word;
  }
  return { goVersion, path, ...(main === undefined ? {} : { main }), deps, settings };
}

/** A file that is read at positions which the file itself names, and which may be wrong. */
class ProgramFile {
  readonly size: number;
  readonly #handle: FileHandle;

  constructor(handle: FileHandle, size: number) {
    this.#handle = handle;
    this.size = size;
  }

  /** @throws {KoError} If the file does not have all these bytes. */
  async read(position: number, length: number): Promise<Buffer> {
    const bytes = await this.readUpTo(position, length);
    if (bytes.byteLength < length) throw new KoError(`it ends after ${this.size} bytes, in the middle of its data`);
    return bytes;
  }

  /** Reads fewer bytes at the end of the file. @throws {KoError} If the length is over {@link MAX_READ_BYTES}. */
  async readUpTo(position: number, length: number): Promise<Buffer> {
    if (length > MAX_READ_BYTES) throw new KoError(`it says that ${length} bytes belong together: it is damaged`);
    // Positions of 64 bits may be rounded here, but only those that are far behind the end.
    const wanted = Math.max(0, Math.min(length, this.size - position));
    const buffer = Buffer.allocUnsafe(wanted);
    let done = 0;
    while (done < wanted) {
      const { bytesRead } = await this.#handle.read(buffer, done, wanted - done, position + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return buffer.subarray(0, done);
  }

  /** Reads a table of equal entries. @throws {KoError} If it is too large, or the entries are too small. */
  async readTable(table: Table): Promise<readonly Buffer[]> {
    const { offset, count, entryBytes, leastBytes } = table;
    if (count > MAX_ENTRIES) throw new KoError(`it has ${count} sections: it is damaged`);
    if (count > 0 && (entryBytes < leastBytes || entryBytes > 512))
      throw new KoError("its table of sections is damaged");
    const bytes = await this.read(offset, count * entryBytes);
    return Array.from({ length: count }, (_, i) => bytes.subarray(i * entryBytes, (i + 1) * entryBytes));
  }
}

interface Table {
  readonly offset: number;
  readonly count: number;
  readonly entryBytes: number;
  /** The bytes of an entry that are read. */
  readonly leastBytes: number;
}

async function readInfo(file: ProgramFile): Promise<GoBuildInfo> {
  const range = await findData(file);
  const found = range === undefined ? undefined : await findHeader(file, range);
  if (found === undefined) throw new KoError("it is not a Go program");
  const header = await file.read(found, HEADER_BYTES);
  if (((header[15] ?? 0) & INLINE) === 0) {
    throw new KoError("it was compiled by a Go before 1.18, which writes another format");
  }
  const version = await readText(file, found + HEADER_BYTES, MAX_VERSION_BYTES);
  const modules = await readText(file, version.end, MAX_READ_BYTES);
  if (version.bytes.byteLength === 0) throw new KoError("it is not a Go program");
  const { bytes } = modules;
  // The text and its frame are missing in a program that go did not link itself.
  const isFramed = bytes.byteLength > 2 * FRAME_BYTES && bytes.at(-FRAME_BYTES - 1) === 0x0a;
  const text = isFramed ? bytes.subarray(FRAME_BYTES, -FRAME_BYTES).toString() : "";
  return parseBuildInfo(version.bytes.toString(), text);
}

/** The section for the build information, or the first data that the program may write; undefined if there is neither. */
async function findData(file: ProgramFile): Promise<Range | undefined> {
  const start = await file.readUpTo(0, 64);
  const magic = start.toString("latin1", 0, 4);
  if (magic === "\x7fELF") return findInElf(file, start);
  if (magic.startsWith("MZ")) return findInPe(file, start);
  if (magic === "\xcf\xfa\xed\xfe") return findInMachO(file, start);
  throw new KoError("it is not an ELF, PE or 64-bit Mach-O file");
}

/** https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html, chapters 4 and 5 */
async function findInElf(file: ProgramFile, start: Buffer): Promise<Range | undefined> {
  if (start.byteLength < 52) throw new KoError("it ends in its header");
  const [wide, little] = [start[4] === 2, start[5] === 1];
  if (wide && start.byteLength < 64) throw new KoError("it ends in its header");
  const half = (bytes: Buffer, at: number): number => (little ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at));
  const word = (bytes: Buffer, at: number): number => (little ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at));
  /** A field as wide as an address, at its place in 64-bit or in 32-bit files. */
  const long = (bytes: Buffer, [at64, at32]: readonly [number, number]): number => {
    if (!wide) return word(bytes, at32);
    return Number(little ? bytes.readBigUInt64LE(at64) : bytes.readBigUInt64BE(at64));
  };
  const at = wide ? 0x36 : 0x2a;
  const names = half(start, at + 8);
  const sections = await file.readTable({
    offset: long(start, [0x28, 0x20]),
    entryBytes: half(start, at + 4),
    count: half(start, at + 6),
    leastBytes: wide ? 64 : 40,
  });
  const rangeOf = (section: Buffer): Range => ({
    address: long(section, [16, 12]),
    offset: long(section, [24, 16]),
    size: long(section, [32, 20]),
  });
  const nameSection = sections[names];
  if (nameSection !== undefined) {
    const { offset, size } = rangeOf(nameSection);
    const table = await file.readUpTo(offset, Math.min(size, MAX_NAMES_BYTES));
    const found = sections.find((section) => isText(table, word(section, 0), ".go.buildinfo\0"));
    if (found !== undefined) return rangeOf(found);
  }
  const segments = await file.readTable({
    offset: long(start, [0x20, 0x1c]),
    entryBytes: half(start, at),
    count: half(start, at + 2),
    leastBytes: wide ? 56 : 32,
  });
  const [LOAD, EXECUTABLE, WRITABLE] = [1, 0x1, 0x2];
  const data = segments.find((segment) => {
    const flags = word(segment, wide ? 4 : 24);
    return word(segment, 0) === LOAD && (flags & (EXECUTABLE | WRITABLE)) === WRITABLE;
  });
  if (data === undefined) return undefined;
  return { offset: long(data, [8, 4]), address: long(data, [16, 8]), size: long(data, [32, 16]) };
}

/** https://learn.microsoft.com/en-us/windows/win32/debug/pe-format */
async function findInPe(file: ProgramFile, start: Buffer): Promise<Range | undefined> {
  if (start.byteLength < 64) throw new KoError("it ends in its header");
  const at = start.readUInt32LE(0x3c);
  const header = await file.read(at, 24);
  if (header.toString("latin1", 0, 4) !== "PE\0\0") throw new KoError("it is a program for MS-DOS");
  const sections = await file.readTable({
    offset: at + header.byteLength + header.readUInt16LE(20),
    count: header.readUInt16LE(6),
    entryBytes: 40,
    leastBytes: 40,
  });
  const [ALIGN_32, READABLE_WRITABLE_DATA] = [0x600000, 0xc0000040];
  const data = sections.find((section) => {
    const kind = (section.readUInt32LE(36) & ~ALIGN_32) >>> 0;
    return kind === READABLE_WRITABLE_DATA && section.readUInt32LE(12) !== 0 && section.readUInt32LE(16) !== 0;
  });
  if (data === undefined) return undefined;
  const size = Math.min(data.readUInt32LE(8), data.readUInt32LE(16));
  return { address: data.readUInt32LE(12), offset: data.readUInt32LE(20), size };
}

/** https://github.com/apple-oss-distributions/xnu/blob/main/EXTERNAL_HEADERS/mach-o/loader.h */
async function findInMachO(file: ProgramFile, start: Buffer): Promise<Range | undefined> {
  const [SEGMENT_64, SEGMENT_BYTES, SECTION_BYTES] = [0x19, 72, 80];
  const commands = await file.read(32, start.byteLength < 32 ? 0 : start.readUInt32LE(20));
  for (let at = 0; at + 8 <= commands.byteLength;) {
    const size = commands.readUInt32LE(at + 4);
    if (size < 8 || at + size > commands.byteLength) throw new KoError("its load commands are damaged");
    const end = commands.readUInt32LE(at) === SEGMENT_64 ? at + size : at;
    for (let section = at + SEGMENT_BYTES; section + SECTION_BYTES <= end; section += SECTION_BYTES) {
      if (!isText(commands, section, "__go_buildinfo\0")) continue;
      const [address, bytes] = [commands.readBigUInt64LE(section + 32), commands.readBigUInt64LE(section + 40)];
      return { address: Number(address), size: Number(bytes), offset: commands.readUInt32LE(section + 48) };
    }
    at += size;
  }
  return undefined;
}

/** The position of the header: the first magic whose address is aligned. */
async function findHeader(file: ProgramFile, range: Range): Promise<number | undefined> {
  const skipped = (ALIGNMENT - (range.address % ALIGNMENT)) % ALIGNMENT;
  const start = range.offset + skipped;
  const end = Math.min(file.size, range.offset + Math.min(range.size, MAX_SEARCH_BYTES));
  // An aligned header lies in one chunk, or its magic does.
  for (let at = start; at < end; at += SEARCH_CHUNK_BYTES) {
    const chunk = await file.readUpTo(at, Math.min(SEARCH_CHUNK_BYTES, end - at));
    for (let found = chunk.indexOf(MAGIC); found >= 0; found = chunk.indexOf(MAGIC, found + 1)) {
      if (found % ALIGNMENT === 0) return at + found;
    }
  }
  return undefined;
}

/** Reads a string behind its length, a varint. */
async function readText(
  file: ProgramFile,
  position: number,
  maxBytes: number,
): Promise<{ readonly bytes: Buffer; readonly end: number }> {
  let length = 0;
  let scale = 1;
  let start = position;
  for (const byte of await file.readUpTo(position, 10)) {
    start++;
    length += (byte & 0x7f) * scale;
    scale *= 128;
    if (byte >= 0x80) continue;
    if (length > maxBytes) break;
    return { bytes: await file.read(start, length), end: start + length };
  }
  throw new KoError("its build information is damaged");
}

function isText(bytes: Buffer, at: number, text: string): boolean {
  return bytes.toString("latin1", at, at + text.length) === text;
}

/** Reads `path`, `version` and `sum`. The last two may be missing. */
function readModule([path = "", version = "", sum = ""]: readonly string[]): GoModule {
  return { path, version, ...(sum === "" ? {} : { sum }) };
}

/** Reads `key=value`, either of them quoted as Go quotes it; nothing if it is not that. */
function readSetting(text: string): readonly GoBuildSetting[] {
  const [, key, value] = /^("(?:[^"\\]|\\.)*"|`[^`]*`|[^=]+)=(.*)$/s.exec(text) ?? [];
  return key === undefined || value === undefined ? [] : [{ key: unquote(key), value: unquote(value) }];
}

const ESCAPES: Readonly<Record<string, string>> = {
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
};

/** Undoes Go's `strconv.Quote`. A byte that is not UTF-8 becomes U+FFFD. */
function unquote(text: string): string {
  if (/^`[^`]*`$/.test(text)) return text.slice(1, -1);
  if (!/^"(?:[^"\\]|\\.)*"$/s.test(text)) return text;
  return text.slice(1, -1).replaceAll(/\\(?:x(..)|u(.{4})|U(.{8})|(.))/gs, (_all, byte, four, eight, letter) => {
    if (typeof letter === "string") return ESCAPES[letter] ?? letter;
    const digits: string = byte ?? four ?? eight;
    // Number.parseInt() takes signs, and digits before other characters.
    const code = /^[0-9a-f]+$/i.test(digits) ? Number.parseInt(digits, 16) : Number.NaN;
    return code <= (byte === undefined ? 0x10ffff : 0x7f) ? String.fromCodePoint(code) : "\ufffd";
  });
}
