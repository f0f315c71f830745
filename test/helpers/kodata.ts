/**
 * Walks a kodata folder as a build would, and gives what came of it as plain data.
 */
import { readFileSync } from "node:fs";
import { type KodataOptions, kodataEntries } from "../../lib/kodata.ts";
import { type Failure, failureOf } from "./failures.ts";

export interface Walked {
  /** What would be packed below `/var/run/ko`, with contents; folders are empty texts. */
  readonly contents: Readonly<Record<string, string>>;
  readonly warnings: readonly string[];
}

/** For Linux, with the time 0, unless `some` says otherwise. */
export function kodataOptions(
  directory: string,
  some: Partial<KodataOptions> & { readonly warnings?: string[] },
): KodataOptions {
  const { warnings, ...rest } = some;
  const log = { info: () => {}, debug: () => {}, warn: (message: string) => void warnings?.push(message) };
  return { directory, os: "linux", mtime: 0, allowedRoot: undefined, log, ...rest };
}

export function walkKodata(directory: string, some: Partial<KodataOptions> = {}): Walked {
  const contents: Record<string, string> = {};
  const warnings: string[] = [];
  for (const { name, content } of [...kodataEntries(kodataOptions(directory, { ...some, warnings }))].slice(3)) {
    const path = content !== undefined && "path" in content ? content.path : undefined;
    contents[name.slice("/var/run/ko/".length)] = path === undefined ? "" : readFileSync(path, "utf8");
  }
  return { contents, warnings };
}

/** The words of the KoError that the walk fails with. */
export async function walkFailure(directory: string, some: Partial<KodataOptions> = {}): Promise<Failure> {
  return failureOf(() => Array.from(kodataEntries(kodataOptions(directory, some))));
}
