/**
 * What the original ko makes, kept in the cache folder of the tests: it is deterministic, and takes longer than ours.
 *
 * `KO_TEST_LIVE_ORACLE=1` runs it all the same.
 */
import { existsSync, lstatSync, readFileSync, readdirSync, readlinkSync } from "node:fs";
import { rename } from "node:fs/promises";
import { join } from "node:path";
import { ORIGINAL, cacheFolder } from "./counterparts.ts";

export interface KeepOptions {
  /** Runs the original, whatever is kept of it. @default $KO_TEST_LIVE_ORACLE */
  readonly isLive?: boolean | undefined;
  /** The original's executable. */
  readonly ko: string;
  /** The registry, `127.0.0.1:PORT`: another one each time, and no part of what decides. */
  readonly host: string;
  /** All else that decides the result: arguments, configuration, digest of the base, files. */
  readonly inputs: readonly string[];
}

/** A text that the original made. */
export interface Kept {
  readonly text: string;
  /** False if the original ran just now. */
  readonly isOld: boolean;
}

/**
 * A text that the original makes, from the cache folder if it was made before.
 *
 * Sound, because the file's name is a hash of all that decides the text: the original's own executable, the inputs, and
 * everything that `go env` reports. The original run twice on these gives the same text; it keeps no state of its own.
 */
export async function keepOriginal(make: () => Promise<string>, options: KeepOptions): Promise<Kept> {
  const { ko, host, inputs, isLive = Boolean(process.env["KO_TEST_LIVE_ORACLE"]) } = options;
  const key = new Bun.CryptoHasher("sha256");
  key.update(JSON.stringify([await describeOriginal(ko), ...inputs.map((input) => input.replaceAll(host, "HOST"))]));
  const file = join(cacheFolder(), "original", key.digest("hex"));
  if (!isLive && existsSync(file))
    return { text: readFileSync(file, "utf8").replaceAll("HOST:PORT", host), isOld: true };
  const text = await make();
  const making = `${file}.${crypto.randomUUID()}`;
  await Bun.write(making, text.replaceAll(host, "HOST:PORT"));
  // A file that is there is complete.
  await rename(making, file);
  return { text, isOld: false };
}

/**
 * All that a folder holds as a build sees it: names, modes, links and contents; of the repository in its root only that
 * there is one, as its one commit holds the same.
 */
export function digestTree(root: string): string {
  const hash = new Bun.CryptoHasher("sha256");
  const visit = (path: string): void => {
    for (const name of readdirSync(join(root, path)).sort()) {
      const at = join(path, name);
      const stat = lstatSync(join(root, at));
      hash.update(JSON.stringify([at, stat.mode]));
      if (at === ".git") continue;
      if (stat.isSymbolicLink()) hash.update(JSON.stringify(readlinkSync(join(root, at))));
      else if (stat.isDirectory()) visit(at);
      else hash.update(new Bun.CryptoHasher("sha256").update(readFileSync(join(root, at))).digest());
    }
  };
  visit("");
  return hash.digest("hex");
}

let described: Promise<string> | undefined;

/** The original and what it finds on this machine. */
function describeOriginal(ko: string): Promise<string> {
  return (described ??= (async () => {
    const { stdout } = Bun.spawnSync(["go", "env", "-json"], { cwd: "/", stderr: "inherit" });
    // Each call of `go env` names another temporary folder there.
    const stable = stdout.toString().replace(/^\t"GOGCCFLAGS":.*$/m, "");
    const hash = new Bun.CryptoHasher("sha256").update(await Bun.file(ko).bytes()).digest("hex");
    return JSON.stringify([ORIGINAL, stable, hash]);
  })());
}
