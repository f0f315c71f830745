/**
 * The dynamic loader that a program for Linux asks for, and whether a base image can have it.
 *
 * Programs with cgo, and those of `-buildmode=pie`, are started by the loader of a C library. Where the image lacks it, the
 * kernel says "no such file or directory" of the program itself. ELF: https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html
 */
import { open } from "node:fs/promises";
import type { BuildSetup } from "./go-setup.ts";

/** The type of the program header that names the loader. */
const PT_INTERP = 3;
/** Bytes: more than any loader's path, and more headers than any linker writes. */
const MAX_PATH_BYTES = 4096;
const MAX_HEADERS = 256;

/** Bases without any C library. */
const WITHOUT_LIBC = /^(?:ko\.builtin\/static|scratch)(?:[@:]|$)|\/static(?:-debian\d+)?(?:[@:]|$)/;

/** Reports whether a build may make programs that need a loader: without cgo, Go makes none unless a flag asks for it. */
export function mayNeedLoader({ args, env }: BuildSetup): boolean {
  const flags = [...args, env["GOFLAGS"] ?? ""].join(" ");
  return env["GOOS"] === "linux" && (env["CGO_ENABLED"] !== "0" || /buildmode|linkmode|linkshared/.test(flags));
}

/** Reports whether a base has no loader, by its name. @param base the name, with or without tag and digest */
export function hasNoLoader(base: string): boolean {
  return WITHOUT_LIBC.test(base);
}

/**
 * Reads the path of the loader from an ELF file.
 *
 * @returns undefined if the program needs none, or the file is not ELF
 */
export async function readLoader(file: string): Promise<string | undefined> {
  await using handle = await open(file);
  const read = async (position: number, length: number): Promise<DataView> => {
    const bytes = new Uint8Array(length);
    const { bytesRead } = await handle.read(bytes, 0, length, position);
    return new DataView(bytes.buffer, 0, bytesRead);
  };
  const header = await read(0, 64);
  if (header.byteLength < 52 || header.getUint32(0) !== 0x7f454c46) return undefined;
  const is64 = header.getUint8(4) === 2;
  const little = header.getUint8(5) === 1;
  if (is64 && header.byteLength < 64) return undefined;
  const word = (view: DataView, at: number): number => {
    return is64 ? Number(view.getBigUint64(at, little)) : view.getUint32(at, little);
  };
  const start = word(header, is64 ? 32 : 28);
  const size = header.getUint16(is64 ? 54 : 42, little);
  const count = Math.min(header.getUint16(is64 ? 56 : 44, little), MAX_HEADERS);
  if (size < (is64 ? 56 : 32)) return undefined;
  const table = await read(start, size * count);
  for (let at = 0; at + size <= table.byteLength; at += size) {
    if (table.getUint32(at, little) !== PT_INTERP) continue;
    const [offset, bytes] = is64
      ? [word(table, at + 8), word(table, at + 32)]
      : [word(table, at + 4), word(table, at + 16)];
    const path = await read(offset, Math.min(bytes, MAX_PATH_BYTES));
    return new TextDecoder().decode(path).replace(/\0.*$/s, "");
  }
  return undefined;
}
