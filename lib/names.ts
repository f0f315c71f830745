/**
 * How an import path becomes an image name under `KO_DOCKER_REPO` (spec/wire.md D5, spec/behaviour.md 1.2).
 */
import { posix } from "node:path";
import { KoErrors, UsageError } from "./errors.ts";
import type { Naming } from "./options.ts";
import { splitHost, whyBadPath } from "./reference.ts";

/**
 * The image name, without tag and digest. The import path is lower-cased first, as registries want it.
 *
 * - `md5`: `<repository>/<last element>-<md5 of the import path>`, the default
 * - `preserve` (`-P`): `<repository>/<import path>`
 * - `base` (`-B`): `<repository>/<last element>`
 * - `bare` (`--bare`): `<repository>`
 *
 * @param repository `KO_DOCKER_REPO`; may be empty where nothing is pushed
 */
export function imageName(repository: string, importPath: string, naming: Naming): string {
  const path = importPath.toLowerCase();
  const base = repository.replace(/\/+$/, "");
  const last = posix.basename(path);
  switch (naming) {
    case "bare":
      return base;
    case "preserve":
      return posix.join(base, path);
    case "base":
      return posix.join(base, last);
    default:
      return posix.join(base, `${last}-${new Bun.CryptoHasher("md5").update(path).digest("hex")}`);
  }
}

/**
 * Names of all import paths, checked before anything is built.
 *
 * @throws {UsageError} If two import paths end up with one name, or a name is none that a registry takes.
 */
export function nameAll(
  repository: string,
  importPaths: readonly string[],
  naming: Naming,
): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  const owners = new Map<string, string>();
  const errors: UsageError[] = [];
  for (const importPath of importPaths) {
    const name = imageName(repository, importPath, naming);
    const owner = owners.get(name);
    const why = name === "" ? "it is empty" : whyBadPath(splitHost(name).path);
    if (owner !== undefined && owner !== importPath) {
      errors.push(
        new UsageError(`Cannot publish ${owner} and ${importPath}: both would be named "${name}"`, {
          hint: clashHintOf(naming),
        }),
      );
    } else if (why !== undefined) {
      errors.push(new UsageError(`Cannot name the image of ${importPath} "${name}": ${why}`, { hint: hintOf(naming) }));
    }
    owners.set(name, importPath);
    names.set(importPath, name);
  }
  if (errors.length === 1 && errors[0]) throw errors[0];
  if (errors.length > 1) throw new KoErrors(errors);
  return names;
}

function clashHintOf(naming: Naming): string {
  return naming === "bare" || naming === "base"
    ? `Leave out ${naming === "bare" ? "--bare" : "-B"} (names get a hash of the import path), or use -P (names keep the import path).`
    : "They differ in upper and lower case only, which image names do not have: build them one at a time, with --bare.";
}

function hintOf(naming: Naming): string {
  return naming === "bare"
    ? "Set KO_DOCKER_REPO to the full name of the image."
    : "Use --bare to name the image yourself.";
}
