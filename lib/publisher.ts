/**
 * What all places that take images have in common: the interface, what they answer, the `--image-refs` file.
 */
import { realpath, rename, rm, stat, writeFile } from "node:fs/promises";
import { KoError } from "./errors.ts";
import type { Built } from "./image.ts";

/** Takes one image to one place. */
export interface Publisher {
  /**
   * @param name the image's name without tag and digest, see `imageName()` of names.ts
   * @throws {KoError} If anything of it could not be stored; no tag is moved then.
   */
  publish(built: Built, name: string): Promise<Published>;
  /** Called once, when all images of the run have been published. */
  finish?(): Promise<void>;
}

export interface Published {
  /** What is printed, or put into YAML. */
  readonly reference: string;
  /** What `--image-refs` lists: the image, or the index and each of its images. */
  readonly all: readonly string[];
}

/** What `--image-refs` lists of one result. */
export function listAll(built: Built, reference: string, repository: string): readonly string[] {
  if (built.kind === "image") return [reference];
  return [built, ...built.children].map((item) => `${repository}@${item.descriptor.digest}`);
}

/**
 * Writes the `--image-refs` file, in one step. A symbolic link stays one; a device or a pipe is written to.
 *
 * @throws {KoError} If it cannot be written.
 */
export async function writeImageRefs(path: string, published: readonly Published[]): Promise<void> {
  const text = published.flatMap(({ all }) => all.map((reference) => `${reference}\n`)).join("");
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
    throw new KoError(`Cannot write --image-refs "${path}"`, { cause });
  }
}
