/**
 * Refuses a program that is linked dynamically on a base without the loader that it needs.
 *
 * Such an image never starts: the kernel says "no such file or directory" of the program itself.
 */
import type { Base } from "./base.ts";
import type { Binary, PackageLister } from "./build-binaries.ts";
import type { RunContext } from "./cache.ts";
import { BaseError, printable } from "./errors.ts";
import { findUsers } from "./go-cgo.ts";
import { hasNoLoader, readLoader } from "./go-loader.ts";
import type { GoPackage } from "./go.ts";
import type { Image } from "./image.ts";
import type { RunWarnings } from "./log.ts";
import { formatPlatform } from "./oci.ts";

export interface CheckLoaderOptions {
  readonly context: RunContext;
  /** For its name. */
  readonly base: Base;
  /** The base for the platform of the program. */
  readonly image: Image;
  readonly lister: PackageLister;
  readonly warnings: RunWarnings;
}

/** The most packages in a message. */
const MOST_PACKAGES = 3;

/**
 * Checks that a base has the loader of a program. A base whose layers are too large to look at is only warned of, if its name
 * says that it has no C library.
 *
 * @throws {BaseError} If no layer of the base has a file of the loader's name.
 */
export async function checkLoader(binary: Binary, options: CheckLoaderOptions): Promise<void> {
  const { base, context, image, warnings } = options;
  const loader = await readLoader(binary.path);
  if (loader === undefined) return;
  const { lacksLoader } = await import("./base-loaders.ts");
  const isLacking = await lacksLoader(image, loader, context);
  const name = base.text.replace(/@.*/, "");
  const { importPath } = binary.program;
  if (!isLacking) {
    if (!hasNoLoader(base.text)) return;
    const why = `it needs ${printable(loader)}, which ${name} probably does not have`;
    warnings.warn([`${importPath} will not start: ${why}. ${cureFor(loader, binary, [])}`]);
    return;
  }
  const users = await usersOf(binary, options);
  const shown = users.slice(0, MOST_PACKAGES).map(({ importPath: path }) => path);
  if (users.length > shown.length) shown.push(`${users.length - shown.length} more`);
  const reason = shown.length === 0 ? "" : `, because of cgo in ${shown.join(", ")}`;
  throw new BaseError(
    `Cannot put "${importPath}" for ${formatPlatform(binary.platform)} on base "${name}": the program needs the loader ${printable(loader)}${reason}, and the base does not have it`,
    { hint: cureFor(loader, binary, users) },
  );
}

/** The packages that use cgo: those of Go itself only if there are no others. */
async function usersOf(
  { platform, program, setup }: Binary,
  { lister }: CheckLoaderOptions,
): Promise<readonly GoPackage[]> {
  if (setup.env["CGO_ENABLED"] === "0") return [];
  // The program fails anyway: without a list, the message is shorter.
  const answer = await lister.list({ platform, setup }, [program]).catch(() => undefined);
  if (answer === undefined || "kind" in answer) return [];
  const packages = answer.packages.get(program.workDir) ?? [];
  const needed = new Set<string>();
  const byPath = new Map(packages.map((each) => [each.importPath, each]));
  const add = (importPath: string): void => {
    if (needed.has(importPath)) return;
    needed.add(importPath);
    for (const each of byPath.get(importPath)?.imports ?? []) add(each);
  };
  add(program.importPath);
  const users = findUsers(packages.filter(({ importPath }) => needed.has(importPath)));
  const own = users.filter(({ standard }) => !standard);
  return own.length > 0 ? own : users;
}

function cureFor(loader: string, { setup }: Binary, users: readonly GoPackage[]): string {
  const base = /\/ld-musl-/.test(loader)
    ? "Use a base with musl, such as alpine"
    : /\/ld-linux|\/ld64\.so|\/ld\.so\.1$/.test(loader)
      ? "Use a base with glibc, such as gcr.io/distroless/base"
      : `Use a base that has ${printable(loader)}`;
  if (setup.env["CGO_ENABLED"] === "0") return `${base}, or compile without -buildmode=pie.`;
  const [own] = users.filter(({ standard }) => !standard);
  const unless = own === undefined ? "" : `, if ${own.importPath} can do without cgo`;
  return `${base}, or compile with CGO_ENABLED=0${unless}.`;
}
