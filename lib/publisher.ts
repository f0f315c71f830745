/**
 * What all places that take images have in common: the interface, what they answer, the `--image-refs` file.
 */
import type { Built } from "./image.ts";
import type { GrowingLayer } from "./layer.ts";
import { writeOutputFile } from "./outputfile.ts";

/** Takes one image to one place. */
export interface Publisher {
  /**
   * @param name the image's name without tag and digest, see `imageName()` of names.ts
   * @param options.isReused nothing of it was built in this run: then it is probably there already
   * @throws {KoError} If anything of it could not be stored; no tag is moved then.
   */
  publish(built: Built, name: string, options: PublishOptions): Promise<Published>;
  /** An image of this name will follow: what can be asked before it is built is asked now. */
  expect?(name: string): void;
  /**
   * A layer of an image of this name is being made: its bytes can be on their way already. Nothing names them until the
   * image is published.
   *
   * @param options.isChange the place has an earlier one, if it has any
   */
  stage?(growing: GrowingLayer, name: string, options: { readonly isChange: boolean }): void;
  /** Called once, when all images of the run have been published. */
  finish?(): Promise<void>;
}

export interface PublishOptions {
  readonly isReused: boolean;
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
 * Writes the `--image-refs` file, as `writeOutputFile()` of outputfile.ts writes.
 *
 * @throws {KoError} If it cannot be written.
 */
export async function writeImageRefs(path: string, published: readonly Published[]): Promise<void> {
  const text = published.flatMap(({ all }) => all.map((reference) => `${reference}\n`)).join("");
  await writeOutputFile(path, text, "--image-refs");
}
