/** Throw-away folders. */
import { accessSync, constants, statfsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Folder extends AsyncDisposable {
  /** Absolute. */
  readonly path: string;
}

/** Bytes that must be free in memory for daemons to keep their state there. */
const ROOM = 4e9;

/** An empty folder that is gone, with all in it, at the end of the block: `await using folder = await makeFolder()`. */
export async function makeFolder(parent: string = tmpdir()): Promise<Folder> {
  const path = await mkdtemp(join(parent, "ko-test-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/**
 * The folder in which daemons keep their state, absolute: `$KO_TEST_STATE`, else one in memory, else that of temporary
 * files. A registry syncs each file several times, which takes ten times as long on a disk as all the rest of a push.
 */
export function stateFolder(): string {
  return process.env["KO_TEST_STATE"] || findMemory() || tmpdir();
}

function findMemory(): string | undefined {
  const path = "/dev/shm";
  try {
    accessSync(path, constants.W_OK);
    const { bavail, bsize } = statfsSync(path);
    return bavail * bsize > ROOM ? path : undefined;
  } catch {
    return undefined;
  }
}
