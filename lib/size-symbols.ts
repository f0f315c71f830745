/**
 * The sizes of the symbols of a program, by package: those that `go tool nm -size` prints.
 *
 * Reads the section headers and the symbol table of an ELF file, and nothing else. https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.symtab.html
 */
import { type FileHandle, open } from "node:fs/promises";
import { KoError, messageOf } from "./errors.ts";

/** The size of all sections that take bytes in the file, and of the symbols of each package. */
export interface ProgramSizes {
  /** Bytes of the file. */
  readonly file: number;
  /** Bytes by section, in the order of the file. */
  readonly sections: ReadonlyMap<string, number>;
  /** Bytes by package; undefined if the program has no symbol table (`-ldflags=-s`). */
  readonly packages: ReadonlyMap<string, number> | undefined;
}

interface Section {
  readonly name: number;
  readonly type: number;
  readonly offset: number;
  readonly size: number;
  readonly link: number;
}

const [SYMTAB, NOBITS] = [2, 8];
const MOST_SECTIONS = 4096;
/** Names are read as a whole: Knative's have 3 MB. */
const MOST_NAME_BYTES = 256 * 1024 * 1024;
const CHUNK_SYMBOLS = 16_384;

/** Symbols that belong to no package: types, itabs, strings, and tables of the linker. */
export const TABLES = "(types and tables)";
/** Symbols of C, of assembly without a package, and of the linker. */
export const OTHERS = "(others)";

/** @throws {KoError} If it is not an ELF file, or is damaged. */
export async function readSizes(path: string): Promise<ProgramSizes> {
  try {
    await using handle = await open(path);
    return await readElf(handle, (await handle.stat()).size);
  } catch (cause) {
    throw new KoError(`Cannot read the symbols of "${path}": ${messageOf(cause)}`, { cause });
  }
}

async function readElf(handle: FileHandle, file: number): Promise<ProgramSizes> {
  const read = async (position: number, length: number): Promise<Buffer> => {
    if (length < 0 || position < 0 || position + length > file) throw new KoError("its section headers are damaged");
    const bytes = Buffer.alloc(length);
    let done = 0;
    while (done < length) {
      const { bytesRead } = await handle.read(bytes, done, length - done, position + done);
      if (bytesRead === 0) throw new KoError("its section headers are damaged");
      done += bytesRead;
    }
    return bytes;
  };
  const start = await read(0, Math.min(64, file));
  if (start.toString("latin1", 0, 4) !== "\x7fELF" || start.byteLength < 64) {
    throw new KoError("it is not an ELF file, only programs for Linux and other systems with ELF can be measured");
  }
  const [wide, little] = [start[4] === 2, start[5] === 1];
  const half = (bytes: Buffer, at: number): number => (little ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at));
  const word = (bytes: Buffer, at: number): number => (little ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at));
  const long = (bytes: Buffer, [at64, at32]: readonly [number, number]): number => {
    if (!wide) return word(bytes, at32);
    return Number(little ? bytes.readBigUInt64LE(at64) : bytes.readBigUInt64BE(at64));
  };
  const at = wide ? 0x3a : 0x2e;
  const [entryBytes, count, names] = [half(start, at), half(start, at + 2), half(start, at + 4)];
  if (count > MOST_SECTIONS || (count > 0 && entryBytes < (wide ? 64 : 40))) {
    throw new KoError("its section headers are damaged");
  }
  const table = await read(long(start, [0x28, 0x20]), count * entryBytes);
  const sections = Array.from({ length: count }, (_, i): Section => {
    const bytes = table.subarray(i * entryBytes);
    return {
      name: word(bytes, 0),
      type: word(bytes, 4),
      offset: long(bytes, [24, 16]),
      size: long(bytes, [32, 20]),
      link: word(bytes, wide ? 40 : 24),
    };
  });
  const readNames = async (section: Section | undefined): Promise<Buffer> => {
    if (section === undefined || section.size > MOST_NAME_BYTES) throw new KoError("its names are damaged");
    return read(section.offset, section.size);
  };
  const shown = new Map<string, number>();
  const sectionNames = count === 0 ? Buffer.alloc(0) : await readNames(sections[names]);
  for (const { name, size, type } of sections) {
    if (type !== NOBITS && size > 0) shown.set(textAt(sectionNames, name), size);
  }
  const symbols = sections.find(({ type }) => type === SYMTAB);
  if (symbols === undefined) return { file, sections: shown, packages: undefined };
  const symbolNames = await readNames(sections[symbols.link]);
  const bytesEach = wide ? 24 : 16;
  const packages = new Map<string, number>();
  const total = Math.floor(symbols.size / bytesEach);
  for (let i = 0; i < total; i += CHUNK_SYMBOLS) {
    const some = Math.min(CHUNK_SYMBOLS, total - i);
    const chunk = await read(symbols.offset + i * bytesEach, some * bytesEach);
    for (let j = 0; j < some; j++) {
      const symbol = chunk.subarray(j * bytesEach, (j + 1) * bytesEach);
      const size = long(symbol, [16, 8]);
      if (size === 0) continue;
      const name = packageOf(textAt(symbolNames, word(symbol, 0)));
      packages.set(name, (packages.get(name) ?? 0) + size);
    }
  }
  return { file, sections: shown, packages };
}

function textAt(bytes: Buffer, at: number): string {
  const end = bytes.indexOf(0, at);
  return bytes.toString("utf8", at, end < 0 ? bytes.byteLength : end);
}

/**
 * The package of a symbol: `github.com/a/b.(*T).M` is of `github.com/a/b`.
 *
 * @returns {@link TABLES} or {@link OTHERS} for a symbol of no package
 */
export function packageOf(symbol: string): string {
  if (/^(?:go|type):/.test(symbol)) return TABLES;
  const path = symbol.replace(/[[(].*$/s, "");
  const dot = path.indexOf(".", path.lastIndexOf("/") + 1);
  if (dot <= 0) return OTHERS;
  return path.slice(0, dot).replaceAll(/%([0-9a-f]{2})/g, (_all, hex: string) => {
    return String.fromCharCode(Number.parseInt(hex, 16));
  });
}
