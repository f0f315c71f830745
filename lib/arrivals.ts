/**
 * Binaries as they appear in the folder that `go build` writes to: those that are complete while others are still linked,
 * those that go left as they were.
 */
import { type FSWatcher, type Stats, statSync, watch } from "node:fs";
import { join } from "node:path";
import { KoError } from "./errors.ts";
import { readVariable, type RunGoOptions } from "./go.ts";
import type { Program } from "./goprograms.ts";

/** What go made of a program. */
export interface CompiledBinary {
  /** Absolute. */
  readonly path: string;
  /** False if go found the one that was there up to date. */
  readonly isNew: boolean;
}

export interface ArrivalsOptions {
  /**
   * Called for each program before go is started, with the path where its binary will be: puts the last one there, for go
   * to keep if it is up to date. Go looks at its build id only, so it must be what it was. Gives its inode, if there is one.
   */
  readonly prepare?: ((program: Program, path: string) => number | undefined) | undefined;
  /** Called as soon as a binary is complete, often before go ends: the others may still be linked. */
  readonly onBinary?: ((program: Program, binary: CompiledBinary) => void) | undefined;
}

/**
 * Sees binaries appear in the folder that go builds into. Go links elsewhere and moves what is complete; where it has to
 * copy (Windows, another file system, a folder with the setgid bit), only its end tells.
 */
export class Arrivals {
  readonly #outDir: string;
  readonly #names: ReadonlyMap<string, Program>;
  readonly #onBinary: ArrivalsOptions["onBinary"];
  /** Inodes of what was there before, by name. */
  readonly #before = new Map<string, number | undefined>();
  readonly #seen = new Map<string, Stats>();
  readonly #watcher: FSWatcher | undefined;

  constructor(
    outDir: string,
    names: ReadonlyMap<string, Program>,
    options: ArrivalsOptions & Pick<RunGoOptions, "host" | "env">,
  ) {
    this.#outDir = outDir;
    this.#names = names;
    this.#onBinary = options.onBinary;
    for (const [name, program] of names) this.#before.set(name, options.prepare?.(program, join(outDir, name)));
    const { env, host } = options;
    const moves = host.platform !== "win32" && !readVariable("GOTMPDIR", env, host.platform) && !hasSetgid(outDir);
    if (!moves || options.onBinary === undefined) return;
    try {
      this.#watcher = watch(outDir, () => this.#look());
      this.#watcher.on("error", () => this.stop());
    } catch {
      // No more watches to be had: then the end of go tells.
    }
  }

  #look(): void {
    for (const [name, program] of this.#names) {
      if (this.#seen.has(name)) continue;
      const found = statSync(join(this.#outDir, name), { throwIfNoEntry: false });
      if (found === undefined || found.ino === this.#before.get(name)) continue;
      this.#seen.set(name, found);
      this.#onBinary?.(program, { path: join(this.#outDir, name), isNew: true });
    }
  }

  /**
   * When go has ended well: tells of the binaries that were not seen to appear.
   *
   * @throws {KoError} If one is missing, or is not the one that was seen.
   */
  finish(): ReadonlyMap<string, CompiledBinary> {
    this.stop();
    const binaries = new Map<string, CompiledBinary>();
    for (const [name, program] of this.#names) {
      const { importPath } = program;
      const path = join(this.#outDir, name);
      const is = statSync(path, { throwIfNoEntry: false });
      const fail = (why: string): KoError =>
        new KoError(`Cannot build "${importPath}": go build ended well, but ${why} ${path}`);
      if (is === undefined || !is.isFile()) throw fail("there is no file");
      const seen = this.#seen.get(name);
      // Not its times: it may be in the cache by now, which sets them.
      if (seen !== undefined && (seen.ino !== is.ino || seen.size !== is.size)) {
        throw fail("something else wrote to");
      }
      const binary = { path, isNew: is.ino !== this.#before.get(name) };
      binaries.set(importPath, binary);
      if (seen === undefined) this.#onBinary?.(program, binary);
    }
    return binaries;
  }

  stop(): void {
    this.#watcher?.close();
  }
}

function hasSetgid(dir: string): boolean {
  return ((statSync(dir, { throwIfNoEntry: false })?.mode ?? 0) & 0o2000) !== 0;
}
