/**
 * A text file that a flag names for ko to write: checked before the work, written in one step after it.
 *
 * Archives are streamed: archivefile.ts.
 */
import { access, constants, realpath, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { KoError, UsageError } from "./errors.ts";

/**
 * Checks that a file can be written later, without a trace.
 *
 * @param path absolute
 * @param flag who names it: `--image-refs`
 * @throws {UsageError} If it is a folder, or its folder does not exist or cannot be written to.
 */
export async function checkWritableFile(path: string, flag: string): Promise<void> {
  const fail = (why: string): UsageError => new UsageError(`Cannot write ${flag} "${path}": ${why}`);
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory()) throw fail("it is a folder");
  // A device or a pipe is written to, not replaced.
  if (found !== undefined && !found.isFile()) return;
  const folder = dirname(await realpath(path).catch(() => path));
  const parent = await stat(folder).catch(() => undefined);
  if (!parent?.isDirectory()) throw fail(`the folder ${folder} does not exist`);
  await access(folder, constants.W_OK).catch(() => {
    throw fail(`the folder ${folder} cannot be written to`);
  });
}

/**
 * Writes a file in one step: what was there stays until all of `text` is. A symbolic link stays one; a device or a pipe
 * is written to.
 *
 * @param path absolute
 * @param flag who names it: `--image-refs`
 * @throws {KoError} If it cannot be written; nothing is left behind then.
 */
export async function writeOutputFile(path: string, text: string, flag: string): Promise<void> {
  try {
    const target = await realpath(path).catch(() => path);
    const found = await stat(target).catch(() => undefined);
    // To rename a file over /dev/null or /dev/stdout would take the device away.
    if (found !== undefined && !found.isFile()) return await writeFile(target, text);
    const temporary = `${target}.${crypto.randomUUID()}.tmp`;
    try {
      await writeFile(temporary, text, { mode: 0o644 });
      await rename(temporary, target);
    } finally {
      await rm(temporary, { force: true });
    }
  } catch (cause) {
    throw new KoError(`Cannot write ${flag} "${path}"`, { cause });
  }
}
